"""`fit` and `evaluate`: one training loop for anything with `step(closure)`."""

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind.checkpoint import CheckpointError, read_checkpoint, save_checkpoint

Minibatch = tuple[Tensor, Tensor]
Context = Callable[[], AbstractContextManager[Any]]
T = TypeVar("T")


class Minibatches(Protocol):
    """One epoch of (images, labels) each time it is iterated: `Split.batches`, a `DataLoader`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class Alone:
    """The processes that train one network: one, which has nobody to ask.

    `lookbehind.parallel.Ranks` are several; what is said here holds for both.
    """

    world = 1  # how many they are

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return True

    def network(self, model: nn.Module) -> nn.Module:
        """`model` for forward passes, after whose backward pass all have the same gradients."""
        return model

    def apart(self, network: nn.Module) -> AbstractContextManager[Any]:
        """Inside, each process keeps the gradient of its own share."""
        return nullcontext()

    def share(self, minibatch: Minibatch) -> tuple[Minibatch, int]:
        """This process's part of a minibatch, and how many images of it count."""
        return minibatch, len(minibatch[1])

    def backward(self, loss: Tensor, share: float) -> Tensor:
        """From the loss of this process's share of the minibatch; returns the loss of the whole."""
        loss.sum().backward()  # one loss, or one a member
        return loss

    def total(self, values: Tensor) -> Tensor:
        """Their sum over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return flag

    def once(self, do: Callable[[], T]) -> T:
        """What `do()` returns, or raises, at the main process; the others wait for it."""
        return do()

    def leave(self) -> None:
        """The end of the job: the connections to the others are closed."""


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy `loss` (nats) and `accuracy` (a share in [0, 1]) on some images."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Record:
    """The score of one split at the slow weights, after so many epochs and gradients."""

    epoch: float
    gradients: int
    split: str
    loss: float
    accuracy: float


@dataclass(frozen=True)
class History:
    """What `fit` saw. `stopped` is True where it ended before its budget."""

    records: tuple[Record, ...] = ()
    stopped: bool = False

    def of(self, split: str) -> list[Record]:
        """The records of one split, in the order of training. Raises ValueError if it has none."""
        found = [record for record in self.records if record.split == split]
        if not found:
            raise ValueError(f"split must be one of {self._splits()}, got {split!r}")
        return found

    def last(self, split: str) -> Record:
        """The record of a split at the end of training."""
        return self.of(split)[-1]

    def best(self, split: str, by: str) -> Record:
        """The record of a split where the split `by` had its first best accuracy (early stopping).

        Choose by "validation": the best *test* record is no honest result.
        """
        pairs = zip(self.of(by), self.of(split), strict=True)
        return max(pairs, key=lambda pair: pair[0].accuracy)[1]

    def rows(self) -> list[dict[str, Any]]:
        """One dict a record: what `pandas.DataFrame` takes."""
        return [asdict(record) for record in self.records]

    def _splits(self) -> list[str]:
        return list(dict.fromkeys(record.split for record in self.records))


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to 0 along half a cosine: (1 + cos(π progress)) / 2."""
    return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class MultiStep:
    """The learning rate is multiplied by `factor` at each milestone, a share of the budget.

    The default is the official script's: x 0.1 at epochs 50, 100 and 150 of 200.
    """

    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)
    factor: float = 0.1

    def __call__(self, progress: float) -> float:
        return self.factor ** sum(progress >= milestone for milestone in self.milestones)


def set_epoch(batches: Minibatches, epoch: int) -> None:
    """The next iteration is this epoch, for what has `set_epoch` of itself or of its sampler."""
    for shuffler in (batches, getattr(batches, "sampler", None)):
        tell = getattr(shuffler, "set_epoch", None)
        if tell is not None:
            tell(epoch)


