"""Many runs, trained as ensembles, here or on any `concurrent.futures.Executor`.

Rows are kept in a file of JSON lines, one a run, so that a sweep that ends early goes on later.
"""

import json
import math
import os
import pickle
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lookbehind.data import Batches, Dataset
from lookbehind.ensemble import (
    EVALUATION_IMAGES,
    Ensemble,
    MemberBatches,
    evaluate_members,
    member_cross_entropy,
    scale_lr,
)
from lookbehind.hardware import Hardware, choose_hardware, keep_freed_memory
from lookbehind.methods import METHODS
from lookbehind.recipe import EVALUATION_BATCH, SCHEDULES, Recipe, evaluation_batches
from lookbehind.train import Run, fit

Row = dict[str, Any]
Measure = Callable[[nn.Module, Dataset], float]

# Networks of an ensemble: from here on an MLP on digits gains little.
MEMBERS = 128
# Bytes that the networks of one ensemble may take on a CPU; of a GPU, half of what is free.
MEMORY = 2**30
START = b'{"recipe": {'  # of every line of the file
RESERVED = ("recipe", "error", "gradients", "train", "validation", "test")
_ALONE = threading.Lock()


class SweepError(RuntimeError):
    """A sweep that cannot start, or go on. The message says what to do."""


@dataclass(frozen=True)
class Uniform:
    """An axis of `sample`: any number from `low` to `high`, each as likely."""

    low: float
    high: float

    def draw(self, generator: random.Random) -> float:
        return generator.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """An axis of `sample`: a number from `low` > 0 to `high`, its logarithm uniform."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"low must be > 0 and ≤ high, got {self.low!r} and {self.high!r}")

    def draw(self, generator: random.Random) -> float:
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


Axis = Iterable[Any] | Uniform | LogUniform


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """`base` with every combination of the values on the axes, settings of a `Recipe`.

    Recipes that differ only in settings that their method doesn't have are one run: the first is
    kept. The last axis changes fastest. Raises TypeError or ValueError for a name that is no
    setting, for an axis that is no sequence of values or is empty, and as `Recipe` does.
    """
    values = choices(axes)
    combined = product(*values.values())
    return _distinct(replace(base, **dict(zip(values, some, strict=True))) for some in combined)


def sample(base: Recipe, count: int, *, seed: int = 0, **axes: Axis) -> list[Recipe]:
    """`count` recipes at random, drawn by `seed`: `base` with a value of each axis.

    An axis is a sequence, of which each value is as likely, a `Uniform` or a `LogUniform`. Equal
    runs are kept once, so there may be fewer. For several seeds of each:
    [r for s in sample(...) for r in grid(s, seed=range(5))]. Raises as `grid`.
    """
    ranges = {n: axis for n, axis in axes.items() if isinstance(axis, Uniform | LogUniform)}
    values = choices({n: axis for n, axis in axes.items() if n not in ranges})
    _check_names(ranges)
    generator = random.Random(seed)

    def value(name: str) -> Any:
        if name in ranges:
            return ranges[name].draw(generator)
        return generator.choice(values[name])

    return _distinct(replace(base, **{name: value(name) for name in axes}) for _ in range(count))


def essence(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its method doesn't have at their defaults.

    Two recipes are the same run where these are equal.
    """
    used = signature(METHODS[recipe.method]).parameters
    unused = {"k", "rho", "eta", "alpha", "gradient"} - set(used)
    return replace(recipe, **{name: getattr(Recipe, name) for name in unused})


def _distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(essence(recipe), recipe)
    return list(found.values())


