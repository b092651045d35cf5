"""A small dataset that can be learned class by class, and a network and optimizers for it."""

import pytest
import torch
from torch import nn

from lookbehind import Ball, Lookbehind
from lookbehind.train.data import Dataset, Split

SCALE = (torch.tensor([100.0, 110.0]), torch.tensor([50.0, 60.0]))


def some_split(count, seed, classes=6):
    """Every class in turn; the class is written into a bright pixel, so that it can be learned."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(90, (count, 2, 3, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    images.flatten(1)[torch.arange(count), labels] = 255
    return Split(images, labels, *SCALE)


@pytest.fixture(name="dataset")
def six_classes():
    noisy = torch.arange(36) < 6
    return Dataset(some_split(36, 0), some_split(12, 1), some_split(18, 2), noisy, tuple("abcdef"))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 6)).double()


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def lookbehind(model):
    return Lookbehind(sgd(model), Ball(0.05), k=3, alpha=0.5)
