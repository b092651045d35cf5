"""Datasets as tensors, split for training, validation and test, and minibatches of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DIGITS = 1797


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images: `images` of shape (N, C, H, W), `labels` (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, seed: int | None = None) -> "Batches":
        """Minibatches of `size` images: shuffled by `seed`, or in order where it is None."""
        return Batches(self, size, seed)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits. `noisy` (N,) is True where a training label was replaced."""

    train: Split
    validation: Split
    test: Split
    noisy: Tensor


class Batches:
    """Every iteration is one epoch of (images, labels) minibatches; the last may be smaller.

    With a `seed` each epoch has an order of its own, and two objects of one seed the same orders.
    `len` is the number of minibatches in an epoch.
    A `size` of N or more gives one minibatch. Raises TypeError or ValueError unless `size` is an
    int ≥ 1.
    """

    def __init__(self, split: Split, size: int, seed: int | None = None) -> None:
        _check_count("size", size, 1)
        self.split, self.size = split, size
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self._order().split(self.size):
            yield self.split.images[rows], self.split.labels[rows]

    def _order(self) -> Tensor:
        if self._generator is None:
            return torch.arange(len(self.split))
        return torch.randperm(len(self.split), generator=self._generator)


def digits(
    *, train: int = 500, validation: int = 300, label_noise: float = 0.0, seed: int = 0
) -> Dataset:
    """scikit-learn's 1,797 real handwritten digits: 1 x 8 x 8 pixels, ten classes, no network.

    `train` and `validation` are numbers of images, drawn by `seed`; the rest is the test split.
    `label_noise` in [0, 1] is the share of *training* labels that are replaced by one of the nine
    wrong classes, chosen evenly (symmetric noise); validation and test labels stay clean.
    Pixels are normalized by the mean and standard deviation of the training images; images have
    torch's default float type.

    Raises TypeError or ValueError where no image would be left for the test split.
    """
    _check_count("train", train, 1, DIGITS - 2)
    _check_count("validation", validation, 1, DIGITS - train - 1)
    if isinstance(label_noise, bool) or not isinstance(label_noise, int | float):
        raise TypeError(f"label_noise must be a number in [0, 1], got {label_noise!r}")
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise must be in [0, 1], got {label_noise!r}")
    images, labels = _load_digits()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(DIGITS, generator=generator)
    parts = rows.split([train, validation, DIGITS - train - validation])
    images = (images - images[parts[0]].mean()) / images[parts[0]].std()
    splits = [Split(images[part], labels[part]) for part in parts]
    noisy = torch.zeros(train, dtype=torch.bool)
    noisy[: round(label_noise * train)] = True  # the rows are in random order already
    shift = torch.randint(1, 10, (train,), generator=generator)
    wrong = torch.where(noisy, (splits[0].labels + shift) % 10, splits[0].labels)
    return Dataset(Split(splits[0].images, wrong), splits[1], splits[2], noisy)


def _load_digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.get_default_dtype()).view(-1, 1, 8, 8)
    return images, torch.tensor(labels, dtype=torch.int64)


def _check_count(name: str, value: object, least: int, most: float = math.inf) -> None:
    bounds = f"≥ {least}" if most == math.inf else f"in [{least}, {most}]"
    allowed = f"{name} must be an int {bounds}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(allowed)
    if not least <= value <= most:
        raise ValueError(allowed)
