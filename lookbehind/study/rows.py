"""The rows of a study, and the file of JSON lines that keeps them, one a line."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lookbehind.study.axes import essence
from lookbehind.train import Recipe

Row = dict[str, Any]  # {"recipe": {all settings}, what was measured}

_START = b'{"recipe": {'  # of every line of the file

PATIENCE = 60.0  # seconds for a lock that others hold for moments


class SweepError(RuntimeError):
    """A sweep that cannot start, or go on. The message says what to do."""


class Rows:
    """The rows by run, and the file that they are appended to, if any.

    Several processes may share the file. A last line that was cut short is taken off; of several
    lines of one run the last counts. Raises SweepError where the file holds anything else.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: dict[Recipe, Row] = {}  # by the essence of its recipe
        self._end = 0  # of what was read and written
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(self.path):
                self._read(self.path)

    def of(self, recipe: Recipe) -> Row | None:
        """The row of this run, or None."""
        return self.rows.get(essence(recipe))

    def append(self, rows: Iterable[Row]) -> None:
        """Take the rows up, and bring those that are news to the disk."""
        if self.path is None:
            for row in rows:
                self._take(row)
            return
        with self._locked(self.path):
            self._read(self.path)
            lines = [json.dumps(row) + "\n" for row in map(self._merged, rows) if self._take(row)]
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
            self._end += sum(map(len, lines))  # ASCII

    def _merged(self, row: Row) -> Row:
        """With the measures of an earlier line."""
        old = self.of(Recipe(**row["recipe"])) or row
        return row if "error" in row or "error" in old else {**old, **row}

    def _take(self, row: Row) -> bool:
        """Whether there was another row, or none."""
        run = essence(Recipe(**row["recipe"]))
        changed = self.rows.get(run) != row
        self.rows[run] = row
        return changed

    @staticmethod
    @contextmanager
    def _locked(path: Path) -> Iterator[None]:
        """For the moments of reading and writing only: workers that are forked inherit the lock."""
        from filelock import FileLock

        try:
            held = FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE).acquire()
        except (OSError, NotImplementedError) as error:
            words = f"{path} cannot be locked ({error})"
            raise SweepError(f"{words}: give a path in a folder that you may write in") from error
        with held:
            yield

    def _read(self, path: Path) -> None:
        """Take up the lines since the last time. Nobody else writes now, so a part is a ruin."""
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._end)
            lines = file.readlines()
        for line in lines:
            if not line.endswith(b"\n") and _START.startswith(line[: len(_START)]):
                os.truncate(path, self._end)
                return
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SweepError(
                    f"{path} must hold rows of a sweep only, got {line[:60]!r} at byte {self._end} "
                    f"({type(error).__name__}: {error}): give another path"
                ) from error
            self._end += len(line)
