"""What a network scored: once, at a point of its training, over a whole run."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

Minibatch = tuple[Tensor, Tensor]


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
