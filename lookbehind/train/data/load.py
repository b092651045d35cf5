"""A dataset by its name."""

import os
from pathlib import Path
from typing import Any

from lookbehind.train.data.cifar import cifar10, cifar100
from lookbehind.train.data.dataset import DataError, Dataset, Folder, digits
from lookbehind.train.data.folder import image_folder


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
