"""Datasets as uint8 tensors on a device, split three ways, and augmented minibatches of them."""

import errno
import hashlib
import math
import os
import unicodedata
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from typing import Any
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

Folder = str | os.PathLike[str]
Images = npt.NDArray[np.uint8]
Labelled = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,)
Scale = tuple[Tensor, Tensor]  # mean (C,), std (C,)

DIGITS = 1797
# Mean and standard deviation of red, green and blue, where pixels run from 0 to 1.
STANDARD = {
    "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "CIFAR100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


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
        images, dtype = self.split.images, torch.get_default_dtype()
        mean = self.split.mean.to(dtype).view(-1, 1, 1)
        scale = self.split.std.to(dtype).reciprocal().view(-1, 1, 1)
        rows, corners, flips = (t.to(images.device) for t in self._draw(epoch))
        labels = self.split.labels.index_select(0, rows).split(self.size)
        for b, some in zip(range(len(self)), rows.split(self.size), strict=False):
            pixels = images.index_select(0, some)
            if self.crop or self.flip:
                part = slice(b * self.size, b * self.size + len(some))
                pixels = _augment(pixels, self.crop, corners[:, part], flips[part])
            yield pixels.to(dtype).sub_(mean).mul_(scale), labels[b]

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The order (N,), the upper left corners of the crops (2, N), and who is flipped (N,)."""
        count = len(self.split)
        if self.seed is None:
            return torch.arange(count), torch.empty(0), torch.empty(0)
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        rows = torch.randperm(count, generator=generator)
        corners = torch.randint(2 * self.crop + 1, (2, count), generator=generator)
        flips = torch.randint(2 if self.flip else 1, (count,), generator=generator)
        return rows, corners, flips


def _augment(pixels: Tensor, border: int, corners: Tensor, flips: Tensor) -> Tensor:
    """Crop every image (B, C, H, W) at its corner (2, B), then mirror those with flip (B,) 1."""
    if border:
        pixels = _crop(pixels, border, corners)
    both = torch.stack((pixels, pixels.flip(-1))).flatten(0, 1)
    # On a CPU it takes a quarter of the time of `where` with a mask of shape (B, 1, 1, 1).
    return both.index_select(0, flips * len(pixels) + _range_like(pixels))


def _crop(pixels: Tensor, border: int, corners: Tensor) -> Tensor:
    """Every image (B, C, H, W) with a black border, cut to H x W at its corner (2, B).

    The cut is C H runs of W pixels an image. `index_select` copies a run at once, which on a CPU
    takes a fifth of the time of advanced indexing.
    """
    channels, height, width = pixels.shape[1:]
    padded = pad(pixels, (border,) * 4)
    tall, wide = padded.shape[2:]
    runs = padded.flatten().unfold(0, width, 1)  # overlapping views: one starts at every pixel
    first = (_range_like(pixels) * channels * tall + corners[0]) * wide + corners[1]
    lines = torch.arange(channels, device=pixels.device)[:, None] * tall
    lines = (lines + torch.arange(height, device=pixels.device)) * wide
    starts = first[:, None] + lines.flatten()
    return runs.index_select(0, starts.flatten()).view_as(pixels)


def _range_like(pixels: Tensor) -> Tensor:
    return torch.arange(len(pixels), device=pixels.device)


def data_root(root: Folder | None = None) -> Path:
    """Where datasets are kept: `root`, else LOOKBEHIND_DATA, else the user's cache folder."""
    root = root or os.environ.get("LOOKBEHIND_DATA")
    if root:
        return Path(root).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lookbehind")


def load(name: Folder, root: Folder | None = None, **options: Any) -> Dataset:
    """The dataset called "digits", "cifar10" or "cifar100", or the folder of images at this path.

    `root` is where CIFAR is kept: see `data_root`. `options` are those of the function that has the
    dataset's name, or of `image_folder`. Raises DataError where there is no such dataset.
    """
    if name == "digits":
        return digits(**options)
    if name == "cifar10":
        return cifar10(root, **options)
    if name == "cifar100":
        return cifar100(root, **options)
    if not os.path.isdir(Path(name).expanduser()):
        known = '"digits", "cifar10", "cifar100" or a folder that holds train/ and test/'
        raise DataError(f"dataset must be {known}, got {str(name)!r}")
    return image_folder(name, **options)


@dataclass(frozen=True)
class _Draw:
    """Which images become a dataset, and how many labels are noise. None: all that are left."""

    train: int | None
    validation: int
    test: int | None
    label_noise: float
    seed: int

    def __post_init__(self) -> None:
        _check_share("label_noise", self.label_noise)
        _check_count("seed", self.seed, 0)

    def dataset(
        self, pools: Sequence[Labelled], classes: Sequence[str], scale: Scale | None = None
    ) -> Dataset:
        """Splits of a training and a test pool of images and labels.

        The validation images depend on the seed and their number alone, so that runs on fewer
        training images are judged by the same ones.
        """
        (images, labels), (test_images, test_labels) = pools
        _check_count("validation", self.validation, 0, len(labels) - 1)
        left = len(labels) - self.validation
        train = _all_or("train", self.train, left)
        test = _all_or("test", self.test, len(test_labels))
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(labels), generator=generator)
        held_out, rows = rows[: self.validation], rows[self.validation :][:train]
        test_rows = torch.randperm(len(test_labels), generator=generator)[:test].sort().values
        parts = [
            (images[rows], labels[rows]),
            (images[held_out], labels[held_out]),
            (test_images[test_rows], test_labels[test_rows]),
        ]
        return _with_noise(parts, classes, self.label_noise, generator, scale)