class _Stream:
    """Minibatches, epoch after epoch, and where they are: `taken` of epoch `epoch`."""

    def __init__(self, batches: Minibatches, ranks: Alone) -> None:
        if not isinstance(batches, Sized) or not len(batches):
            raise ValueError(f"batches must have a length ≥ 1 (minibatches an epoch): {batches!r}")
        self.batches, self.ranks, self.epoch, self.taken = batches, ranks, 0, 0
        self.rng = torch.get_rng_state()  # as the epoch began: a DataLoader draws its order from it
        self._left: Iterator[Minibatch] | None = None

    def __next__(self) -> Minibatch:
        if self._left is None:
            self._open()
        assert self._left is not None
        minibatch = next(self._left, None)
        if minibatch is None:
            raise ValueError(
                f"batches must give {len(self.batches)} minibatches, its length, each time it is "
                f"iterated; it ended after {self.taken}"
            )
        self.taken += 1
        if self.taken == len(self.batches):
            self.epoch, self.taken, self._left = self.epoch + 1, 0, None
        return minibatch

    def go_to(self, epoch: int, taken: int, rng: Tensor) -> None:
        self.epoch, self.taken, self._left = epoch, 0, None
        torch.set_rng_state(rng)
        for _ in range(taken):
            next(self)

    def _open(self) -> None:
        self.rng = self.ranks.once(torch.get_rng_state)
        torch.set_rng_state(self.rng)  # so that all draw the same minibatches
        set_epoch(self.batches, self.epoch)
        self._left = iter(self.batches)


@dataclass(eq=False)
class Run:
    """A training under way: what a callback receives after each step.

    `gradients` and `images` are what was taken so far (an image counts once a step), `epoch` how
    often the data was seen, `share` the part of the budget that is spent, in [0, 1], `records` the
    scores. Between steps a callback may change the optimizer's settings and "initial_lr".
    """

    model: nn.Module
    optimizer: Any
    unit: str  # of the budget: "gradients" or "minibatches"
    budget: int
    _stream: _Stream
    _ranks: Alone
    _network: nn.Module  # `model`, as all ranks go through it together
    _loss: Callable[[Tensor, Tensor], Tensor]
    _score: Callable[[nn.Module, Iterable[Minibatch]], Score]
    _precision: Context
    _elsewhere: Context  # around the gradients of a step that are not at φ
    _plan: dict[str, Any]
    gradients: int = 0
    images: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def minibatches(self) -> int:
        """Taken so far."""
        return self._stream.epoch * len(self._stream.batches) + self._stream.taken

    @property
    def epoch(self) -> float:
        return self.minibatches / len(self._stream.batches)

    @property
    def spent(self) -> int:
        """Of the budget, in its unit."""
        return int(getattr(self, self.unit))

    @property
    def share(self) -> float:
        return min(1.0, self.spent / self.budget)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `fit(..., resume=True)` continues bit for bit; see there.

        Of several ranks the main one writes; all must call this, and wait for it.
        """
        self._ranks.once(lambda: save_checkpoint(path, self._state()))

    def _state(self) -> dict[str, Any]:
        stream, device = self._stream, _device(self.model)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": [stream.epoch, stream.taken, self.gradients, self.images],
            "records": [list(astuple(record)) for record in self.records],
            "rng": {"epoch": stream.rng, "now": torch.get_rng_state()},
            "plan": self._plan,
        }
        if device.type != "cpu":
            state["rng"]["device"] = torch.get_device_module(device.type).get_rng_state()
        return state

    def _restore(self, path: str | Path) -> None:
        state = self._ranks.once(lambda: read_checkpoint(path))
        _check_fits(path, state, self._plan, self.model)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{path} holds another optimizer: {error}") from error
        self.model.load_state_dict(state["model"])
        epoch, taken, self.gradients, self.images = state["position"]
        self.records = [Record(*values) for values in state["records"]]
        self._stream.go_to(epoch, taken, state["rng"]["epoch"])
        torch.set_rng_state(state["rng"]["now"])
        device = _device(self.model)
        if device.type != "cpu" and "device" in state["rng"]:
            torch.get_device_module(device.type).set_rng_state(state["rng"]["device"])

    def _step(self) -> None:
        count = getattr(self.optimizer, "minibatches", 1)
        closures = [self._closure(next(self._stream)) for _ in range(count)]
        self.optimizer.step(closures if count > 1 else closures[0])

    def _closure(self, minibatch: Minibatch) -> Callable[[], Tensor]:
        device = _device(self.model)
        count = minibatch[1].numel()  # labels (B,), or (E, B) of an ensemble
        self.images += count
        minibatch, own = self._ranks.share(minibatch)
        images, labels = (tensor.to(device, non_blocking=True) for tensor in minibatch)
        statistics: Context = nullcontext

        def gradient() -> Tensor:
            nonlocal statistics
            self.gradients += 1
            self.optimizer.zero_grad()
            with statistics(), self._precision():
                loss = self._loss(self._network(images), labels)
            loss = self._ranks.backward(loss, own / count)
            statistics = self._elsewhere
            return loss

        return gradient

    def _record(self, splits: Mapping[str, Iterable[Minibatch]]) -> None:
        """Append a record of every split, or of none."""
        found = []
        for name, batches in splits.items():
            score = self._score(self._network, batches)
            if not math.isfinite(score.loss):
                raise FloatingPointError(
                    f"the loss on {name} is not finite after {self.gradients} gradients"
                )
            found.append(Record(self.epoch, self.gradients, name, score.loss, score.accuracy))
        self.records += found


Callback = Callable[[Run], None]
ALONE = Alone()


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


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Minibatch],
    *,
    autocast: torch.dtype | None = None,
    ranks: Alone = ALONE,
) -> Score:
    """Mean cross-entropy and accuracy over all images, in evaluation mode; the mode is put back.

    Each of several `ranks` scores its share of every minibatch, and gets the score of all.

    Raises ValueError where `batches` is empty.
    """
    device, training = _device(model), model.training
    model.eval()
    losses, hits, count = [], [], 0
    try:
        for minibatch in batches:
            count += len(minibatch[1])
            mine, own = ranks.share(minibatch)
            images, labels = (tensor.to(device, non_blocking=True) for tensor in mine)
            with _precision(device.type, autocast):
                logits = model(images)
            logits, labels = logits[:own], labels[:own]
            losses.append(cross_entropy(logits, labels, reduction="sum"))
            hits.append((logits.argmax(1) == labels).sum())
    finally:
        model.train(training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    loss, hit = (ranks.total(torch.stack(sums).sum()) for sums in (losses, hits))
    return Score(float(loss) / count, int(hit) / count)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the minibatch, but its running statistics stay as they are.

    For an optimizer's `around`: λ i: frozen_statistics(model) if i else nullcontext().
    """
    with _frozen(_tracking(model)):
        yield