def choices(axes: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each axis that is a sequence. Raises as `grid`."""
    _check_names(axes)
    values = {}
    for name, axis in axes.items():
        if isinstance(axis, str) or not isinstance(axis, Iterable):
            raise TypeError(f"{name} must be a sequence of values, got {axis!r}")
        values[name] = list(axis.tolist() if hasattr(axis, "tolist") else axis)  # of NumPy
        if not values[name]:
            raise ValueError(f"{name} must hold at least one value, got {axis!r}")
    return values


def _check_names(axes: Iterable[str]) -> None:
    known = [field.name for field in fields(Recipe)]
    for name in axes:
        if name not in known:
            raise ValueError(f"an axis must be one of {', '.join(known)}, got {name!r}")


def sweep(
    recipes: Iterable[Recipe],
    path: str | Path | None = None,
    *,
    executor: Executor | None = None,
    measures: Mapping[str, Measure] | None = None,
    root: str | Path | None = None,
    hardware: Hardware | None = None,
    members: int = MEMBERS,
    retry_failed: bool = False,
    progress: bool = False,
) -> list[Row]:
    """Train all `recipes`, and return a row for each, in their order.

    A row is {"recipe": {all settings}, "gradients": n, "train": {"loss": nats, "accuracy": share},
    "validation": …, "test": …} at the end of training. A run that fails doesn't stop the rest: its
    row is {"recipe": …, "error": "FloatingPointError: …"}. What `measures` give, called as
    measure(network, dataset) with the network in evaluation mode, is added under their names.

    Runs that differ in seed, ρ, lr and a number α only are trained as one `Ensemble` of at most
    `members` networks, fewer where `MEMORY` asks for it. Each becomes what `Recipe.run` makes of
    it alone, but for rounding. A whole ensemble that fails is tried again in halves, so that only
    the guilty runs are recorded as failed.

    `executor` is any of `concurrent.futures`, or Dask's `client.get_executor()`; by default all
    is trained in this process. A worker needs this package, the datasets (`root` as in
    `lookbehind.data`) and the measures: for a `ProcessPoolExecutor` functions of a module. It
    trains one ensemble at a time, on one CPU thread, or on `hardware` (default: its best device).

    Rows are appended to `path`, a file of JSON lines, as they come. Runs that are there already
    aren't repeated; failed ones are with `retry_failed`, and those that lack a measure. The last
    line of a run counts. A last line that was cut short is taken off. After Ctrl-C, or where the
    pool of processes breaks (SweepError), what was finished is in the file, and the same call goes
    on. Several sweeps may share a file.

    Raises SweepError where `path` holds anything else, before anything is written, TypeError or
    ValueError for wrong arguments.
    """
    recipes, measures = list(recipes), dict(measures or {})
    _check(recipes, measures, members, executor)
    results = _Results(path)
    wanted = _distinct(recipes)
    todo = [r for r in wanted if not _is_done(results.of(r), measures, retry_failed)]
    task = _Task(measures, root, hardware, torch.get_default_dtype())
    blocks = _blocks(todo, min(members, math.ceil(len(todo) / _workers(executor)) or 1))
    with _bar(len(wanted), len(wanted) - len(todo), progress) as update:
        try:
            for rows in _trained(blocks, task, executor):
                results.append(rows)
                update(len(rows))
        except (BrokenExecutor, CancelledError) as error:
            raise SweepError(_broken(results, wanted, measures)) from error
    return [results.rows[essence(recipe)] for recipe in recipes]


def networks(recipes: Iterable[Recipe], **options: Any) -> list[tuple[nn.Module, Row]]:
    """The trained network and the row of each recipe, in their order; `options` as in `sweep`.

    All is trained in this process and kept in memory. Raises SweepError where a run fails.
    """
    kept: list[nn.Module] = []

    def keep(network: nn.Module, dataset: Dataset) -> float:
        kept.append(network)
        return len(kept) - 1

    found = []
    for row in sweep(recipes, measures={"network": keep}, **options):
        if "error" in row:
            raise SweepError(f"{Recipe(**row['recipe'])} failed: {row['error']}")
        found.append((kept[row["network"]], {n: v for n, v in row.items() if n != "network"}))
    return found


def on_train(function: Callable[..., float], **options: Any) -> Measure:
    """The measure function(network, minibatches of all training images, **options).

    For the functions of `lookbehind.sharpness` that return a number:
    measures={"worst rise": on_train(worst_rise, ball=Ball(0.05))}. Other processes can get it.
    """
    return partial(_measure_on_train, function, options)


def _measure_on_train(
    function: Callable[..., float], options: Mapping[str, Any], network: nn.Module, dataset: Dataset
) -> float:
    return function(network, dataset.train.batches(EVALUATION_BATCH), **options)


def _check(
    recipes: list[Any], measures: dict[str, Any], members: int, executor: Executor | None
) -> None:
    for recipe in recipes:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipes must be Recipes, got {recipe!r}")
    for name, measure in measures.items():
        if name in RESERVED or not callable(measure):
            raise ValueError(
                f"measures must be functions, under other names than {', '.join(RESERVED)}; "
                f"got {name!r}: {measure!r}"
            )
    if isinstance(members, bool) or not isinstance(members, int) or members < 1:
        raise ValueError(f"members must be an int ≥ 1, got {members!r}")
    if isinstance(executor, ProcessPoolExecutor):
        try:
            pickle.dumps(measures)
        except Exception as error:
            raise TypeError(
                "measures must be functions of a module for a ProcessPoolExecutor, "
                f"got {measures} ({error})"
            ) from error


def _is_done(row: Row | None, measures: Iterable[str], retry_failed: bool = False) -> bool:
    if row is None or "error" in row:
        return row is not None and not retry_failed
    return all(name in row for name in measures)


def _broken(results: "_Results", wanted: list[Recipe], measures: Mapping[str, Measure]) -> str:
    done = sum(_is_done(results.of(recipe), measures) for recipe in wanted)
    found = f"the executor ended or a worker of it was killed; {done} of {len(wanted)} runs"
    if results.path is None:
        return f"{found} were finished, and are lost: give a path to keep them"
    return f"{found} are in {results.path}: the same call with a new executor goes on from there"


@contextmanager
def _bar(total: int, done: int, progress: bool) -> Iterator[Callable[[int], Any]]:
    if not progress:
        yield lambda count: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=done, unit=" runs") as bar:
        yield bar.update


# The file


class _Results:
    """The rows by run, and the file that they are appended to, if any."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: dict[Recipe, Row] = {}
        self._end = 0  # of what was read and written
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(self.path):
                self._read(self.path)

    def of(self, recipe: Recipe) -> Row | None:
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
        old = self.rows.get(essence(Recipe(**row["recipe"])), row)
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

        with FileLock(path.with_name(f".{path.name}.lock")):
            yield

    def _read(self, path: Path) -> None:
        """Take up the lines since the last time. Nobody else writes now, so a part is a ruin."""
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._end)
            lines = file.readlines()
        for line in lines:
            if not line.endswith(b"\n") and START.startswith(line[: len(START)]):
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


