"""Lifelong learning: sequences of tasks, replay of remembered images, accuracy and forgetting.

A sequence is a list of `Task`s that one network learns one after the other; R[i, j] is its
accuracy on task j after task i.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind.checks import one_of, whole
from lookbehind.scores import Minibatch
from lookbehind.study.ensemble import Ensemble
from lookbehind.train import EVALUATION_BATCH, evaluate, fit, grouped
from lookbehind.train.data import Batches, Dataset, Split


@dataclass(frozen=True, eq=False)
class Task:
    """A part of a problem: `data`, labelled as in the whole problem, and which `classes` it has."""

    data: Dataset
    classes: tuple[int, ...]


def split_classes(dataset: Dataset, tasks: int) -> list[Task]:
    """`tasks` tasks of equally many classes each: 0 and 1, then 2 and 3, … (split-digits).

    A wrong label counts as the image's class. Raises TypeError or ValueError where `tasks` isn't an
    int that divides the number of classes, or a split has no image for one of the tasks.
    """
    n = len(dataset.classes)
    if n % whole("tasks", tasks, 1):
        raise ValueError(f"tasks must divide the number of classes, {n}; got {tasks}")
    return [_of_classes(dataset, (*some,)) for some in torch.arange(n).view(tasks, -1).tolist()]


def _of_classes(dataset: Dataset, classes: tuple[int, ...]) -> Task:
    parts: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        rows = torch.isin(split.labels, split.labels.new_tensor(classes))
        if not rows.any():
            names = ", ".join(dataset.classes[c] for c in classes)
            raise ValueError(f"a task must have images, the {name} split has none of {names}")
        parts[name] = split.take(rows)
        parts |= {"noisy": dataset.noisy[rows]} if name == "train" else {}
    return Task(replace(dataset, **parts), classes)


def permuted(dataset: Dataset, tasks: int, *, seed: int = 0) -> list[Task]:
    """The dataset as it is, then with its pixels in other orders, one fixed order a task.

    The orders are drawn by `seed`; the channels of a pixel stay together. Each has all classes.
    Goodfellow et al. 2013, arXiv 1312.6211 (permuted MNIST).
    """
    n, by = math.prod(dataset.size), torch.Generator().manual_seed(whole("seed", seed, 0))
    drawn = [torch.randperm(n, generator=by) for _ in range(whole("tasks", tasks, 1) - 1)]
    return [_reordered(dataset, order) for order in (torch.arange(n), *drawn)]


def _reordered(dataset: Dataset, order: Tensor) -> Task:
    parts: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        pixels = split.images.flatten(2)[..., order.to(split.images.device)]
        parts[name] = replace(split, images=pixels.view_as(split.images))
    return Task(replace(dataset, **parts), tuple(range(len(dataset.classes))))


class Reservoir:
    """A uniform sample, without replacement, of all images offered so far.

    Algorithm R (Vitter 1985, attributed there to A. Waterman): the first `memory` images are kept,
    the n-th after them with probability memory / n, in a random other's place. `split` holds the
    images (None before any was offered), `seen` is n.
    """

    def __init__(self, memory: int, seed: int = 0) -> None:
        self.memory, self.seen = whole("memory", memory, 0), 0
        self.split: Split | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, split: Split) -> None:
        """Offer the images of `split`, in their order."""
        both = _joined([self.split, split] if self.split else [split])
        rows = list(range(len(both) - len(split)))  # of the images that are kept
        for row, place in enumerate(self._places(len(split)), len(rows)):
            if len(rows) < self.memory:
                rows.append(row)
            elif place < self.memory:
                rows[place] = row
        self.seen += len(split)
        self.split = both.take(torch.tensor(rows, dtype=torch.int64, device=both.labels.device))

    def _places(self, count: int) -> list[int]:
        """For the n-th image of all, n = seen + 1, …, seen + count: one of 0, …, n − 1."""
        n = torch.arange(self.seen + 1, self.seen + count + 1)
        uniform = torch.rand(count, generator=self._generator, dtype=torch.float64)
        return (uniform * n).long().tolist()


@dataclass(eq=False)
class Replay:
    """The minibatches of `batches`, each joined by one of `remembered`, which an epoch goes through
    as often as it needs, in new random orders that depend on their seed and the epoch alone."""

    batches: Batches
    remembered: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Minibatch]:
        passes = math.ceil(len(self.batches) / len(self.remembered))
        self.remembered.set_epoch(self.batches.epoch * passes)
        old = chain.from_iterable(iter(self.remembered) for _ in range(passes))
        for new, remembered in zip(self.batches, old, strict=False):
            images, labels = zip(new, remembered, strict=True)
            yield torch.cat(images), torch.cat(labels)


@dataclass(frozen=True, eq=False)
class Learned:
    """What T tasks in sequence left. `accuracy`, by the name of the split, is R (T, T): R[i, j] on
    task j after task i was learned, NaN for tasks that were not; float64, on the CPU; an ensemble's
    has its members as first dimension. `stopped`: whether the sequence ended early."""

    accuracy: dict[str, Tensor]
    stopped: bool


def learn(
    model: nn.Module, make_optimizer: Callable[[nn.Module], Any], tasks: Sequence[Task], *,
    batch_size: int, incremental: str = "class", memory: int = 0, joint: bool = False,
    seed: int = 0, loss: Callable[..., Tensor] = cross_entropy,
    score: Callable[..., Any] = evaluate, **options: Any,
) -> Learned:  # fmt: skip
    """Train `model` on one task after the other, and after each measure it on all of them.

    `options` are those of `fit`; its budget, `epochs` or `gradients`, is that *of each task*.
    `make_optimizer(model)` is called for every task: the schedule starts anew, without momentum.

    `incremental` says what is known about an image (van de Ven & Tolias 2019, arXiv 1904.07734):
    "task": which task it is of, so the logits of other tasks' classes are left out, in training
    and measuring; "class": nothing, so it is one of all classes, those of tasks to come included.
    Where every task has all classes (`permuted`) both are *domain*-incremental.

    `memory` > 0: experience replay (Chaudhry et al. 2019, arXiv 1902.10486). A `Reservoir` of so
    many training images is offered each task's when the task ends; while the next is learned, every
    minibatch is joined by `batch_size` images of past tasks, or by all if they are fewer.

    `joint`: all tasks at once instead, as if they were one, the upper bound; R is (1, T) then. An
    epoch is one of all tasks; in gradients give T times the budget of a task.

    For an `Ensemble`, whose members see the same minibatches: `loss=member_cross_entropy` and
    `score=evaluate_members`. A member that diverges has accuracy NaN from then on. Ctrl-C, or
    `stop`, ends the sequence: the task under way, and those to come, have no row.

    Raises FloatingPointError where a loss is no longer finite, TypeError or ValueError for a wrong
    argument, and what `fit` raises.
    """
    _check_tasks(tasks, incremental)
    reservoir = Reservoir(memory, seed)
    groups = _groups(tasks, incremental == "task", next(model.parameters()).device)
    within = partial(_loss_within, groups, loss) if groups else loss
    trains = [task.data.train for task in tasks]
    lessons = [_joined(trains)] if joint else trains
    members = [model.members] if isinstance(model, Ensemble) else []
    R = torch.full((*members, len(lessons), len(tasks)), math.nan, dtype=torch.float64)
    accuracy = {name: R.clone() for name in sorted(tasks[0].data.splits.keys() - {"train"})}
    for i, lesson in enumerate(lessons):
        batches: Any = lesson.batches(batch_size, seed)
        if old := reservoir.split:
            size = min(batch_size, len(old))
            batches = Replay(batches, old.batches(size, seed, drop_last=True))
        made, plan = make_optimizer(model), grouped(**options)
        history = fit(model, made, batches, splits={}, loss=within, **plan)
        if history.stopped:
            break
        for (name, matrix), (j, task) in product(accuracy.items(), enumerate(tasks)):
            split, own = task.data.splits[name], task.classes if groups else ()
            matrix[..., i, j] = _accuracy(model, split, own, score, f"{name} of task {j}")
        reservoir.add(lesson)
    return Learned(accuracy, history.stopped)


def _groups(tasks: Sequence[Task], told: bool, device: torch.device) -> list[Tensor]:
    """The classes of each kind of task; none where no logits are left out."""
    groups = {tuple(sorted(task.classes)) for task in tasks} if told else set()
    whole = any(len(group) == len(tasks[0].data.classes) for group in groups)
    return [] if whole else [torch.tensor(group, device=device) for group in sorted(groups)]


def _loss_within(groups: list[Tensor], loss: Any, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of losses over the classes of each image's own task, which its label tells. No logit
    is masked: label smoothing would make −∞ of it."""
    found = []
    for classes in groups:
        rows = torch.isin(labels, classes).nonzero()[:, 0]
        if len(rows):
            own = logits[..., rows, :][..., classes]
            mean = loss(own, torch.searchsorted(classes, labels[rows]))
            found.append(mean * (len(rows) / len(labels)))
    return torch.stack(found).sum(0)