def _tracking(model: nn.Module) -> list[Any]:
    """The BatchNorm layers that keep running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kind) and m.track_running_stats]


@contextmanager
def _frozen(layers: Sequence[Any]) -> Iterator[None]:
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _elsewhere(model: nn.Module, statistics: str) -> Context:
    layers = _tracking(model) if statistics == "slow" else []
    return partial(_frozen, layers) if layers else nullcontext


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


def _precision(device: str, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if autocast is None else torch.autocast(device, autocast)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


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


def whole(name: str, value: int, least: int) -> int:
    """`value`; TypeError or ValueError unless it is an int ≥ `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int ≥ {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be ≥ {least}, got {value}")
    return value


def _check_fits(
    path: str | Path, state: Mapping[str, Any], plan: Mapping[str, Any], model: nn.Module
) -> None:
    """Raises CheckpointError where the checkpoint is another run's."""
    missing = {"model", "optimizer", "position", "records", "rng", "plan"} - set(state)
    if missing:
        raise CheckpointError(f"{path} is no checkpoint of a run: it lacks {sorted(missing)}")
    theirs, ours = ({**p, **p["config"]} for p in (state["plan"], plan))
    for name in sorted({*theirs, *ours} - {"config"}):
        if theirs.get(name) != ours.get(name):
            raise CheckpointError(
                f"{path} is of a run with {name} = {theirs.get(name)!r}, "
                f"this one has {name} = {ours.get(name)!r}"
            )
    shapes, found = (
        {name: tuple(value.shape) for name, value in weights.items()}
        for weights in (model.state_dict(), state["model"])
    )
    if shapes != found:
        name = next(n for n in {**shapes, **found} if shapes.get(n) != found.get(n))
        raise CheckpointError(
            f"{path} holds another model: {name} has shape {found.get(name)}, "
            f"here {shapes.get(name)}"
        )


def _name(schedule: Callable[[float], float]) -> str:
    return getattr(schedule, "__name__", repr(schedule))
