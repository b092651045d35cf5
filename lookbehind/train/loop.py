"""`fit` and `evaluate`: one training loop for anything with `step(closure)`."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind.checks import whole
from lookbehind.scores import History, Minibatch
from lookbehind.train.batchnorm import Context, _elsewhere
from lookbehind.train.ranks import ALONE, Alone
from lookbehind.train.run import Callback, Minibatches, Run, _Stream
from lookbehind.train.schedules import cosine
from lookbehind.train.scoring import _device, _precision, evaluate


def fit(
    model: nn.Module,
    optimizer: Any,
    batches: Minibatches,
    *,
    epochs: int | None = None,
    gradients: int | None = None,
    splits: Mapping[str, Iterable[Minibatch]],
    schedule: Callable[[float], float] = cosine,
    records: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    autocast: torch.dtype | None = None,
    statistics: str = "slow",
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    progress: bool = False,
    ranks: Alone = ALONE,
    perturbation: str = "global",
) -> History:
    """Train for a budget of `epochs`, or of `gradients`, and record the scores on the way.

    A budget in gradients is fair to all: a step takes 1 of SGD, 2 of SAM, k + 1 of Lookbehind. The
    last step is finished, so up to one step's gradients may be spent beyond the budget.

    `model` is trained on the device that it is on. `optimizer` is anything with `step(closure)`,
    `zero_grad` and `param_groups`; each step gets as many new minibatches as its `minibatches` says
    (k for `Lookahead`, else 1). `batches` gives one epoch of (images, labels) each time it is
    iterated; where it, or its sampler, has `set_epoch`, that is called first, as torch's
    distributed samplers expect.

    `schedule` maps the share of the budget spent, in [0, 1], to a factor of each group's
    "initial_lr" (the lr that it came with; may be changed during training). `loss` takes logits
    and labels; partial(cross_entropy, label_smoothing=0.1) smooths. `autocast`: torch.bfloat16 for
    mixed precision. `statistics` of BatchNorm are updated by a step's first gradient only, at φ
    ("slow"), or by each ("every", as in the official code).

    `splits` maps names to what is scored, at the slow weights: at the start and `records` times
    (default: every epoch, or 20 times). `callbacks` get the `Run` after each step. `stop` is asked
    before each step; after it, or after Ctrl-C, the step under way is finished and the history so
    far returned; a second Ctrl-C ends at once. `progress` shows a tqdm bar.

    `checkpoint` is written at the end of every epoch, and where the run ends or is stopped. With
    `resume`, a run whose file exists goes on from it, bit for bit; `config` (plain values) is
    stored with it, and a file of another config, budget, schedule, model or optimizer is refused
    before anything is changed. `batches` must then draw from its `set_epoch` or from torch's
    global generator only, and torch use as many threads as before.

    With `ranks` (see `lookbehind.parallel`) several processes train one network, each on its share
    of every minibatch: all call `fit` with the same arguments, and get the same weights and scores
    as one process would, but for rounding. `loss` must be a mean over images. A `stop` or Ctrl-C in
    one stops all; the main one writes the checkpoint, which any number of processes can continue.
    `perturbation` "global" climbs by the gradient of the whole minibatch. "local" takes the first
    ascent of a step by the gradient of each process's own share, ε_1 = ρ g_r / ‖g_r‖ (Foret et al.
    2021 train so, over n / world images each), so that k gradients are exchanged instead of k + 1;
    descents, and ascents 2..k, go by the average of the gradients at the processes' own points.

    Raises FloatingPointError where the loss of a split is no longer finite, TypeError or ValueError
    for a wrong argument, CheckpointError where `checkpoint` can't be continued, OSError where it
    can't be written.
    """
    stream, network = _Stream(batches, ranks), ranks.network(model)
    unit, budget, records = _budget(epochs, gradients, records, len(batches))
    _check_choices(autocast, statistics, perturbation)
    if resume and checkpoint is None:
        raise ValueError("checkpoint must name the file to resume from, got None")
    precision = partial(_precision, _device(model).type, autocast)
    run = Run(
        model, optimizer, unit, budget, _stream=stream, _ranks=ranks, _network=network, _loss=loss,
        _precision=precision, _elsewhere=_elsewhere(model, statistics),
        _score=partial(evaluate, autocast=autocast, ranks=ranks),
        _plan={"budget": [unit, budget], "schedule": _name(schedule), "records": records,
               "statistics": statistics, "config": dict(config or {}),
               **({"perturbation": perturbation} if perturbation != "global" else {})},
    )  # fmt: skip
    if resume and checkpoint is not None and ranks.once(Path(checkpoint).exists):
        run._restore(checkpoint)
    if not run.records:
        run._record(splits)
    model.train()
    apart = partial(ranks.apart, network) if perturbation == "local" else nullcontext
    with _climbing(optimizer, apart):
        stopped = _loop(run, splits, schedule, records, callbacks, stop, checkpoint, progress)
    return History(tuple(run.records), stopped)


def _loop(
    run: Run,
    splits: Mapping[str, Iterable[Minibatch]],
    schedule: Callable[[float], float],
    records: int,
    callbacks: Sequence[Callback],
    stop: Callable[[], bool],
    checkpoint: str | Path | None,
    progress: bool,
) -> bool:
    """Returns whether the run was stopped."""
    stopped = False
    try:
        with _interrupted() as interrupted, _bar(run, progress) as show:
            while run.spent < run.budget and not (
                stopped := run._ranks.any(stop() or interrupted())
            ):
                epoch, seen = run._stream.epoch, run.spent * records // run.budget
                _set_lr(run.optimizer, schedule(run.share))
                run._step()
                if run.spent * records // run.budget > seen:
                    run._record(splits)
                if checkpoint is not None and run._stream.epoch > epoch:
                    run.save(checkpoint)
                for callback in callbacks:
                    callback(run)
                show()
    except KeyboardInterrupt:
        return True
    if checkpoint is not None and (stopped or run._stream.taken):
        run.save(checkpoint)
    return stopped


@contextmanager
def _climbing(optimizer: Any, apart: Context) -> Iterator[None]:
    """Inside, the gradients at φ, by which the first ascents go, are taken within `apart`."""
    while not hasattr(optimizer, "around") and hasattr(optimizer, "inner"):
        optimizer = optimizer.inner  # Lookahead's
    around = getattr(optimizer, "around", None)
    if around is None or apart is nullcontext:
        yield
        return

    @contextmanager
    def both(i: int) -> Iterator[None]:
        with around(i), apart() if i == 0 else nullcontext():
            yield

    optimizer.around = both
    try:
        yield
    finally:
        optimizer.around = around


def _set_lr(optimizer: Any, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


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

    with tqdm(total=run.budget, initial=run.spent, unit=f" {run.unit}") as bar:

        def show() -> None:
            last = {record.split: f"{record.accuracy:.3f}" for record in run.records}
            bar.set_postfix(last, refresh=False)
            bar.update(min(run.spent, run.budget) - bar.n)

        yield show


def _budget(
    epochs: int | None, gradients: int | None, records: int | None, length: int
) -> tuple[str, int, int]:
    """The unit and size of the budget, and the number of records."""
    if (epochs is None) == (gradients is None):
        raise ValueError(
            "exactly one of epochs and gradients must be given, "
            f"got epochs={epochs!r} and gradients={gradients!r}"
        )
    for name, value in (("epochs", epochs), ("gradients", gradients), ("records", records)):
        if value is not None:
            whole(name, value, 1)
    if epochs is not None:
        return "minibatches", epochs * length, records or epochs
    assert gradients is not None
    return "gradients", gradients, records or 20


def _check_choices(autocast: torch.dtype | None, statistics: str, perturbation: str) -> None:
    if autocast not in (None, torch.bfloat16):  # float16 would need its gradients scaled
        raise ValueError(f"autocast must be torch.bfloat16 or None, got {autocast!r}")
    if statistics not in ("slow", "every"):
        raise ValueError(f'statistics must be "slow" or "every", got {statistics!r}')
    if perturbation not in ("global", "local"):
        raise ValueError(f'perturbation must be "global" or "local", got {perturbation!r}')


def _name(schedule: Callable[[float], float]) -> str:
    return getattr(schedule, "__name__", repr(schedule))
