"""`fit` and `evaluate`: one training loop for anything with `step(closure)`."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Minibatch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy `loss` (nats) and `accuracy` (a share in [0, 1]) on some images."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Record:
    """The score of one split at the slow weights, after so many gradients."""

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


@dataclass
class _Run:
    """A model in training: the closure that every optimizer gets, and how often it was called."""

    model: nn.Module
    optimizer: Any
    loss: Callable[[Tensor, Tensor], Tensor]
    gradients: int = 0
    records: list[Record] = field(default_factory=list)

    def step(self, stream: Iterator[Minibatch]) -> None:
        closures = [self.closure(next(stream)) for _ in range(_minibatches(self.optimizer))]
        self.optimizer.step(closures if len(closures) > 1 else closures[0])

    def closure(self, minibatch: Minibatch) -> Callable[[], Tensor]:
        images, labels = minibatch

        def gradient() -> Tensor:
            self.gradients += 1
            self.optimizer.zero_grad()
            loss = self.loss(self.model(images), labels)
            loss.backward()
            return loss

        return gradient

    def record(self, splits: Mapping[str, Iterable[Minibatch]]) -> None:
        for name, batches in splits.items():
            score = evaluate(self.model, batches, self.loss)
            if not math.isfinite(score.loss):
                raise FloatingPointError(
                    f"the loss on {name} is not finite after {self.gradients} gradients"
                )
            self.records.append(Record(self.gradients, name, score.loss, score.accuracy))


Callback = Callable[[int, Sequence[Record]], None]


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to 0 along half a cosine: (1 + cos(π progress)) / 2."""
    return (1 + math.cos(math.pi * progress)) / 2


def fit(
    model: nn.Module,
    optimizer: Any,
    batches: Iterable[Minibatch],
    *,
    gradients: int,
    splits: Mapping[str, Iterable[Minibatch]],
    schedule: Callable[[float], float] = cosine,
    records: int = 20,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    callbacks: Sequence[Callback] = (),
    stop: Callable[[], bool] = lambda: False,
) -> History:
    """Train until `gradients` minibatch gradients were taken, and record the scores on the way.

    A budget in gradients is fair to all: a step takes 1 of SGD, 2 of SAM, k + 1 of Lookbehind. The
    last step is finished, so up to one step's gradients may be spent beyond the budget.

    `optimizer` is anything with `step(closure)`, `zero_grad` and `param_groups`; each step gets as
    many new minibatches as its `minibatches` says (k for `Lookahead`, else 1). `batches` gives one
    epoch of (images, labels) each time it is iterated: `Split.batches`, or a `DataLoader`. The
    order of the minibatches is its seed's, the first weights are the model's.

    `schedule` maps the share of the budget spent, in [0, 1], to a factor of each group's
    "initial_lr" (the lr that it came with; may be changed during training).
    `splits` maps names to what is scored, at the slow weights, `records` times and at the start.
    `callbacks` are called after each step with the gradients so far and all records.
    `stop` is asked before each step; after it, or after Ctrl-C, the history so far is returned.

    Raises FloatingPointError where the loss of a split is no longer finite, TypeError or ValueError
    where `gradients` or `records` is not an int ≥ 1, and ValueError where `batches` is empty.
    """
    _check_positive("gradients", gradients)
    _check_positive("records", records)
    run = _Run(model, optimizer, loss)
    stream = _endless(batches)
    stopped = False
    try:
        run.record(splits)
        due = 1
        while run.gradients < gradients and not (stopped := stop()):
            _set_lr(optimizer, schedule(run.gradients / gradients))
            run.step(stream)
            if run.gradients * records >= due * gradients:
                run.record(splits)
                due = run.gradients * records // gradients + 1
            for callback in callbacks:
                callback(run.gradients, run.records)
    except KeyboardInterrupt:
        stopped = True
    return History(tuple(run.records), stopped)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Minibatch],
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> Score:
    """Mean loss and accuracy over all images, in evaluation mode; the model's mode is put back.

    `loss` takes logits (B, classes) and labels (B,) and returns the mean. Raises ValueError where
    `batches` is empty.
    """
    training = model.training
    model.eval()
    try:
        count, total, right = 0, torch.tensor(0.0), torch.tensor(0)
        for images, labels in batches:
            logits = model(images)
            count += len(labels)
            total = total + loss(logits, labels) * len(labels)
            right = right + (logits.argmax(1) == labels).sum()
    finally:
        model.train(training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    return Score(float(total / count), float(right / count))


def _minibatches(optimizer: Any) -> int:
    return getattr(optimizer, "minibatches", 1)


def _endless(batches: Iterable[Minibatch]) -> Iterator[Minibatch]:
    while True:
        minibatch = None
        for minibatch in batches:
            yield minibatch
        if minibatch is None:
            raise ValueError("batches must give a minibatch each time it is iterated, got none")


def _set_lr(optimizer: Any, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int ≥ 1, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be ≥ 1, got {value}")