# Blocks of runs, and who trains them


@dataclass(frozen=True)
class _Task:
    """What a worker needs besides the recipes."""

    measures: Mapping[str, Measure]
    root: str | Path | None
    hardware: Hardware | None
    dtype: torch.dtype


def _blocks(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    """Runs that train as one, in blocks of nearly one size, at most `most`."""
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(_shared(recipe), []).append(recipe)
    return [block for group in groups.values() for block in _cut(group, most)]


def _shared(recipe: Recipe) -> Recipe:
    """What the members of an ensemble have in common."""
    alpha = recipe.alpha if recipe.alpha == "adaptive" else 0.5
    return essence(replace(recipe, seed=0, rho=0.0, lr=0.0, alpha=alpha))


def _cut(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    count = math.ceil(len(recipes) / most)
    return [recipes[i * len(recipes) // count : (i + 1) * len(recipes) // count]
            for i in range(count)]  # fmt: skip


def _workers(executor: Executor | None) -> int:
    """How many blocks an executor trains at once, where it says so."""
    client = getattr(executor, "_client", None)  # of Dask
    if client is not None:
        return max(1, len(client.nthreads()))
    return 1 if executor is None else getattr(executor, "_max_workers", None) or 1


class _Here(Executor):
    """What is submitted is done at once, by the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _trained(
    blocks: list[list[Recipe]], task: _Task, executor: Executor | None
) -> Iterator[list[Row]]:
    """The rows of the blocks as they come. A block that fails is tried again in halves."""
    waiting, running = deque(blocks), dict[Future[list[Row]], list[Recipe]]()
    at_once = len(blocks) if executor else 1
    submit, work = (executor.submit, _in_worker) if executor else (_Here().submit, _train)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                block = waiting.popleft()
                running[submit(work, block, task)] = block
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=_is_broken):  # first what is finished
                yield from _settled(running.pop(future), future, waiting)
    finally:
        for future in running:
            future.cancel()


def _is_broken(future: Future[Any]) -> bool:
    return future.cancelled() or isinstance(future.exception(), BrokenExecutor)


def _settled(
    block: list[Recipe], future: Future[list[Row]], waiting: deque[list[Recipe]]
) -> Iterator[list[Row]]:
    error = future.exception()
    if error is None:
        yield future.result()
    elif isinstance(error, BrokenExecutor) or not isinstance(error, Exception):
        raise error
    elif len(block) == 1:
        yield [_failed(block[0], error)]
    else:
        waiting.extend(_cut(block, math.ceil(len(block) / 2)))


def _failed(recipe: Recipe, error: Exception) -> Row:
    return {"recipe": asdict(recipe), "error": f"{type(error).__name__}: {error}"}


def _in_worker(recipes: list[Recipe], task: _Task) -> list[Row]:
    """As `_train`, with torch as in the caller, but on one thread; torch is put back.

    One at a time in a process: its threads share torch's settings and random numbers.
    """
    with _ALONE:
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        torch.set_num_threads(1)
        torch.set_default_dtype(task.dtype)
        try:
            return _train(recipes, task)
        finally:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)


# One block


def _train(recipes: list[Recipe], task: _Task) -> list[Row]:
    """A row for each of the recipes, which may train as one."""
    hardware = task.hardware or choose_hardware()
    datasets, rows = dict[int, Dataset](), dict[Recipe, Row]()
    for recipe in recipes:
        if recipe.seed not in datasets and recipe not in rows:
            try:
                datasets[recipe.seed] = recipe.load(task.root, hardware.device)
            except Exception as error:
                rows |= {r: _failed(r, error) for r in recipes if r.seed == recipe.seed}
    good = [recipe for recipe in recipes if recipe not in rows]
    most = _room(good[0], datasets[good[0].seed], hardware.device) if good else 1
    for some in _cut(good, most):
        rows |= _train_ensemble(some, datasets, task, hardware)
    return [rows[recipe] for recipe in recipes]


def _room(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    """How many networks fit in memory together, by what one takes for a minibatch."""
    model, values = recipe.make_model(dataset).to(device), 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal values
        values += 2 * output.numel()  # with its gradient

    for module in model.modules():
        module.register_forward_hook(count)
    images, _ = next(iter(recipe.batches(dataset)))
    with torch.no_grad():
        model(images)
    # Gradient, momentum, slow and fast weights, what the optimizer keeps to undo a step, …
    values += images.numel() + 10 * sum(p.numel() for p in model.parameters())
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
    return max(1, free // (values * images.element_size()))


def _train_ensemble(
    recipes: list[Recipe], datasets: Mapping[int, Dataset], task: _Task, hardware: Hardware
) -> dict[Recipe, Row]:
    seeds = list(dict.fromkeys(recipe.seed for recipe in recipes))
    gather = partial(MemberBatches, of=[seeds.index(recipe.seed) for recipe in recipes])
    firsts = [replace(recipes[0], seed=seed) for seed in seeds]
    models = {first.seed: first.make_model(datasets[first.seed]) for first in firsts}
    ensemble = Ensemble([models[recipe.seed] for recipe in recipes]).to(hardware.device)
    batches = gather([first.batches(datasets[first.seed]) for first in firsts])
    gradients, failures = _fit(ensemble, recipes, batches, hardware)
    splits = [_small(evaluation_batches(datasets[seed]), len(recipes)) for seed in seeds]
    scores = {
        name: _scores(ensemble, gather([of[name] for of in splits]), hardware, len(part.split))
        for name, part in splits[0].items()
    }
    rows = {}
    for e, recipe in enumerate(recipes):
        row = {"gradients": gradients, **{name: some[e] for name, some in scores.items()}}
        try:
            _check_finite(failures[e], row, splits[0])
            network = ensemble.member(e).eval()
            found = {n: m(network, datasets[recipe.seed]) for n, m in task.measures.items()}
            rows[recipe] = {"recipe": asdict(recipe), **row, **found}
        except Exception as error:
            rows[recipe] = _failed(recipe, error)
    return rows


def _fit(
    ensemble: Ensemble, recipes: list[Recipe], batches: MemberBatches, hardware: Hardware
) -> tuple[int, list[int]]:
    """Train; the gradients taken, and after how many each member failed (0: it didn't)."""
    recipe, taken = recipes[0], 0
    failures = torch.zeros(len(recipes), dtype=torch.int64, device=hardware.device)

    def watch(run: Run) -> None:
        nonlocal taken
        taken = run.gradients
        failed = getattr(run.optimizer, "rolled_back", None)
        if failed is not None:
            failures.masked_fill_(failed & (failures == 0), taken)

    if hardware.device.type == "cpu":
        keep_freed_memory()
    history = fit(
        ensemble,
        _optimizer(ensemble, recipes, hardware.device),
        batches,
        epochs=recipe.epochs,
        gradients=recipe.gradients,
        splits={},
        schedule=SCHEDULES[recipe.schedule],
        loss=partial(member_cross_entropy, label_smoothing=recipe.label_smoothing),
        autocast=hardware.autocast,
        callbacks=[watch],
        stop=lambda: bool(failures.all()),
    )
    if history.stopped and not failures.all():
        raise KeyboardInterrupt
    return taken, failures.tolist()


def _optimizer(ensemble: Ensemble, recipes: list[Recipe], device: torch.device) -> Any:
    """The optimizer of the recipe whose ρ and α are tensors, one value a member; lr, too."""

    def each(name: str) -> Tensor:
        values = [getattr(recipe, name) for recipe in recipes]
        return torch.tensor(values, dtype=torch.get_default_dtype(), device=device)

    essences, most = [essence(recipe) for recipe in recipes], max(r.lr for r in recipes)
    settings: dict[str, Any] = {"rho": each("rho"), "lr": most}
    if essences[0].alpha != "adaptive":
        recipes = essences
        settings["alpha"] = each("alpha")
    optimizer = replace(recipes[0], **settings).make_optimizer(ensemble)
    if any(recipe.lr != most for recipe in recipes):
        scale_lr(getattr(optimizer, "base", optimizer), each("lr") / most)
    return optimizer


def _small(splits: Mapping[str, Batches], members: int) -> dict[str, Batches]:
    """In minibatches that stay small where each of the members gets its own."""
    size = max(1, EVALUATION_IMAGES // members)
    return {name: part.split.batches(min(size, part.size)) for name, part in splits.items()}


def _scores(
    ensemble: Ensemble, batches: MemberBatches, hardware: Hardware, count: int
) -> list[dict[str, float]]:
    """The loss and accuracy of each member on so many images."""
    kind = hardware.device.type
    with torch.autocast(kind, hardware.autocast) if hardware.autocast else nullcontext():
        scores = evaluate_members(ensemble, batches)
    pairs = zip(scores.loss.tolist(), scores.accuracy.tolist(), strict=True)
    return [{"loss": loss, "accuracy": round(share * count) / count} for loss, share in pairs]


def _check_finite(failure: int, row: Row, splits: Iterable[str]) -> None:
    if failure:
        raise FloatingPointError(
            f"the loss or its gradient is not finite after {failure} gradients"
        )
    for name in splits:
        if not math.isfinite(row[name]["loss"]):
            raise FloatingPointError(f"the loss on {name} is not finite at the end of training")
