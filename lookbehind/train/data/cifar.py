"""CIFAR-10 and CIFAR-100, downloaded by torchvision."""

import errno
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from typing import Any

import torch

from lookbehind.train.data.dataset import DataError, Dataset, Draw, Folder, data_root

# Mean and standard deviation of red, green and blue, where pixels run from 0 to 1.
STANDARD = {
    "CIFAR10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "CIFAR100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


def cifar10(
    root: Folder | None = None, *, device: str | torch.device = "cpu", **options: Any
) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images of 3 x 32 x 32 pixels in ten classes.

    Downloaded by torchvision into `data_root(root)` where it is not there yet: 170 MB, from a slow
    host. A checksum guards every file; what is not whole is downloaded or unpacked again.

    `options`, all drawn by `seed` = 0: `train` = None and `validation` = 0 are numbers of training
    images, `test` = None of test images; None takes all that are left. `label_noise` = 0 is as for
    `digits`. Minibatches are normalized by the customary figures, those of the official code.

    Raises DataError where the files cannot be had, TypeError or ValueError for wrong options.
    """
    return _cifar("CIFAR10", root, Draw(**options)).to(device)


def cifar100(
    root: Folder | None = None, *, device: str | torch.device = "cpu", **options: Any
) -> Dataset:
    """CIFAR-100: as `cifar10`, in a hundred classes."""
    return _cifar("CIFAR100", root, Draw(**options)).to(device)


def _cifar(name: str, root: Folder | None, draw: Draw) -> Dataset:
    parts = _cifar_files(name, data_root(root))
    pools = [
        (torch.from_numpy(part.data).movedim(3, 1).contiguous(), torch.tensor(part.targets))
        for part in parts
    ]
    mean, std = (255 * torch.tensor(figures) for figures in STANDARD[name])
    return draw.dataset(pools, parts[0].classes, (mean, std))


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