def _accuracy(model: nn.Module, split: Split, own: Sequence[int], score: Any, name: str) -> Tensor:
    """() or (E,), NaN for a member that diverged; among the `own` classes of the task, if any."""

    def within(*of: Any) -> Tensor:
        classes = torch.tensor(own, device=of[-1].device)
        kept = torch.zeros_like(of[-1], dtype=torch.bool).index_fill_(-1, classes, True)
        return of[-1].where(kept, -math.inf)

    with model.register_forward_hook(within) if own else nullcontext():
        found = score(model, split.batches(EVALUATION_BATCH))
    finite = torch.as_tensor(found.loss).isfinite().cpu()
    if finite.ndim == 0 and not finite:
        raise FloatingPointError(f"the loss on {name} is not finite")
    return torch.as_tensor(found.accuracy, dtype=torch.float64).cpu().where(finite, math.nan)


def average_accuracy(R: Tensor) -> Tensor:
    """ACC = 1/T Σ_j R[T, j], in the end and over all tasks, of R (..., T, T) or (..., 1, T): (...).

    Lopez-Paz & Ranzato 2017 (GEM), arXiv 1706.08840, equation 2.
    """
    return R[..., -1, :].mean(-1)


def average_forgetting(R: Tensor) -> Tensor:
    """F = 1/(T − 1) Σ_{j < T} (max_{l < T} R[l, j] − R[T, j]), of R (..., T, T): (...).

    From the best accuracy that a task ever had to that in the end, of each task but the last; < 0
    if later tasks helped. Chaudhry et al. 2018 (Riemannian walk), arXiv 1801.10112.
    """
    if R.ndim < 2 or not R.shape[-1] == R.shape[-2] >= 2:
        raise ValueError(f"R must have shape (..., T, T), T ≥ 2 tasks; got {tuple(R.shape)}")
    return (R[..., :-1, :-1].amax(-2) - R[..., -1, :-1]).mean(-1)


def _check_tasks(tasks: Sequence[Task], incremental: str) -> None:
    one_of("incremental", incremental, "task", "class")
    if len({task.data.classes for task in tasks}) != 1:
        raise ValueError("tasks must hold at least one task, all of one problem: the same classes")
    if len({tuple(task.data.splits) for task in tasks}) != 1:
        found = [[*task.data.splits] for task in tasks]
        raise ValueError(f"tasks must have images in the same splits, got {found}")
    for a, b in combinations((task.classes for task in tasks), 2):
        if incremental == "task" and {*a} != {*b} and {*a} & {*b}:
            raise ValueError(f'incremental="task" needs equal or disjoint classes, got {a} and {b}')


def _joined(splits: Sequence[Split]) -> Split:
    """All images, normalized as those of the first."""
    images, labels = zip(*((split.images, split.labels) for split in splits), strict=True)
    return replace(splits[0], images=torch.cat(images), labels=torch.cat(labels))
