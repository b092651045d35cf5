"""Datasets as uint8 tensors on a device, split three ways, and augmented minibatches of them."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

DIGITS = 1797


class DataError(ValueError):
    """A dataset that cannot be had or read. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Split:
    """N labelled images: `images` uint8 of shape (N, C, H, W), `labels` (N,), int64.

    `mean` and `std` (C,), in units of the pixels, are what minibatches are normalized by.
    All lie on one device.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "Split":
        return Split(*(t.to(device) for t in (self.images, self.labels, self.mean, self.std)))

    def batches(
        self,
        size: int,
        seed: int | None = None,
        *,
        crop: int = 0,
        flip: bool = False,
        drop_last: bool = False,
    ) -> "Batches":
        """Minibatches of `size` images: shuffled by `seed`, or in order where it is None.

        `crop`: pixels of black that are added on each side before a random crop to the old size;
        `flip`: mirror left and right with probability 1/2. Both need a seed.
        `drop_last` leaves out the last minibatch of an epoch if it is smaller.
        """
        return Batches(self, size, seed, crop=crop, flip=flip, drop_last=drop_last)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits; `validation` may be empty. `classes` are the names of the labels.

    `noisy` (N,) is True where a training label was replaced.
    """

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
        height, width = self.train.images.shape[2:]
        return height, width

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that hold images, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if len(split)}

    def to(self, device: str | torch.device) -> "Dataset":
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return Dataset(train, validation, test, self.noisy.to(device), self.classes)


class Batches:
    """Every iteration is one epoch of (images, labels) minibatches; the last may be smaller.

    `images` are (pixels − mean) / std, of shape (B, C, H, W) and torch's default float type.
    With a `seed` the order, crops and flips of an epoch depend on the seed and on `epoch` alone:
    the number of the next iteration, which goes up by one with each. `len` is the number of
    minibatches in an epoch; a `size` of N or more gives one.

    Raises TypeError or ValueError where `size` is not an int ≥ 1 (with `drop_last` ≤ N), `crop` not
    an int from 0 to the image's size, `seed` not None or an int ≥ 0, or None with a crop or flip.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        seed: int | None = None,
        *,
        crop: int = 0,
        flip: bool = False,
        drop_last: bool = False,
    ) -> None:
        _check_count("size", size, 1, len(split) if drop_last else math.inf)
        _check_count("crop", crop, 0, min(split.images.shape[2:]))
        if seed is not None:
            _check_count("seed", seed, 0)
        elif crop or flip:
            raise ValueError("seed must be an int ≥ 0 for random crops and flips, got None")
        self.split, self.size, self.seed = split, size, seed
        self.crop, self.flip, self.drop_last = crop, flip, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, counted from 0: for a run that is resumed."""
        _check_count("epoch", epoch, 0)
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.split) / self.size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        return self._minibatches(self.epoch - 1)

    def _minibatches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.split.images, self.split.labels
        rows, corners, flips = (t.to(images.device) for t in self._draw(epoch))
        dtype = torch.get_default_dtype()
        mean, std = (t.to(dtype).view(-1, 1, 1) for t in (self.split.mean, self.split.std))
        for b in range(len(self)):
            part = slice(b * self.size, (b + 1) * self.size)
            pixels = images.index_select(0, rows[part])
            if self.crop:
                pixels = _crop(pixels, self.crop, corners[:, part])
            if self.flip:
                pixels = torch.where(flips[part, None, None, None], pixels.flip(-1), pixels)
            yield pixels.to(dtype).sub_(mean).div_(std), labels.index_select(0, rows[part])

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The order (N,), the upper left corners of the crops (2, N), and who is flipped (N,)."""
        count = len(self.split)
        if self.seed is None:
            return torch.arange(count), torch.empty(2, 0), torch.empty(0)
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        rows = torch.randperm(count, generator=generator)
        corners = torch.randint(2 * self.crop + 1, (2, count), generator=generator)
        return rows, corners, torch.rand(count, generator=generator) < 0.5


def _crop(pixels: Tensor, border: int, corners: Tensor) -> Tensor:
    """Every image (B, C, H, W) with a black border, cut to H x W at its corner (2, B)."""
    height, width = pixels.shape[2:]
    windows = pad(pixels, (border,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(pixels), device=pixels.device), :, corners[0], corners[1]]


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Where datasets are kept: `root`, else LOOKBEHIND_DATA, else the user's cache folder."""
    root = root or os.environ.get("LOOKBEHIND_DATA")
    if root:
        return Path(root).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lookbehind")


def load(name: str, root: str | os.PathLike[str] | None = None, **options: Any) -> Dataset:
    """The dataset called "digits", "cifar10" or "cifar100", or the folder of images at this path.

    `root` is where CIFAR is kept: see `data_root`. `options` are those of the function that has the
    dataset's name, or of `image_folder`. Raises ValueError where there is no such dataset.
    """
    if name == "digits":
        return digits(**options)
    if name in ("cifar10", "cifar100"):
        return {"cifar10": cifar10, "cifar100": cifar100}[name](root, **options)
    if not os.path.isdir(name):
        known = '"digits", "cifar10", "cifar100" or the path of a folder with train/ and test/'
        raise DataError(f"dataset must be {known}, got {name!r}")
    return image_folder(name, **options)


