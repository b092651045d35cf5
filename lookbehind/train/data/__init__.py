"""Datasets as uint8 tensors on a device, split three ways, and augmented minibatches of them."""

from lookbehind.train.data.cifar import cifar10, cifar100
from lookbehind.train.data.dataset import Batches, DataError, Dataset, Split, data_root, digits
from lookbehind.train.data.folder import image_folder
from lookbehind.train.data.load import load

__all__ = [
    "Batches",
    "DataError",
    "Dataset",
    "Split",
    "cifar10",
    "cifar100",
    "data_root",
    "digits",
    "image_folder",
    "load",
]
