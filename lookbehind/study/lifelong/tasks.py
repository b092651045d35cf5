"""Sequences of tasks, made of one dataset."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lookbehind.checks import whole
from lookbehind.train.data import Dataset, Split


@dataclass(frozen=True, eq=False)
class Task:
    """A part of a problem: `data`, labelled as in the whole problem, and which `classes` it has."""

    data: Dataset
    classes: tuple[int, ...]


def split_classes(dataset: Dataset, tasks: int, *, seed: int | None = None) -> list[Task]:
    """`tasks` tasks of equally many classes each: 0 and 1, then 2 and 3, … (split-digits).

    The order of the classes is that of their labels, or drawn by `seed`. A wrong label counts as
    the image's class. Raises TypeError or ValueError where `tasks` isn't an int that divides the
    number of classes, or a split of the dataset has no image for one of the tasks.
    """
    count = len(dataset.classes)
    if count % whole("tasks", tasks, 1):
        raise ValueError(f"tasks must divide the number of classes, {count}; got {tasks}")
    order = torch.arange(count)
    if seed is not None:
        order = torch.randperm(count, generator=_generator(seed))
    return [_of_classes(dataset, tuple(sorted(some))) for some in order.view(tasks, -1).tolist()]


def _of_classes(dataset: Dataset, classes: tuple[int, ...]) -> Task:
    parts = (dataset.train, dataset.validation, dataset.test)
    masks = [torch.isin(s.labels, s.labels.new_tensor(classes)) for s in parts]
    train, validation, test = (_rows(s, mask) for s, mask in zip(parts, masks, strict=True))
    part = Dataset(train, validation, test, dataset.noisy[masks[0]], dataset.classes)
    for name in dataset.splits:
        if name not in part.splits:
            names = ", ".join(dataset.classes[c] for c in classes)
            raise ValueError(f"a task must have images, the {name} split has none of {names}")
    return Task(part, classes)


def permuted(dataset: Dataset, tasks: int, *, seed: int = 0) -> list[Task]:
    """The dataset as it is, then with its pixels in other orders, one fixed order a task.

    The orders are drawn by `seed`; the channels of a pixel stay together. Each task is a copy of
    the dataset and has all classes. Goodfellow et al. 2013, arXiv 1312.6211 (permuted MNIST).
    """
    count, generator = math.prod(dataset.size), _generator(seed)
    orders = [torch.arange(count)]
    orders += [
        torch.randperm(count, generator=generator) for _ in range(whole("tasks", tasks, 1) - 1)
    ]
    return [_changed(dataset, partial(_reordered, order=order)) for order in orders]


def _reordered(images: Tensor, order: Tensor) -> Tensor:
    return images.flatten(2).index_select(2, order.to(images.device)).view_as(images)


def rotated(dataset: Dataset, angles: Sequence[float]) -> list[Task]:
    """The dataset turned by each of `angles`, in degrees counter-clockwise, one a task.

    Between the pixels bilinear, black outside. Each task is a copy of the dataset and has all
    classes. Lopez-Paz & Ranzato 2017, arXiv 1706.08840 (rotated MNIST).
    """
    if not angles or not all(map(math.isfinite, angles)):
        raise ValueError(f"angles must be finite numbers of degrees, at least one; got {angles!r}")
    return [_changed(dataset, partial(_turned, angle=math.radians(angle))) for angle in angles]


def _turned(images: Tensor, angle: float) -> Tensor:
    height, width = images.shape[2:]
    cos, sin = math.cos(angle), math.sin(angle)
    # From a pixel of the result to where it comes from; x and y run from −1 to 1, y downwards.
    matrix = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    turn = torch.tensor(matrix, dtype=torch.float64, device=images.device)
    grid = affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images.double(), grid, align_corners=False).round().to(images.dtype)


def _changed(dataset: Dataset, change: Callable[[Tensor], Tensor]) -> Task:
    """All of the dataset, its images changed."""
    train, validation, test = (
        replace(split, images=change(split.images)) if len(split) else split
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    changed = Dataset(train, validation, test, dataset.noisy, dataset.classes)
    return Task(changed, tuple(range(len(dataset.classes))))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(whole("seed", seed, 0))


def _rows(split: Split, rows: Tensor) -> Split:
    return replace(split, images=split.images[rows], labels=split.labels[rows])
