"""The datasets that have a name: scikit-learn's digits, and CIFAR, fetched and read."""

import errno
import os
import shutil
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tarfile import TarError
from typing import Any

import numpy as np
import torch

from lookbehind.checks import whole
from lookbehind.train.data.dataset import DataError, Dataset, Draw, Folder, data_root
from lookbehind.train.data.folder import image_folder

DIGITS = 1797
PATIENCE = 60  # seconds without a byte of a download
# Mean and standard deviation of red, green, blue, where pixels go from 0 to 1.
CIFAR = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


def load(name: Folder, root: Folder | None = None, **options: Any) -> Dataset:
    """The dataset called "digits", "cifar10" or "cifar100", or the folder of images at this path.

    `root` is where CIFAR is kept: see `data_root`. `options` are those of `digits`, `cifar` or
    `image_folder`. Raises DataError where there is no such dataset.
    """
    if name == "digits":
        return digits(**options)
    if name in CIFAR:
        return cifar(str(name), root, **options)
    if Path(name).expanduser().is_dir():
        return image_folder(name, **options)
    known = '"digits", "cifar10", "cifar100" or a folder that holds train/ and test/'
    raise DataError(f"dataset must be {known}, got {str(name)!r}")


def digits(
    *, train: int = 500, validation: int = 300, label_noise: float = 0.0, seed: int = 0,
    device: str | torch.device = "cpu",
) -> Dataset:  # fmt: skip
    """scikit-learn's 1,797 real handwritten digits: 1 x 8 x 8 pixels from 0 to 16, no network.

    `train` and `validation` are numbers of images, drawn by `seed`; the rest is the test split.
    `label_noise` in [0, 1] is the share of *training* labels that are replaced by one of the wrong
    classes, chosen evenly (symmetric noise). Minibatches are normalized by the mean and standard
    deviation of the training images.

    Raises TypeError or ValueError where no image would be left for the test split.
    """
    whole("train", train, 1, DIGITS - 1)
    whole("validation", validation, 0, DIGITS - train - 1)
    draw = Draw(label_noise=label_noise, seed=seed, device=device)
    found = find_spec("sklearn")  # not imported: that takes a second and 900 modules
    if found is None or found.origin is None:
        raise ModuleNotFoundError("dataset digits needs scikit-learn, which has its images")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(path, dtype=np.int64, delimiter=","))
    images, labels = table[:, :-1].to(torch.uint8).view(-1, 1, 8, 8), table[:, -1]
    order = torch.randperm(DIGITS, generator=draw.generator)
    rows = order.tensor_split([train, train + validation])
    parts = [(images[some], labels[some]) for some in rows]
    return draw.noisy(parts, "0123456789")


def cifar(name: str, root: Folder | None = None, **options: Any) -> Dataset:
    """CIFAR: 50,000 training and 10,000 test images of 3 x 32 x 32 pixels, in ten classes
    ("cifar10") or a hundred ("cifar100").

    Downloaded into `data_root(root)` where it is not there yet: 170 MB, from a slow host, or from
    the folder (an address or a path) that LOOKBEHIND_MIRROR names. A checksum guards every file.

    `options`: `train` = None, `validation` = 0 and `test` = None are numbers of images (None takes
    all that are left), the others as for `digits`. Minibatches are normalized by the official
    code's figures.

    Raises DataError where the files cannot be had, TypeError or ValueError for wrong options.
    """
    from torchvision import datasets

    draw, figures = Draw(**options), CIFAR[name]
    parts = _cifar_parts(getattr(datasets, name.upper()), data_root(root))
    images = [torch.from_numpy(part.data).movedim(3, 1).contiguous() for part in parts]
    pools = [(pixels, torch.tensor(p.targets)) for pixels, p in zip(images, parts, strict=True)]
    mean, std = (255 * torch.tensor(each) for each in figures)
    return draw.dataset(pools, parts[0].classes, (mean, std))


def _cifar_parts(kind: Any, root: Path) -> list[Any]:
    """Torchvision's training and test set, downloaded where they are missing or not whole."""
    from filelock import FileLock

    with suppress(RuntimeError, OSError):
        return [kind(root, train=train) for train in (True, False)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{kind.filename}.lock"):  # a class or a sweep may share the folder
            _fetch(kind, root)
            kind(root, download=True)  # unpacks it
        return [kind(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError, HTTPException, EOFError, TarError) as error:
        raise DataError(_advice(error, kind, root)) from error


def _fetch(kind: Any, root: Path) -> None:
    """The archive, where it is not there as it should be."""
    from torchvision.datasets.utils import check_integrity

    archive = root / kind.filename
    if check_integrity(archive, kind.tgz_md5):
        return
    download(_address(kind), archive)
    if not check_integrity(archive, kind.tgz_md5):
        archive.unlink()
        raise RuntimeError(f"{_address(kind)} is not the file with MD5 {kind.tgz_md5}")


def download(url: str, path: Path) -> None:
    """Fetch `url` into `path`, with a bar that tells how long it will take.

    What has come stands in `path`.part until all is there: the next call asks the host for the rest
    (HTTP's Range; a host that can't starts anew). Raises OSError or HTTPException.
    """
    from tqdm.auto import tqdm

    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    asked = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            have = have if answer.status == 206 else 0
            length = answer.headers["Content-Length"]
            total = have + int(length) if length else None
            reading = tqdm.wrapattr(answer, "read", total=total, initial=have, desc=part.stem)
            with part.open("ab" if have else "wb") as file, reading as source:
                shutil.copyfileobj(source, file)
                if total and file.tell() < total:
                    raise ConnectionError(f"it broke off after {file.tell():,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send: the file was whole but for its name
            raise
    os.replace(part, path)


def _address(kind: Any) -> str:
    mirror = os.environ.get("LOOKBEHIND_MIRROR", "").rstrip("/")
    if mirror and "://" not in mirror:
        mirror = Path(mirror).expanduser().resolve().as_uri()
    return f"{mirror}/{kind.filename}" if mirror else str(kind.url)


def _advice(error: Exception, kind: Any, root: Path) -> str:
    """What failed while CIFAR was fetched, and what to do."""
    elsewhere = "set LOOKBEHIND_DATA to another folder"
    archive, number = root / kind.filename, getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {root} is full ({error}): make 400 MB free there, or {elsewhere}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{root} must be a folder that you may write in ({error}): {elsewhere}"
    if number in (errno.EEXIST, errno.ENOTDIR):
        return f"{root} must be a folder, not a file ({error}): {elsewhere}"
    if isinstance(error, OSError | HTTPException):
        return (
            f"{_address(kind)} cannot be downloaded ({error}): go online and call again to go on, "
            f"name a mirror's folder in LOOKBEHIND_MIRROR, or get the file and put it into {root}"
        )
    return (
        f"{archive} or what it holds has a wrong checksum ({error}). Call again to restart the "
        f"download; if this stays, delete {archive} and {root / kind.base_folder} first"
    )