def digits(
    *,
    train: int = 500,
    validation: int = 300,
    label_noise: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    """scikit-learn's 1,797 real handwritten digits: 1 x 8 x 8 pixels from 0 to 16, no network.

    `train` and `validation` are numbers of images, drawn by `seed`; the rest is the test split.
    `label_noise` in [0, 1] is the share of *training* labels that are replaced by one of the nine
    wrong classes, chosen evenly (symmetric noise); validation and test labels stay clean.
    Minibatches are normalized by the mean and standard deviation of the training images.

    Raises TypeError or ValueError where no image would be left for the test split.
    """
    _check_count("train", train, 1, DIGITS - 1)
    _check_count("validation", validation, 0, DIGITS - train - 1)
    _check_count("seed", seed, 0)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pool = (torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 8, 8), torch.tensor(labels).long())
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randperm(DIGITS, generator=generator).split(
        [train, validation, DIGITS - train - validation]
    )
    classes = tuple(str(digit) for digit in range(10))
    drawn = [(pool[0][part], pool[1][part]) for part in parts]
    return _dataset(drawn, classes, label_noise, generator).to(device)


def cifar10(
    root: str | os.PathLike[str] | None = None,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    normalization: str = "standard",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    raise NotImplementedError


def cifar100(
    root: str | os.PathLike[str] | None = None,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    normalization: str = "standard",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    raise NotImplementedError


def image_folder(
    root: str | os.PathLike[str],
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    """A folder of images, `train/<class>/*` and `test/<class>/*`, as torchvision reads them."""
    from torchvision.datasets import ImageFolder

    pools = []
    for part in ("train", "test"):
        folder = ImageFolder(str(Path(root) / part))
        images = np.stack([np.asarray(image) for image, _ in folder])
        pools.append((torch.from_numpy(images).movedim(3, 1).contiguous(), _int64(folder.targets)))
    return _drawn(
        pools, tuple(folder.classes), train, validation, test, label_noise, seed
    ).to(device)  # fmt: skip


_Labelled = tuple[Tensor, Tensor]


def _int64(labels: Any) -> Tensor:
    return torch.as_tensor(labels, dtype=torch.int64)


def _drawn(
    pools: list[_Labelled],
    classes: tuple[str, ...],
    train: int | None,
    validation: int,
    test: int | None,
    label_noise: float,
    seed: int,
) -> Dataset:
    """Splits of a training and a test pool, drawn by `seed`; None: all that are left."""
    (images, labels), (test_images, test_labels) = pools
    _check_count("validation", validation, 0, len(labels) - 1)
    train = len(labels) - validation if train is None else train
    _check_count("train", train, 1, len(labels) - validation)
    test = len(test_labels) if test is None else test
    _check_count("test", test, 1, len(test_labels))
    _check_count("seed", seed, 0)
    generator = torch.Generator().manual_seed(seed)
    held_out, rows = torch.randperm(len(labels), generator=generator).tensor_split([validation])
    test_rows = torch.randperm(len(test_labels), generator=generator)[:test].sort().values
    rows = rows[:train]
    drawn = [
        (images[rows], labels[rows]),
        (images[held_out], labels[held_out]),
        (test_images[test_rows], test_labels[test_rows]),
    ]
    return _dataset(drawn, classes, label_noise, generator)


def _dataset(
    drawn: list[_Labelled],
    classes: tuple[str, ...],
    label_noise: float,
    generator: torch.Generator,
    normalization: _Labelled | None = None,
) -> Dataset:
    """Noise on the labels of the first split, whose images are in random order already."""
    if isinstance(label_noise, bool) or not isinstance(label_noise, int | float):
        raise TypeError(f"label_noise must be a number in [0, 1], got {label_noise!r}")
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise must be in [0, 1], got {label_noise!r}")
    images, labels = drawn[0]
    mean, std = normalization or _mean_and_std(images)
    noisy = torch.zeros(len(labels), dtype=torch.bool)
    noisy[: round(label_noise * len(labels))] = True
    shift = torch.randint(1, len(classes), (len(labels),), generator=generator)
    drawn[0] = images, torch.where(noisy, (labels + shift) % len(classes), labels)
    train, validation, test = (Split(images, labels, mean, std) for images, labels in drawn)
    return Dataset(train, validation, test, noisy, classes)


def _mean_and_std(images: Tensor) -> _Labelled:
    """Of every channel (C,); a channel of one value gets std 1.

    From the histogram of the values, which is exact and needs no copy of the images in floats.
    """
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in images.unbind(1)]).double()
    values, total = torch.arange(256.0, dtype=torch.float64), counts.sum(1)
    mean = (counts @ values) / total
    squares = (counts * (values - mean[:, None]) ** 2).sum(1)
    std = (squares / (total - 1).clamp(min=1)).sqrt()
    return mean.float(), torch.where(std > 0, std, 1).float()


def _check_count(name: str, value: object, least: int, most: float = math.inf) -> None:
    bounds = f"≥ {least}" if most == math.inf else f"in [{least}, {most}]"
    allowed = f"{name} must be an int {bounds}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(allowed)
    if not least <= value <= most:
        raise ValueError(allowed)
