"""Many runs, trained as ensembles, here or on any `concurrent.futures.Executor`.

Rows are kept in a file of JSON lines, one a run, so that a sweep that ends early goes on later.
"""

import math
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lookbehind.checks import whole
from lookbehind.study.block import Job, Measure, blocks, train_block
from lookbehind.study.rows import Row, Rows, SweepError, distinct, essence
from lookbehind.train import Hardware, Recipe, choose_hardware
from lookbehind.train.data import Dataset

MEMBERS = 128  # of an ensemble: from here on an MLP on digits gains little
RESERVED = ("recipe", "error", "gradients", "records", "train", "validation", "test")
_ALONE = threading.Lock()


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
    kept, wanted = Rows(path), distinct(recipes)
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
    """The trained network and the row of each recipe, in their order; `options` as in `sweep`.

    All is trained in this process and kept in memory. Raises SweepError where a run fails.
    """
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
