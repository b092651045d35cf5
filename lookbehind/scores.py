"""What a network loses on a minibatch, and scored: once, in training, over a whole run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

# (inputs, targets), or of any structure: tensors in tuples, lists, dictionaries.
Minibatch = Any
Loss = Callable[[Any, Any], Tensor]  # (outputs, targets) → the mean loss of a minibatch
BatchLoss = Callable[[nn.Module, Any], Tensor]  # (network, minibatch) → the same


@dataclass(frozen=True)
class Criterion:
    """The mean loss of a network on a minibatch: cross-entropy, or what one of the two says.

    `loss` is a function (outputs, targets) → mean loss, for minibatches (inputs, targets).
    `batch_loss` is a function (network, minibatch) → mean loss, for minibatches of any structure,
    whose number of examples is the length of the first tensor. The loss over several minibatches is
    the mean of theirs, weighted by their examples.

    Accuracy is the share of targets (B,), integers, where outputs (B, classes) are largest; for
    other shapes, and with `batch_loss`, it is NaN.

    Raises TypeError for what is no function, ValueError where both are given.
    """

    loss: Loss | None = None
    batch_loss: BatchLoss | None = None
    plainly: bool = False  # whether a score is the cross-entropy where there are labels

    def __post_init__(self) -> None:
        for value in (self.loss, self.batch_loss):
            if value is not None and not callable(value):
                raise TypeError(f"loss must be a function, got {value!r}")
        if self.loss and self.batch_loss:
            raise ValueError("only one of loss and batch_loss may be given, got both")

    def mean(self, network: nn.Module, minibatch: Minibatch) -> Tensor:
        """What training goes down: the loss as the function gives it."""
        if self.batch_loss is not None:
            return self.batch_loss(network, minibatch)
        outputs, targets = _outputs(network, minibatch)
        if self.loss is not None:
            return self.loss(outputs, targets)
        _check_labelled(outputs, targets)
        return cross_entropy(outputs, targets)

    def sums(self, network: nn.Module, minibatch: Minibatch, own: int) -> tuple[Tensor, Tensor]:
        """Of the first `own` examples, which are all or none: the loss and the hits, summed."""
        hits = torch.tensor(math.nan)
        if self.batch_loss is not None:
            loss = self.batch_loss(network, minibatch)
        else:
            outputs, targets = _outputs(network, minibatch)
            if self.loss is None:
                _check_labelled(outputs, targets, every=True)
            labelled = _are_labelled(outputs, targets)
            if labelled:
                hits = (outputs[:own].argmax(1) == targets[:own]).sum()
            if self.loss is None or (self.plainly and labelled):
                return cross_entropy(outputs[:own], targets[:own], reduction="sum"), hits
            loss = self.loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss)
            raise ValueError(f"loss must give the mean of a minibatch, a tensor (), got {found}")
        return loss.reshape(()) * own, hits.to(loss.device)


def _outputs(network: nn.Module, minibatch: Minibatch) -> tuple[Any, Any]:
    if not isinstance(minibatch, tuple | list) or len(minibatch) != 2:
        found = f"got {type(minibatch).__name__}"
        raise ValueError(f"a minibatch must be (inputs, targets) without batch_loss=; {found}")
    return network(minibatch[0]), minibatch[1]


def _are_labelled(outputs: Any, targets: Any) -> bool:
    """Whether these are logits (B, classes) and labels (B,)."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    kinds = outputs.is_floating_point() and targets.dtype == torch.int64
    shapes = outputs.ndim == 2 and targets.shape == outputs.shape[:1]
    return kinds and shapes and outputs.shape[1] > 1


def _check_labelled(outputs: Any, targets: Any, every: bool = False) -> None:
    """Raises ValueError where the default loss makes no sense; `every` looks at each label."""
    fit = _are_labelled(outputs, targets)
    if fit and (not every or bool(((targets >= 0) & (targets < outputs.shape[1])).all())):
        return
    kinds = [f"{getattr(x, 'dtype', x)} {(*getattr(x, 'shape', ()),)}" for x in (outputs, targets)]
    where = f", labels from {targets.min()} to {targets.max()}" if fit else ""
    raise ValueError(
        "the default loss, cross-entropy, needs logits (B, classes) of at least 2 classes and "
        f"int64 labels (B,) from 0 to classes - 1; got {' and '.join(kinds)}{where}. "
        "Give loss= or batch_loss= for others"
    )


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in a minibatch of any structure, in order."""
    found: list[Tensor] = []
    changed(value, found.append)
    return found


def changed(value: Any, change: Callable[[Any], Any], kinds: Any = Tensor) -> Any:
    """The minibatch, or state, with every tensor changed; mappings become dictionaries."""
    if isinstance(value, kinds):
        return change(value)
    if isinstance(value, Mapping):
        return {name: changed(part, change, kinds) for name, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [changed(part, change, kinds) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def examples(minibatch: Minibatch) -> int:
    """How many there are: the length of the first tensor."""
    found = tensors_of(minibatch)
    if not found or not found[0].ndim:
        raise ValueError(f"a minibatch must hold a tensor of examples, got {minibatch!r:.80}")
    return len(found[0])


@dataclass(frozen=True)
class Score:
    """Mean `loss` (cross-entropy in nats, or as asked for) and `accuracy` (a share in [0, 1], NaN
    where it makes no sense) on some examples: numbers, or of an ensemble tensors (E,)."""

    loss: Any
    accuracy: Any


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
            raise ValueError(f"split must be one of {self.splits}, got {split!r}")
        return found

    def last(self, split: str) -> Record:
        """The record of a split at the end of training."""
        return self.of(split)[-1]

    def best(self, split: str, by: str) -> Record:
        """The record of a split where the split `by` had its first best accuracy, or loss where
        there is none. Choose by "validation": the best *test* record is no honest result."""
        merits = [-r.loss if math.isnan(r.accuracy) else r.accuracy for r in self.of(by)]
        return self.of(split)[merits.index(max(merits))]

    @property
    def splits(self) -> list[str]:
        """The names of the splits that have records."""
        return list(dict.fromkeys(record.split for record in self.records))