def _with_noise(
    parts: Sequence[Labelled],
    classes: Sequence[str],
    label_noise: float,
    generator: torch.Generator,
    scale: Scale | None = None,
) -> Dataset:
    """A dataset of three parts, with noise on the labels of the first: symmetric, exactly so many.

    The images of the first part are in random order already.
    """
    images, labels = parts[0]
    scale = scale or _mean_and_std(images)
    noisy = torch.zeros(len(labels), dtype=torch.bool)
    noisy[: round(label_noise * len(labels))] = True
    shift = torch.randint(1, len(classes), (len(labels),), generator=generator)
    wrong = torch.where(noisy, (labels + shift) % len(classes), labels)
    validation, test = (Split(*part, *scale) for part in parts[1:])
    return Dataset(Split(images, wrong, *scale), validation, test, noisy, tuple(classes))


def _mean_and_std(images: Tensor) -> Scale:
    """Of every channel (C,); the std of a channel that has one value only is taken as 1.

    From the histogram of the values: exact, and without a copy of the images in floats.
    """
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in images.unbind(1)]).double()
    values, total = torch.arange(256, dtype=torch.float64), counts.sum(1)
    mean = counts @ values / total
    squares = (counts * (values - mean[:, None]) ** 2).sum(1)
    std = (squares / (total - 1).clamp(min=1)).sqrt()
    return mean.float(), torch.where(std > 0, std, 1).float()


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
    _check_share("label_noise", label_noise)
    _check_count("seed", seed, 0)
    from sklearn.datasets import load_digits

    pixels, names = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 8, 8)
    labels = torch.tensor(names, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(DIGITS, generator=generator)
    counts = [train, validation, DIGITS - train - validation]
    parts = [(images[some], labels[some]) for some in rows.split(counts)]
    return _with_noise(parts, list("0123456789"), label_noise, generator).to(device)


def cifar10(
    root: Folder | None = None,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    normalization: str = "standard",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images of 3 x 32 x 32 pixels in ten classes.

    Downloaded by torchvision into `data_root(root)` where it is not there yet: 170 MB, from a slow
    host. A checksum guards every file; what is not whole is downloaded or unpacked again.

    `train` and `validation` are numbers of training images, `test` of test images, drawn by `seed`;
    None takes all that are left. `label_noise` is as for `digits`. Minibatches are normalized by
    the customary figures ("standard", those of the official code), or those of the training images
    drawn ("train").

    Raises DataError where the files cannot be had, TypeError or ValueError for wrong options.
    """
    draw = _Draw(train, validation, test, label_noise, seed)
    return _cifar("CIFAR10", root, draw, normalization).to(device)


def cifar100(
    root: Folder | None = None,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    normalization: str = "standard",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:
    """CIFAR-100: as `cifar10`, in a hundred classes."""
    draw = _Draw(train, validation, test, label_noise, seed)
    return _cifar("CIFAR100", root, draw, normalization).to(device)


def _cifar(name: str, root: Folder | None, draw: _Draw, normalization: str) -> Dataset:
    if normalization not in ("standard", "train"):
        allowed = 'normalization must be "standard" or "train"'
        raise ValueError(f"{allowed}, got {normalization!r}")
    parts = _cifar_files(name, data_root(root))
    pools = [
        (torch.from_numpy(part.data).movedim(3, 1).contiguous(), torch.tensor(part.targets))
        for part in parts
    ]
    mean, std = (255 * torch.tensor(figures) for figures in STANDARD[name])
    return draw.dataset(pools, parts[0].classes, (mean, std) if normalization != "train" else None)


def _cifar_files(name: str, root: Path) -> list[Any]:
    """Torchvision's training and test set, downloaded where they are missing or not whole."""
    from torchvision import datasets

    kind = getattr(datasets, name)
    try:
        return [kind(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError):
        pass
    try:
        _download(kind, root)
        return [kind(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError, HTTPException, EOFError, TarError) as error:
        raise DataError(_advice(error, kind, root)) from error


def _download(kind: Any, root: Path) -> None:
    """One process at a time: a class or a sweep may share the folder."""
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{kind.filename}.lock"):
        kind(root, download=True)


def _advice(error: Exception, kind: Any, root: Path) -> str:
    """What failed while CIFAR was fetched, and what to do."""
    elsewhere = "set LOOKBEHIND_DATA to another folder"
    archive = root / kind.filename
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {root} is full ({error}): make 400 MB free there, or {elsewhere}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{root} must be a folder that you may write in ({error}): {elsewhere}"
    if number in (errno.EEXIST, errno.ENOTDIR):
        return f"{root} must be a folder, not a file ({error}): {elsewhere}"
    if isinstance(error, OSError | HTTPException):
        return (
            f"{kind.url} cannot be downloaded ({error}): go online and call again, "
            f"or get the file from somebody who has it and put it into {root}"
        )
    return (
        f"{archive} or what it holds has a wrong checksum ({error}): the download was cut short or "
        f"changed on its way. Call again to restart it; if this stays, delete {archive} and "
        f"{root / kind.base_folder} first"
    )


def image_folder(
    root: Folder,
    *,
    train: int | None = None,
    validation: int = 0,
    test: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool | None = None,
) -> Dataset:
    """A folder of images of one size: train/<class>/… and test/<class>/…, as torchvision reads it.

    One channel where all images are grey, else three. `train` and `validation` are numbers of
    images from train/, `test` from test/, drawn by `seed`; None takes all that are left.
    `label_noise` is as for `digits`. Minibatches are normalized by the mean and standard deviation
    of the training images.

    The decoded images are kept below `data_root()` until a file of the folder changes. `progress`
    shows a bar while they are decoded: None does so on a terminal only.

    Raises DataError, which names the folder or file, where a part or a class has no images, the
    classes of the two parts differ, two of them have one name, or an image doesn't decode or has
    another size; TypeError or ValueError for wrong options.
    """
    draw = _Draw(train, validation, test, label_noise, seed)
    root = Path(root).expanduser()
    parts = [_list_images(root / part) for part in ("train", "test")]
    _check_classes(*parts)
    files = [Path(file) for part in parts for file, _ in part.samples]
    images = _decoded(root, files, progress).split([len(part.samples) for part in parts])
    labels = [torch.tensor(part.targets) for part in parts]
    return draw.dataset(list(zip(images, labels, strict=True)), parts[0].classes).to(device)


def _list_images(folder: Path) -> Any:
    """Torchvision's `ImageFolder` of one part: `classes`, `samples` (file, label), `targets`."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise DataError(f"{folder} is missing: put the images into {folder}{os.sep}<class>")
    try:
        found = ImageFolder(folder, allow_empty=True)
    except FileNotFoundError as error:
        message = f"{folder} holds no classes: put the images into {folder}{os.sep}<class>"
        raise DataError(message) from error
    counts = np.bincount(np.array(found.targets, dtype=int), minlength=len(found.classes))
    for name, count in zip(found.classes, counts, strict=True):
        if not count:
            raise DataError(f"{folder / name} holds no images: add some, or delete the folder")
    return found


def _check_classes(train: Any, test: Any) -> None:
    seen: dict[str, str] = {}
    for name in sorted({*train.classes, *test.classes}):
        known = seen.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
        if known != name:  # shown in ASCII: they may look alike
            raise DataError(
                f"{known!a} and {name!a} are one class name in {train.root} and "
                f"{test.root}: merge the two folders, or give one another name"
            )
    for one, other in ((train, test), (test, train)):
        if missing := sorted(set(one.classes) - set(other.classes)):
            raise DataError(
                f"{other.root} lacks the classes {missing} of {one.root}: both must hold the same"
            )
    if len(train.classes) < 2:
        raise DataError(f"{train.root} must hold at least two classes, got {train.classes}")


def _decoded(root: Path, files: Sequence[Path], progress: bool | None) -> Tensor:
    """All images (N, C, H, W), from the file that keeps them decoded where it is up to date."""
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    path = data_root() / "decoded" / f"{name[:32]}.npz"
    source = _fingerprint(root, files)
    images = _read_decoded(path, source)
    if images is None:
        images = _decode(files, progress)
        _write_decoded(path, images, source)
    return torch.from_numpy(images)


def _fingerprint(root: Path, files: Sequence[Path]) -> str:
    """Of the names, sizes and times of all files. A copy may keep its mtime, not its ctime."""
    digest = hashlib.sha256(b"1")  # the form of the decoded images
    for file in files:
        stat = file.stat()
        digest.update(os.fsencode(file.relative_to(root)))
        digest.update(f"\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\0".encode())
    return digest.hexdigest()


def _read_decoded(path: Path, source: str) -> Images | None:
    """None where there is no such file, it is damaged, or made from something else."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return kept["images"] if str(kept["source"]) == source else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None


def _write_decoded(path: Path, images: Images, source: str) -> None:
    """Whole or not at all: the name is given when the bytes are on the disk."""
    part = path.with_suffix(f".{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, images=images, source=source)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        message = f"{path.parent} cannot keep the decoded images ({error})"
        warnings.warn(f"{message}: the next call decodes them again", stacklevel=4)


def _decode(files: Sequence[Path], progress: bool | None) -> Images:
    """All images (N, C, H, W): one channel where all are grey, else three."""
    from tqdm.auto import tqdm

    height, width = _pixels(files[0]).shape[:2]
    images = np.empty((len(files), 3, height, width), np.uint8)

    def decode(start: int) -> tuple[int, bool]:
        some = files[start : start + 100]
        found = [_pixels(file) for file in some]
        for i, (file, pixels) in enumerate(zip(some, found, strict=True), start):
            _check_size(file, pixels, files[0], (height, width))
            images[i] = pixels.transpose(2, 0, 1)
        return len(some), all(pixels.shape[2] == 1 for pixels in found)

    grey = True
    disable = None if progress is None else not progress
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with tqdm(total=len(files), desc="decode", unit="image", disable=disable) as bar:
            for count, all_grey in pool.map(decode, range(0, len(files), 100)):
                grey &= all_grey
                bar.update(count)
    finally:
        pool.shutdown(cancel_futures=True)
    return images[:, :1].copy() if grey else images


def _pixels(file: Path) -> Images:
    """One image (H, W, 1 or 3)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"its pixels have more than 8 bits, mode {image.mode}")
            grey = image.mode in ("1", "L", "LA", "La")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
        message = f"{file} does not decode as an image: replace or delete it ({error})"
        raise DataError(message) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_size(file: Path, pixels: Images, first: Path, size: tuple[int, int]) -> None:
    if pixels.shape[:2] != size:
        (height, width), (other_height, other_width) = size, pixels.shape[:2]
        raise DataError(
            f"all images must have one size: {first} has {width} x {height} pixels, "
            f"{file} has {other_width} x {other_height}; scale them to one size first"
        )


def _all_or(name: str, count: int | None, most: int) -> int:
    if count is None:
        return most
    _check_count(name, count, 1, most)
    return count


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number in [0, 1], got {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")


def _check_count(name: str, value: object, least: int, most: float = math.inf) -> None:
    bounds = f"≥ {least}" if most == math.inf else f"in [{least}, {most}]"
    allowed = f"{name} must be an int {bounds}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(allowed)
    if not least <= value <= most:
        raise ValueError(allowed)
