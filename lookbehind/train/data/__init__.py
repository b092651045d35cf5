"""Datasets as uint8 tensors on a device, split three ways, and augmented minibatches of them."""

from lookbehind.train.data.dataset import Batches, DataError, Dataset, Split, data_root
from lookbehind.train.data.folder import image_folder
from lookbehind.train.data.named import cifar, digits, load

__all__ = [
    "Batches", "DataError", "Dataset", "Split", "cifar", "data_root", "digits",
    "image_folder", "load",
]  # fmt: skip
