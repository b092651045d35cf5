"""The runs of a study along axes, their rows, and the file of JSON lines that keeps these."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

from lookbehind.optim import METHODS
from lookbehind.train import Recipe

Row = dict[str, Any]  # {"recipe": {all settings}, what was measured}
_START = b'{"recipe": {'  # of every line of the file
PATIENCE = 60.0  # seconds for a lock that others hold for moments


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """`base` with every combination of the values on the axes, settings of a `Recipe`.

    Recipes that differ only in settings that their method doesn't have are one run: the first is
    kept. The last axis changes fastest. Raises TypeError or ValueError for a name that is no
    setting, for an axis that is no sequence of values or is empty, and as `Recipe` does.
    """
    combined = product(*_values(axes).values())
    return distinct(replace(base, **dict(zip(axes, some, strict=True))) for some in combined)


def essence(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its method doesn't have at their defaults.

    Two recipes are the same run where these are equal.
    """
    every = {axis for method in METHODS.values() for axis in method.axes}
    unused = every - {*METHODS[recipe.method].axes}
    return replace(recipe, **{name: getattr(Recipe, name) for name in unused})


def distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The first recipe of each run, in order."""
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(essence(recipe), recipe)
    return list(found.values())


def _values(axes: Mapping[str, Any]) -> dict[str, list[Any]]:
    known, values = [field.name for field in fields(Recipe)], {}
    for name, axis in axes.items():
        if name not in known:
            raise ValueError(f"an axis must be one of {', '.join(known)}, got {name!r}")
        if isinstance(axis, str) or not isinstance(axis, Iterable):
            raise TypeError(f"{name} must be a sequence of values, got {axis!r}")
        values[name] = list(axis.tolist() if hasattr(axis, "tolist") else axis)  # of NumPy
        if not values[name]:
            raise ValueError(f"{name} must hold at least one value, got {axis!r}")
    return values


def as_json(name: str, value: Any) -> Any:
    """What a measure gave, as it is read again from the file: tensors and arrays become lists."""

    def listed(part: Any) -> Any:
        if not hasattr(part, "tolist"):
            raise TypeError(f"the measure {name!r} must give what JSON can hold, got {part!r}")
        return part.tolist()

    return json.loads(json.dumps(value, default=listed))


class SweepError(RuntimeError):
    """A sweep that cannot start, or go on. The message says what to do."""


class Rows:
    """The rows by run, and the file that they are appended to, if any.

    Several processes may share the file. A last line that was cut short is taken off; a later line
    of a run adds to an earlier one. Raises SweepError where the file holds anything else.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: dict[Recipe, Row] = {}  # by the essence of its recipe
        self._end = 0  # of what was read and written
        self.append(())

    def of(self, recipe: Recipe) -> Row | None:
        """The row of this run, or None."""
        return self.rows.get(essence(recipe))

    def append(self, rows: Iterable[Row]) -> None:
        """Take up what others wrote, then the rows, and bring those that are news to the disk."""
        if self.path is None:
            for row in rows:
                self._take(row)
            return
        with _locked(self.path), self.path.open("a+b") as file:
            self._read(file)
            news = filter(None, map(self._take, rows))
            file.write("".join(json.dumps(row) + "\n" for row in news).encode())
            file.flush()
            os.fsync(file.fileno())
            self._end = file.seek(0, os.SEEK_END)

    def _take(self, row: Row) -> Row | None:
        """With the measures of an earlier line of the run; None where it is no news."""
        run = essence(Recipe(**row["recipe"]))
        old = self.rows.get(run, {})
        self.rows[run] = row if "error" in row or "error" in old else {**old, **row}
        return self.rows[run] if self.rows[run] != old else None

    def _read(self, file: BinaryIO) -> None:
        """Take up the lines since the last time. Nobody else writes now, so a part is a ruin."""
        file.seek(self._end)
        for line in file.readlines():
            if not line.endswith(b"\n") and _START.startswith(line[: len(_START)]):
                file.truncate(self._end)
                return
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SweepError(
                    f"{self.path} must hold rows of a sweep only, got {line[:60]!r} at byte "
                    f"{self._end} ({type(error).__name__}: {error}): give another path"
                ) from error
            self._end += len(line)


def _locked(path: Path) -> Any:
    """A lock, held until the end of a `with`: workers that are forked inherit it."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE).acquire()
    except (OSError, NotImplementedError) as error:
        words = f"{path} cannot be locked ({error})"
        raise SweepError(f"{words}: give a path in a folder that you may write in") from error
