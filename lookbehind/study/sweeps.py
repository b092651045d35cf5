"""Many runs, trained as ensembles, here or on any `concurrent.futures.Executor`.

Their rows are kept in a file of JSON lines, one a run, so that a sweep that ends early goes on.
"""

import json
import math
import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Executor
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from lookbehind.checks import whole
from lookbehind.study.block import Job, Measure, Row, blocks, essence, train_block
from lookbehind.train import Hardware, Recipe, choose_hardware
from lookbehind.train.data import Dataset

MEMBERS = 128  # of an ensemble: from here on an MLP on digits gains little
RESERVED = ("recipe", "error", "gradients", "records", "train", "validation", "test")
PATIENCE = 60.0  # seconds for a lock that others hold for moments
_START = b'{"recipe": {'  # of every line of the file
_ALONE = threading.Lock()


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """`base` with every combination of the values on the axes, settings of a `Recipe`.

    Recipes that differ only in settings that their method doesn't have are one run: the first is
    kept. The last axis changes fastest. Raises TypeError or ValueError for a name that is no
    setting, for an axis that is no sequence of values or is empty, and as `Recipe` does.
    """
    combined = product(*map(_values, axes, axes.values()))
    return _distinct(replace(base, **dict(zip(axes, some, strict=True))) for some in combined)


def _values(name: str, axis: Any) -> list[Any]:
    known = [field.name for field in fields(Recipe)]
    if name not in known:
        raise ValueError(f"an axis must be one of {', '.join(known)}, got {name!r}")
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        raise TypeError(f"{name} must be a sequence of values, got {axis!r}")
    values = list(axis.tolist() if hasattr(axis, "tolist") else axis)  # of NumPy
    if not values:
        raise ValueError(f"{name} must hold at least one value, got {axis!r}")
    return values


def _distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The first recipe of each run, in order."""
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(essence(recipe), recipe)
    return list(found.values())


class SweepError(RuntimeError):
    """A sweep that cannot start, or go on. The message says what to do."""


def sweep(
    recipes: Iterable[Recipe], path: str | Path | None = None, *, executor: Executor | None = None,
    measures: Mapping[str, Measure] | None = None, hardware: Hardware | None = None,
    records: int = 0, progress: bool = False,
) -> list[Row]:  # fmt: skip
    """Train all `recipes`, and return a row for each, in their order.

    A row is {"recipe": {all settings}, "gradients": n, "train": {"loss": nats, "accuracy": share},
    "validation": …, "test": …} at the end of training. A run that fails doesn't stop the rest: its
    row is {"recipe": …, "error": "FloatingPointError: …"}. What `measures` give, called as
    measure(network, dataset) with the network in evaluation mode, is added under their names.
    With `records`, the scores at so many points of the training, the last at its end, are added as
    "records": [{"gradients": n, "train": …, "validation": …, "test": …}, …].

    Runs that differ in seed, ρ, lr and a number α only are trained as one `Ensemble`, as large as
    memory allows. Each becomes what `Recipe.run` makes of it alone, but for rounding.

    `executor` is any of `concurrent.futures`; by default all is trained in this process. A worker
    needs this package, the datasets and the measures: for a `ProcessPoolExecutor` functions of a
    module. It trains one ensemble at a time, on one CPU thread, or on `hardware` (default: the best
    device here).

    Rows are appended to `path`, a file of JSON lines (see `Rows`), as they come. Runs that are
    there already aren't repeated, but for those that lack measures or records; a failed one is
    where its line is deleted. After Ctrl-C, or where the pool of processes breaks (SweepError),
    what was finished is in the file, and the same call goes on. Several sweeps may share a file.

    Raises SweepError where `path` holds anything else, before anything is written, TypeError or
    ValueError for wrong arguments.
    """
    from tqdm.auto import tqdm

    recipes, measures = list(recipes), dict(measures or {})
    _check(recipes, measures, executor)
    whole("records", records, 0)
    kept, wanted = Rows(path), _distinct(recipes)
    needed = {"recipe", *measures, *["records"] * bool(records)}
    there = {recipe: kept.of(recipe) or {} for recipe in wanted}
    todo = [recipe for recipe, row in there.items() if "error" not in row and not needed <= {*row}]
    job = Job(measures, records, hardware or choose_hardware())
    workers = getattr(executor, "_max_workers", None) or 1
    parts = blocks(todo, min(MEMBERS, math.ceil(len(todo) / workers) or 1))
    done = len(wanted) - len(todo)
    with tqdm(total=len(wanted), initial=done, unit=" runs", disable=not progress) as bar:
        try:
            for rows in _trained(parts, job, executor):
                kept.append(rows)
                done += len(rows)
                bar.update(len(rows))
        except (futures.BrokenExecutor, futures.CancelledError) as error:
            kept_in = f"in {path}: the same call with a new executor goes on from there"
            where = kept_in if path else "lost: give a path to keep them"
            words = f"the executor ended or a worker of it was killed; {done} of {len(wanted)} runs"
            raise SweepError(f"{words} are {where}") from error
    return [kept.rows[essence(recipe)] for recipe in recipes]


def networks(recipes: Iterable[Recipe], **options: Any) -> list[tuple[nn.Module, Row]]:
    """The trained network and the row of each recipe, in their order, trained in this process and
    kept in memory; `options` as in `sweep`. Raises SweepError where a run fails."""
    kept: list[nn.Module] = []

    def keep(network: nn.Module, dataset: Dataset) -> int:
        kept.append(network)
        return len(kept) - 1

    found = []
    for row in sweep(recipes, measures={"network": keep}, **options):
        if "error" in row:
            raise SweepError(f"{Recipe(**row['recipe'])} failed: {row['error']}")
        found.append((kept[row["network"]], {n: v for n, v in row.items() if n != "network"}))
    return found


def _check(recipes: list[Any], measures: dict[str, Any], executor: Executor | None) -> None:
    for recipe in recipes:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipes must be Recipes, got {recipe!r}")
    for name, measure in measures.items():
        if name in RESERVED or not callable(measure):
            allowed = f"measures must be functions, under other names than {', '.join(RESERVED)}"
            raise ValueError(f"{allowed}; got {name!r}: {measure!r}")
    if isinstance(executor, futures.ProcessPoolExecutor):
        try:
            pickle.dumps(measures)
        except Exception as error:
            allowed = "measures must be functions of a module for a ProcessPoolExecutor"
            raise TypeError(f"{allowed}, got {measures} ({error})") from error


def _trained(parts: list[list[Recipe]], job: Job, executor: Executor | None) -> Iterator[list[Row]]:
    """The rows of the blocks as they come."""
    if executor is None:
        yield from (train_block(block, job) for block in parts)
        return
    dtype = torch.get_default_dtype()
    running = [executor.submit(_in_worker, dtype, block, job) for block in parts]
    try:
        for future in futures.as_completed(running):
            yield future.result()
    finally:
        for future in running:
            future.cancel()


def _in_worker(dtype: torch.dtype, block: list[Recipe], job: Job) -> list[Row]:
    """`train_block` with the caller's dtype, on one thread; one at a time in a process, whose
    threads share torch's settings and random numbers."""
    with _ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.set_default_dtype(dtype)
        try:
            return train_block(block, job)
        finally:
            torch.set_num_threads(threads)


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
