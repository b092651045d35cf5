"""Images as uint8 tensors on a device, in three splits, and augmented minibatches of them."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from lookbehind.checks import check_bounded, whole

Folder = str | os.PathLike[str]
Parts = Sequence[tuple[Tensor, Tensor]]  # images (N, C, H, W), labels (N,)
Scale = tuple[Tensor, Tensor]  # mean (C,), std (C,)


class DataError(ValueError):
    """A dataset that cannot be had or read. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images: `images` uint8 of shape (N, C, H, W), `labels` (N,), int64. Minibatches
    are normalized by `mean` and `std` (C,), in units of the pixels."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Any) -> "Split":
        """The images and labels of some rows: a slice, a mask, or their numbers."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def to(self, device: str | torch.device) -> "Split":
        return Split(*(t.to(device) for t in (self.images, self.labels, self.mean, self.std)))

    def batches(self, size: int, seed: int | None = None, **options: Any) -> "Batches":
        """Minibatches of `size` images; `options` are crop, flip and drop_last of `Batches`."""
        return Batches(self, size, seed, **options)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits; `validation` may be empty. `classes` are the names of the labels;
    `noisy` (N,) is True where a training label was replaced."""

    train: Split
    validation: Split
    test: Split
    noisy: Tensor
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.train.images.shape[2], self.train.images.shape[3]

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that hold images, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if len(split)}


@dataclass(eq=False, repr=False)
class Batches:
    """Every iteration is one epoch of (images, labels) minibatches; the last may be smaller.

    `images` are (pixels − mean) / std, of shape (B, C, H, W) and torch's default float type. The
    order, crops and flips depend on `seed` and `epoch`, the number of the next iteration; without
    a seed images come in order. `crop`: pixels of black on each side before a random crop to the
    old size; `flip`: mirror left and right with probability 1/2.

    Raises TypeError or ValueError for a wrong option, or a crop or flip without a seed.
    """

    split: Split
    size: int
    seed: int | None = None
    _: KW_ONLY
    crop: int = 0
    flip: bool = False
    drop_last: bool = False
    epoch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        whole("size", self.size, 1, len(self.split) if self.drop_last else math.inf)
        whole("crop", self.crop, 0, min(self.split.images.shape[2:]))
        if self.seed is not None:
            whole("seed", self.seed, 0)
        elif self.crop or self.flip:
            raise ValueError("seed must be an int ≥ 0 for random crops and flips, got None")

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, counted from 0: for a run that is resumed."""
        self.epoch = whole("epoch", epoch, 0)

    def __len__(self) -> int:
        count = len(self.split) / self.size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, dtype = self.split.images, torch.get_default_dtype()
        mean, std = (t.to(dtype).view(-1, 1, 1) for t in (self.split.mean, self.split.std))
        rows, corners, flips = (t.to(images.device) for t in self._draw())
        self.epoch += 1
        labels = self.split.labels.index_select(0, rows).split(self.size)
        for b, some in zip(range(len(self)), rows.split(self.size), strict=False):
            pixels = images.index_select(0, some)
            if self.crop or self.flip:
                part = slice(b * self.size, b * self.size + len(some))
                pixels = _augment(pixels, self.crop, corners[:, part], flips[part])
            yield pixels.to(dtype).sub_(mean).mul_(std.reciprocal()), labels[b]

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order (N,), the upper left corners of the crops (2, N), and who is flipped (N,)."""
        count = len(self.split)
        if self.seed is None:
            return torch.arange(count), torch.empty(0), torch.empty(0)
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = Generator().manual_seed(int(state[0]))
        rows = torch.randperm(count, generator=generator)
        corners = torch.randint(2 * self.crop + 1, (2, count), generator=generator)
        flips = torch.randint(2 if self.flip else 1, (count,), generator=generator)
        return rows, corners, flips


def _augment(pixels: Tensor, border: int, corners: Tensor, flips: Tensor) -> Tensor:
    """Images (B, C, H, W) with a black border, cut at `corners` (2, B), mirrored where `flips` (B,)
    is 1."""
    padded, (height, width) = pad(pixels, (border,) * 4), pixels.shape[2:]
    rows = corners[0, :, None] + torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device)
    columns = corners[1, :, None] + torch.where(flips[:, None] == 1, columns.flip(0), columns)
    places = (rows[:, :, None] * padded.shape[3] + columns[:, None]).flatten(1)
    picked = places[:, None].expand(-1, pixels.shape[1], -1)
    return padded.flatten(2).gather(2, picked).view_as(pixels)


def data_root(root: Folder | None = None) -> Path:
    """Where datasets are kept: `root`, else LOOKBEHIND_DATA, else the user's cache folder."""
    if root := root or os.environ.get("LOOKBEHIND_DATA"):
        return Path(root).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lookbehind")


@dataclass
class Draw:
    """Which images become a dataset, and how many labels are noise. None: all that are left."""

    train: int | None = None
    validation: int = 0
    test: int | None = None
    label_noise: float = 0.0
    seed: int = 0
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        check_bounded("label_noise", self.label_noise, 1, also="")
        self.generator = Generator().manual_seed(whole("seed", self.seed, 0))

    def dataset(self, pools: Parts, classes: Sequence[str], scale: Scale | None = None) -> Dataset:
        """Splits of a training and a test pool of images and labels; fewer training images leave
        the others as they are."""
        pool, count = (len(labels) for _, labels in pools)
        left = pool - whole("validation", self.validation, 0, pool - 1)
        train = left if self.train is None else whole("train", self.train, 1, left)
        test = count if self.test is None else whole("test", self.test, 1, count)
        order = torch.randperm(pool, generator=self.generator)
        held_out, rows = order.tensor_split([self.validation])
        test_rows = torch.randperm(count, generator=self.generator)[:test].sort().values
        chosen = [(pools[0], rows[:train]), (pools[0], held_out), (pools[1], test_rows)]
        parts = [(images[some], labels[some]) for (images, labels), some in chosen]
        return self.noisy(parts, classes, scale)

    def noisy(self, parts: Parts, classes: Sequence[str], scale: Scale | None = None) -> Dataset:
        """Noise on the labels of the first of three parts, whose order is random already."""
        images, labels = parts[0]
        scale = scale or _mean_and_std(images)
        noisy = torch.arange(len(labels)) < round(self.label_noise * len(labels))
        shift = torch.randint(1, len(classes), (len(labels),), generator=self.generator)
        wrong = torch.where(noisy, (labels + shift) % len(classes), labels)
        parts = [(images, wrong), *parts[1:]]
        train, validation, test = (Split(*part, *scale).to(self.device) for part in parts)
        return Dataset(train, validation, test, noisy.to(self.device), tuple(classes))


def _mean_and_std(images: Tensor) -> Scale:
    """Of every channel (C,), without a copy of the images in floats; a std of 0 is taken as 1."""
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in images.unbind(1)]).double()
    values, total = torch.arange(256, dtype=torch.float64), counts.sum(1)
    mean = counts @ values / total
    squares = (counts * (values - mean[:, None]) ** 2).sum(1)
    std = (squares / (total - 1).clamp(min=1)).sqrt()
    return mean.float(), torch.where(std > 0, std, 1).float()
