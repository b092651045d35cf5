"""A folder of images, listed, checked and decoded."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lookbehind.train.data.dataset import DataError, Dataset, Draw, Folder

Images = npt.NDArray[np.uint8]
Classes = dict[str, list[Path]]  # the image files of each
JUNK = (".", "$", "__MACOSX", "System Volume Information")


def image_folder(root: Folder, **options: Any) -> Dataset:
    """A folder of images of one size: train/<class>/… and test/<class>/…, as torchvision reads it.

    Hidden files are left out. Links are followed, and a file that is met twice counts once. Images
    are turned as their EXIF orientation says; one channel where all are grey, else three. `options`
    are those of `cifar`, of train/ and test/. Minibatches are normalized by the mean and standard
    deviation of the training images.

    Raises DataError, which names the folder or file, for missing images, classes that differ or
    share a file, links that lead nowhere, and images that don't decode or have another size;
    TypeError or ValueError for wrong options.
    """
    draw = Draw(**options)
    train, test = (Path(root).expanduser() / part for part in ("train", "test"))
    parts = {part: _list_images(part) for part in (train, test)}
    for one, other in ((train, test), (test, train)):
        if missing := sorted(parts[one].keys() - parts[other].keys()):
            raise DataError(f"{other} lacks the classes {missing} of {one}: both must have all")
    if len(parts[train]) < 2:
        raise DataError(f"{train} must hold at least two classes, got {[*parts[train]]}")
    images = _decoded([file for part in parts.values() for some in part.values() for file in some])
    counts = [torch.tensor([*map(len, part.values())]) for part in parts.values()]
    labels = [torch.arange(len(count)).repeat_interleave(count) for count in counts]
    pools = zip(images.split([*map(len, labels)]), labels, strict=True)
    return draw.dataset([*pools], [*parts[train]])


def _list_images(folder: Path) -> Classes:
    """The image files of "train" or "test"."""
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: put the images into {folder}{os.sep}<class>")
    found, seen = Classes(), dict[str, Path]()
    for path in filter(Path.is_dir, _entries(folder)):
        images = dict(_images(path, {*map(str, Path(os.path.realpath(path)).parents)}))
        if not images:
            raise DataError(f"{path} holds no images: add some, or delete the folder")
        for file in sorted(images.keys() & seen.keys()):
            both = f"{seen[file]} and {images[file]}"
            raise DataError(f"{both} are one file: an image must have one class")
        seen |= images
        found[path.name] = list(images.values())
    if not seen:
        raise DataError(f"{folder} holds no classes: put the images into {folder}{os.sep}<class>")
    return found


def _images(folder: Path, seen: set[str]) -> Iterator[tuple[str, Path]]:
    """The image files below a folder, each after where it leads; no folder that was seen."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    real = os.path.realpath(folder)
    entries = sorted(_entries(folder), key=Path.is_dir) if real not in seen else []
    seen.add(real)
    for path in entries:
        if path.is_dir():
            yield from _images(path, seen)
        elif path.suffix.lower() in IMG_EXTENSIONS and path.is_file():
            yield os.path.realpath(path), path


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, in order, but for what is hidden or left in any folder by a system."""
    try:
        paths = [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(JUNK)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error}): mend or delete it") from error
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to {os.readlink(path)}, which leads nowhere")
    return paths


def _decoded(files: Sequence[Path]) -> Tensor:
    """All images (N, C, H, W): one channel where all are grey, else three."""
    from tqdm.contrib.concurrent import thread_map

    bar = {"desc": "decode", "unit": "image", "disable": None}
    images = thread_map(_pixels, files, max_workers=os.cpu_count(), **bar)
    size = images[0].shape[1:]
    for file, image in zip(files, images, strict=True):
        if image.shape[1:] != size:
            first, other = (f"{width} x {height}" for height, width in (size, image.shape[1:]))
            words = f"{files[0]} has {first} pixels, {file} has {other}"
            raise DataError(f"all images must have one size: {words}; scale them to one size first")
    shape = (max(map(len, images)), *size)
    return torch.from_numpy(np.stack([np.broadcast_to(image, shape) for image in images]))


def _pixels(file: Path) -> Images:
    """One image (1 or 3, H, W)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode[0] in "IF":
                raise ValueError(f"its pixels have more than 8 bits, mode {image.mode}")
            grey = image.mode in ("1", "L", "LA", "La")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and others
        raise DataError(f"{file} does not decode ({error}): replace or delete it") from error
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
