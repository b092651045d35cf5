"""The best setting of a method by Optuna, which keeps what it tried in a file.

Needs Optuna: `pip install "lookbehind[cluster]"`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from statistics import fmean
from typing import Any

from lookbehind.optim import METHODS
from lookbehind.study.axes import Axis, LogUniform, Uniform, choices, essence
from lookbehind.study.rows import SweepError
from lookbehind.study.sweeps import sweep
from lookbehind.train import Hardware, Recipe

AT_ONCE = 10  # trials; the first so many are random


@dataclass(frozen=True)
class Found:
    """The best `recipe` of a search, and its mean `validation` accuracy over the seeds.

    `trials`, in their order: {"recipe": {all settings}, "validation": mean, "accuracies": [one a
    seed]}.
    """

    recipe: Recipe
    validation: float
    trials: tuple[dict[str, Any], ...]


def search(
    base: Recipe,
    path: str | Path,
    *,
    trials: int = 50,
    seeds: Sequence[int] = (0, 1, 2),
    k: Axis | None = None,
    rho: Axis | None = None,
    alpha: Axis | None = None,
    lr: Axis | None = None,
    executor: Executor | None = None,
    root: str | Path | None = None,
    hardware: Hardware | None = None,
    progress: bool = False,
) -> Found:
    """Settings of `base` with the highest accuracy on the validation images, mean over `seeds`.

    Each axis is a sequence of values, a `Uniform` or a `LogUniform`; what has none stays as in
    `base`. Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes `AT_ONCE`
    trials at a time, which are trained as ensembles (`executor`, `root` and `hardware` as in
    `sweep`). A run that diverges counts as accuracy 0. Test images have no say.

    `path` becomes a SQLite database that Optuna's other tools read, too. The same call goes on with
    a search that was killed, which loses the trials under way; with more `trials` it goes further.

    Raises SweepError where `path` holds another search or something else, where another process
    uses it, or where a run fails in another way; TypeError or ValueError for wrong arguments.
    """
    given = {"k": k, "rho": rho, "alpha": alpha, "lr": lr}
    axes = {name: axis for name, axis in given.items() if axis is not None}
    _check(base, trials, seeds, axes)
    setting = _setting(base, seeds, axes)
    with _study(Path(path), setting) as study, _bar(trials, progress) as show:
        while (done := len(_complete(study))) < trials:
            show(done)
            asked = _asked(study, axes, min(AT_ONCE - done % AT_ONCE, trials - done))
            recipes = [replace(base, seed=s, **trial.params) for trial in asked for s in seeds]
            rows = sweep(recipes, executor=executor, root=root, hardware=hardware)
            found = [_accuracy(row) for row in rows]
            for i, trial in enumerate(asked):
                some = found[i * len(seeds) : (i + 1) * len(seeds)]
                trial.set_user_attr("accuracies", some)
                study.tell(trial, fmean(some))
        show(done)
        return _found(base, _complete(study)[:trials])


def _found(base: Recipe, trials: Sequence[Any]) -> Found:
    best = max(trials, key=lambda trial: trial.value)
    rows = [
        {"recipe": asdict(replace(base, **trial.params)), "validation": trial.value,
         "accuracies": trial.user_attrs["accuracies"]}
        for trial in trials
    ]  # fmt: skip
    return Found(replace(base, **best.params), best.value, tuple(rows))


def _check(base: Recipe, trials: int, seeds: Sequence[int], axes: Mapping[str, Axis]) -> None:
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ValueError(f"trials must be an int ≥ 1, got {trials!r}")
    if not len(seeds):
        raise ValueError(f"seeds must hold at least one, got {seeds!r}")
    if base.validation == 0 or (base.validation is None and base.dataset != "digits"):
        raise ValueError(f"validation of base must be ≥ 1 to choose by, got {base.validation}")
    settings = {"lr", *signature(METHODS[base.method]).parameters}
    if not axes or not set(axes) <= settings:
        names = [name for name in ("k", "rho", "alpha", "lr") if name in settings]
        raise ValueError(f"axes of {base.method} are {', '.join(names)}; got {[*axes]}")


def _setting(base: Recipe, seeds: Sequence[int], axes: Mapping[str, Axis]) -> dict[str, Any]:
    """What makes a search this one, as JSON gives it back."""
    ranges = {n: a for n, a in axes.items() if isinstance(a, Uniform | LogUniform)}
    values = choices({n: a for n, a in axes.items() if n not in ranges})
    fixed = asdict(essence(replace(base, seed=0)))
    return json.loads(json.dumps({
        "base": {name: value for name, value in fixed.items() if name not in axes},
        "seeds": [int(seed) for seed in seeds],
        "axes": {**values, **{n: [type(a).__name__, a.low, a.high] for n, a in ranges.items()}},
    }))  # fmt: skip


def _asked(study: Any, axes: Mapping[str, Axis], count: int) -> list[Any]:
    """The next trials; the sampler depends on the number of those before, not on the process."""
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(
        seed=len(_complete(study)), n_startup_trials=AT_ONCE, constant_liar=True
    )
    asked = [study.ask() for _ in range(count)]
    for trial in asked:
        for name, axis in axes.items():
            if isinstance(axis, Uniform | LogUniform):
                trial.suggest_float(name, axis.low, axis.high, log=isinstance(axis, LogUniform))
            else:
                trial.suggest_categorical(name, choices({name: axis})[name])
    return asked


def _accuracy(row: dict[str, Any]) -> float:
    if "error" not in row:
        return row["validation"]["accuracy"]
    if row["error"].startswith("FloatingPointError"):
        return 0.0
    raise SweepError(f"a run failed ({row['error']}): {row['recipe']}")


def _complete(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


@contextmanager
def _study(path: Path, setting: dict[str, Any]) -> Iterator[Any]:
    """The study in the file, for this process alone; trials that a killed one left are closed."""
    import optuna
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    _check_file(path)
    verbosity, storage = optuna.logging.get_verbosity(), None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            study = optuna.create_study(
                study_name="lookbehind", storage=storage, direction="maximize", load_if_exists=True
            )
            _check_setting(study, path, setting)
            for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            yield study
    except Timeout as error:
        raise SweepError(f"{path} is used by another search: wait for its end") from error
    finally:
        optuna.logging.set_verbosity(verbosity)
        if storage is not None:
            storage.engine.dispose()


def _check_file(path: Path) -> None:
    if path.exists():
        with path.open("rb") as file:
            if file.read(6) not in (b"", b"SQLite"):
                raise SweepError(f"{path} is no search: name another file")


def _check_setting(study: Any, path: Path, setting: dict[str, Any]) -> None:
    kept = study.user_attrs.get("setting")
    if kept is None and not study.trials:
        study.set_user_attr("setting", setting)
    elif kept != setting:
        names = [name for name in setting if (kept or {}).get(name) != setting[name]]
        raise SweepError(
            f"{path} holds a search with other {' and '.join(names)}: name another file, "
            "or give the same"
        )


@contextmanager
def _bar(trials: int, progress: bool) -> Iterator[Any]:
    if not progress:
        yield lambda done: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=trials, unit=" trials") as bar:
        yield lambda done: bar.update(done - bar.n)
