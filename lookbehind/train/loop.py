"""`fit`: one training loop for anything with `step(closure)`; what a step does is in `run.py`."""

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lookbehind.checks import kept, plain, whole
from lookbehind.scores import BatchLoss, Criterion, History, Loss, Minibatch
from lookbehind.train.passes import LossScale, check_last
from lookbehind.train.run import Minibatches, Run, Session, Setup, Stream


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to 0 along half a cosine: (1 + cos(π progress)) / 2."""
    return (1 + math.cos(math.pi * progress)) / 2


def multistep(progress: float) -> float:
    """The official script's: x 0.1 at 1/4, 1/2 and 3/4 (epochs 50, 100 and 150 of 200)."""
    return 0.1 ** sum(progress >= milestone for milestone in (0.25, 0.5, 0.75))


Schedule = Callable[[float], float]  # share of the budget spent -> factor of the learning rate
SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "multistep": multistep, "constant": constant}


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Minibatches,
    *,
    epochs: int | None = None,
    gradients: int | None = None,
    splits: Mapping[str, Iterable[Minibatch]],
    records: int | None = None,
    schedule: Schedule = cosine,
    loss: Loss | None = None,
    batch_loss: BatchLoss | None = None,
    setup: Setup = Setup(),  # noqa: B008  # frozen
    session: Session = Session(),  # noqa: B008
) -> History:
    """Train for a budget of `epochs`, or of `gradients`, and record the scores on the way.

    A budget in gradients is fair to all: a step takes 1 of SGD, 2 of SAM, k + 1 of Lookbehind. The
    last step is finished, even beyond it.

    `optimizer` is anything with `step(closure)`, `zero_grad` and `param_groups`; a step gets as
    many new minibatches as its `minibatches` says (k for `Lookahead`, else 1). `batches` gives one
    epoch of minibatches each time it is iterated, after `set_epoch` of it or its sampler.

    A minibatch is (images, labels), and its loss cross-entropy, or what `loss` or `batch_loss` say
    (see `Criterion`). Splits are scored by cross-entropy where there are labels (no label
    smoothing), else by the same; accuracy may be NaN.

    `splits` maps names to what is scored, at the slow weights: at the start and `records` times
    (default: every epoch, or 20 times). `schedule` maps the share of the budget spent, in [0, 1],
    to a factor of each group's "initial_lr" (the lr that it came with; may be changed during
    training). How a gradient is made stands in `Setup`, how a run is watched and left in `Session`.

    Raises FloatingPointError where the loss of a split is no longer finite, TypeError or ValueError
    for a wrong argument, CheckpointError where the checkpoint can't be continued, OSError where it
    can't be written.
    """
    stream, network = Stream(batches, setup.ranks), setup.ranks.network(model)
    unit, budget = check_budget(epochs, gradients, len(batches))
    records = (epochs or 20) if records is None else whole("records", records, 1)
    plan = {"budget": [unit, budget], "schedule": getattr(schedule, "__name__", repr(schedule)),
            "records": records, "statistics": setup.statistics,
            "perturbation": setup.perturbation, "config": dict(session.config)}  # fmt: skip
    run = Run(
        model, optimizer, unit, budget, setup, stream, network, Criterion(loss, batch_loss), splits,
        plan, scale=LossScale() if setup.autocast is torch.float16 else None,
    )  # fmt: skip
    if run.scale is not None and hasattr(model, "members"):
        raise ValueError("autocast must be torch.bfloat16 or None for an ensemble")
    check_last(model, batches, run.criterion)
    if (file := session.checkpoint) is not None:
        run.state()  # else what can't be kept would be found at the end of an epoch
        if session.resume and setup.ranks.once(Path(file).exists):
            run.restore(file)
    if not run.records:
        run.record()
    model.train()
    stopped = _loop(run, schedule, records, session)
    return History(tuple(run.records), stopped)


def _loop(run: Run, schedule: Schedule, records: int, session: Session) -> bool:
    """Returns whether the run was stopped."""
    stopped, file, ranks = False, session.checkpoint, run.setup.ranks
    try:
        with _interrupted() as interrupted, _bar(run, session.progress) as show:
            while run.spent < run.budget:
                if stopped := ranks.any(session.stop() or interrupted()):
                    break
                epoch, seen = run.stream.epoch, run.spent * records // run.budget
                _set_rates(run, schedule)
                run.step()
                if run.spent * records // run.budget > seen:
                    run.record()
                if file is not None and run.stream.epoch > epoch:
                    run.save(file)
                for callback in session.callbacks:
                    callback(run)
                show()
    except KeyboardInterrupt:
        return True
    if file is not None and (stopped or run.stream.taken):
        run.save(file)
    return stopped


def _set_rates(run: Run, schedule: Schedule) -> None:
    factor = plain(schedule(run.share))
    if not isinstance(factor, int | float) or not math.isfinite(factor):
        raise ValueError(f"schedule must return finite numbers, at {run.share:g} it is {factor!r}")
    for group in run.optimizer.param_groups:
        group["initial_lr"] = kept("lr", group.get("initial_lr", group["lr"]))
        group["lr"] = group["initial_lr"] * factor


@contextmanager
def _interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed: the first only asks, the next interrupts as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

    def ask(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(run: Run, progress: bool) -> Iterator[Callable[[], None]]:
    """A progress bar over the budget, with the last scores; nothing without `progress`."""
    if not progress:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    def show() -> None:
        scores = {r.split: r.loss if math.isnan(r.accuracy) else r.accuracy for r in run.records}
        last = {split: f"{score:.3f}" for split, score in scores.items()}
        bar.set_postfix(last, refresh=False)
        bar.update(min(run.spent, run.budget) - bar.n)

    with tqdm(total=run.budget, initial=run.spent, unit=f" {run.unit}") as bar:
        yield show


def check_budget(epochs: int | None, gradients: int | None, length: int = 1) -> tuple[str, int]:
    """The unit and size of the budget, where an epoch has `length` minibatches."""
    if (epochs is None) == (gradients is None):
        given = f"epochs={epochs!r} and gradients={gradients!r}"
        raise ValueError(f"exactly one of epochs and gradients must be given, got {given}")
    if gradients is not None:
        return "gradients", whole("gradients", gradients, 1)
    return "minibatches", whole("epochs", epochs, 1) * length
