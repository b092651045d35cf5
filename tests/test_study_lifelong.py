"""`lifelong`: task sequences, the reservoir, replay in one closure, R and what is read from it."""

import copy
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import double_precision, identical, one_thread  # noqa: F401
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind import SAM, Ball, Lookbehind
from lookbehind.study import Ensemble, evaluate_members, member_cross_entropy
from lookbehind.study.lifelong import Reservoir, Task, learn, permuted, rotated, split_classes
from lookbehind.study.lifelong import sequence as lifelong
from lookbehind.train import Recipe, cosine, evaluate, fit
from lookbehind.train.data import Dataset, Split

SCALE = (torch.tensor([100.0, 110.0]), torch.tensor([50.0, 60.0]))


def some_split(count: int, seed: int, classes: int = 6) -> Split:
    """Every class in turn; the class is written into a bright pixel, so that it can be learned."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(90, (count, 2, 3, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    images.flatten(1)[torch.arange(count), labels] = 255
    return Split(images, labels, *SCALE)


@pytest.fixture
def dataset() -> Dataset:
    noisy = torch.arange(36) < 6
    return Dataset(some_split(36, 0), some_split(12, 1), some_split(18, 2), noisy, tuple("abcdef"))


def network(hidden: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(24, hidden), nn.Tanh(), nn.Linear(hidden, 6)
        return nn.Sequential(nn.Flatten(), *layers).double()


def sgd(model: nn.Module, lr: float = 0.05) -> Any:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def lookbehind(model: nn.Module) -> Any:
    return Lookbehind(sgd(model), Ball(0.05), k=3, alpha=0.5)


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.parameters())


# Sequences


@pytest.mark.parametrize("seed", [None, 3])
def test_a_class_split_gives_every_image_to_the_task_of_its_label(
    dataset: Dataset, seed: int | None
) -> None:
    tasks = split_classes(dataset, 3, seed=seed)
    assert sorted(c for task in tasks for c in task.classes) == list(range(6))
    assert [len(task.classes) for task in tasks] == [2, 2, 2]
    for task in tasks:
        assert task.data.classes == dataset.classes
        for name, whole in dataset.splits.items():
            mine = [i for i, label in enumerate(whole.labels.tolist()) if label in task.classes]
            assert torch.equal(task.data.splits[name].images, whole.images[mine])
            assert torch.equal(task.data.splits[name].labels, whole.labels[mine])
            assert task.data.splits[name].mean is whole.mean
        mine = [i for i, y in enumerate(dataset.train.labels.tolist()) if y in task.classes]
        assert torch.equal(task.data.noisy, dataset.noisy[mine])


def test_the_order_of_the_classes_is_that_of_the_labels_or_drawn(dataset: Dataset) -> None:
    assert [task.classes for task in split_classes(dataset, 3)] == [(0, 1), (2, 3), (4, 5)]
    drawn = [[t.classes for t in split_classes(dataset, 3, seed=s)] for s in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_permuted_tasks_have_one_order_of_pixels_for_all_images(dataset: Dataset) -> None:
    coded = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4) + torch.tensor([[[[0]], [[100]]]])
    train = replace(dataset.train, images=coded.expand(36, -1, -1, -1).to(torch.uint8))
    tasks = permuted(replace(dataset, train=train), 3, seed=5)
    assert torch.equal(tasks[0].data.test.images, dataset.test.images)
    orders = [task.data.train.images[0, 0].flatten().long() for task in tasks]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    for task, order in zip(tasks, orders, strict=True):
        assert sorted(order.tolist()) == list(range(12))
        expected = torch.stack([order, order + 100]).view(2, 3, 4)
        assert all(torch.equal(image.long(), expected) for image in task.data.train.images)
        for one, whole in (
            (task.data.test, dataset.test),
            (task.data.validation, dataset.validation),
        ):
            assert torch.equal(one.images.flatten(2), whole.images.flatten(2)[..., order])
            assert torch.equal(one.labels, whole.labels)
        assert task.classes == tuple(range(6))
    again = permuted(dataset, 3, seed=5)[2].data.test.images
    assert torch.equal(again, tasks[2].data.test.images)
    other = permuted(dataset, 3, seed=6)[2].data.test.images
    assert not torch.equal(again, other)


def test_rotated_by_right_angles_is_rot90(dataset: Dataset) -> None:
    square = replace(dataset.test, images=dataset.test.images[..., :3])
    parts = dict.fromkeys(("train", "validation", "test"), square)
    tasks = rotated(
        replace(dataset, noisy=torch.zeros(18, dtype=torch.bool), **parts), [0, 90, 270]
    )
    for task, turns in zip(tasks, (0, 1, 3), strict=True):
        for split in task.data.splits.values():
            assert split.images.dtype == torch.uint8
            assert torch.equal(split.images, square.images.rot90(turns, (2, 3)))
            assert torch.equal(split.labels, square.labels)


def test_rotated_by_less_is_black_outside() -> None:
    white = Split(torch.full((1, 1, 9, 9), 200, dtype=torch.uint8), torch.zeros(1).long(), *SCALE)
    some = Dataset(white, white, white, torch.zeros(1, dtype=torch.bool), ("a", "b"))
    (task,) = rotated(some, [45])
    assert task.data.test.images[0, 0, 0, 0] == 0
    assert task.data.test.images[0, 0, 4, 4] == 200


def test_a_dataset_without_validation_images_is_fine(dataset: Dataset) -> None:
    none = replace(dataset, validation=some_split(0, 0))
    for tasks in (split_classes(none, 2), permuted(none, 2), rotated(none, [0, 90])):
        assert all(set(task.data.splits) == {"train", "test"} for task in tasks)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: split_classes(d, 4), "tasks must divide the number of classes, 6; got 4"),
        (lambda d: split_classes(d, 0), "tasks must be an int ≥ 1, got 0"),
        (lambda d: split_classes(d, 2.0), "tasks must be an int ≥ 1, got 2.0"),
        (lambda d: split_classes(d, 2, seed=-1), "seed must be an int ≥ 0, got -1"),
        (lambda d: permuted(d, True), "tasks must be an int ≥ 1, got True"),
        (lambda d: rotated(d, []), "angles must be finite numbers"),
        (lambda d: rotated(d, [0, math.nan]), "angles must be finite numbers"),
        (lambda d: Reservoir(0), "capacity must be an int ≥ 1, got 0"),
    ],
)
def test_what_makes_no_sequence(dataset: Dataset, make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make(dataset)


def test_a_task_without_images_is_refused(dataset: Dataset) -> None:
    few = replace(dataset, validation=some_split(3, 1))  # of classes a, b, c
    with pytest.raises(ValueError, match="the validation split has none of d, e, f"):
        split_classes(few, 2)


# The reservoir


class Chosen(Reservoir):
    """A reservoir whose draws are given."""

    draws: tuple[int, ...] = ()

    def _places(self, count: int) -> list[int]:
        return list(self.draws[self.seen : self.seen + count])


def numbered(count: int, start: int = 0) -> Split:
    images = torch.zeros(count, 2, 3, 4, dtype=torch.uint8)
    return Split(images, torch.arange(start, start + count), *SCALE)


def held(reservoir: Reservoir) -> list[int]:
    return [] if reservoir.split is None else reservoir.split.labels.tolist()


@pytest.mark.parametrize("parts", [(6,), (1, 1, 1, 1, 1, 1), (3, 0, 3), (1, 5)])
def test_over_all_draws_every_set_of_images_is_kept_equally_often(parts: tuple[int, ...]) -> None:
    """Exact: the n-th draw is one of n values, all equally likely; 6! = 720 courses in all."""
    found: Counter[tuple[int, ...]] = Counter()
    for draws in itertools.product(*(range(n) for n in range(1, 7))):
        reservoir, start = Chosen(2), 0
        reservoir.draws = draws
        for count in parts:
            reservoir.add(numbered(count, start))
            start += count
        found[tuple(sorted(held(reservoir)))] += 1
    assert found == dict.fromkeys(itertools.combinations(range(6), 2), 720 // 15)


def test_draws_are_uniform_and_seeded() -> None:
    """Each of 40 images is held by 10 / 40 of the reservoirs, within 5 standard deviations."""
    trials, counts = 2000, torch.zeros(40)
    for seed in range(trials):
        reservoir = Reservoir(10, seed)
        reservoir.add(numbered(25))
        reservoir.add(numbered(15, 25))
        counts[held(reservoir)] += 1
        assert len(held(reservoir)) == 10
    assert (counts / trials - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / trials)
    one, two = Reservoir(10, 7), Reservoir(10, 7)
    for reservoir in (one, two):
        reservoir.add(numbered(40))
    assert held(one) == held(two)
    assert one.seen == 40


def test_images_stay_with_their_labels() -> None:
    split = some_split(60, 0)
    reservoir = Reservoir(20, 1)
    for rows in (slice(0, 35), slice(35, 60)):
        reservoir.add(replace(split, images=split.images[rows], labels=split.labels[rows]))
    assert reservoir.split is not None
    pairs = {(i.numpy().tobytes(), int(y)) for i, y in zip(split.images, split.labels, strict=True)}
    kept = zip(reservoir.split.images, reservoir.split.labels, strict=True)
    assert len({(i.numpy().tobytes(), int(y)) for i, y in kept} & pairs) == 20


def test_what_is_fewer_than_the_capacity_is_all_kept() -> None:
    reservoir = Reservoir(50)
    assert reservoir.split is None
    reservoir.add(numbered(20))
    reservoir.add(numbered(30, 20))
    assert held(reservoir) == list(range(50))


# Replay


def replayed(seed: int = 3) -> lifelong.Replay:
    new, old = numbered(30), numbered(10, 100)
    return lifelong.Replay(new.batches(4, seed), old.batches(4, seed, drop_last=True))


def test_every_minibatch_is_joined_by_a_remembered_one() -> None:
    batches = replayed()
    labels = [y.tolist() for _, y in batches]
    assert len(labels) == len(batches) == 8
    assert sorted(y for some in labels for y in some if y < 100) == list(range(30))
    for some in labels:
        old = [y for y in some if y >= 100]
        assert some[-4:] == old, "the new ones first"
        assert len(set(old)) == 4


def test_replay_goes_through_the_memory_before_it_repeats() -> None:
    old = numbered(12, 100).batches(4, 0, drop_last=True)
    labels = [y[-4:].tolist() for _, y in lifelong.Replay(numbered(36).batches(4, 0), old)]
    for start in (0, 3, 6):
        assert sorted(itertools.chain(*labels[start : start + 3])) == list(range(100, 112))
    assert labels[:3] != labels[3:6], "in another order"


def test_an_epoch_of_replay_depends_on_its_number_alone() -> None:
    one, two = replayed(), replayed()
    epochs = [[y.tolist() for _, y in one] for _ in range(3)]
    two.set_epoch(2)
    assert [y.tolist() for _, y in two] == epochs[2]
    assert epochs[0] != epochs[1] != epochs[2]


class Watched(nn.Module):
    """Remembers the images of every forward pass in training."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.seen = network(), []

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen.append(images)
        logits: Tensor = self.network(images)
        return logits


def test_all_gradients_of_a_step_see_one_minibatch_with_the_remembered_images(
    dataset: Dataset,
) -> None:
    """k + 1 = 4 a step: a step of the second task has 5 new images and 5 of the first task."""
    model, tasks = Watched(), split_classes(dataset, 2)
    learn(model, lookbehind, tasks, batch_size=5, gradients=12, memory=7)
    first, second = model.seen[:12], model.seen[12:]
    assert {len(images) for images in first} == {5}
    assert {len(images) for images in second} == {10}
    for some in (first, second):
        steps = [some[i : i + 4] for i in range(0, len(some), 4)]
        assert all(torch.equal(images, step[0]) for step in steps for images in step)
        assert not torch.equal(steps[0][0], steps[1][0])
    known = [next(iter(task.data.train.batches(18)))[0] for task in tasks]
    rows = {
        name: {i.numpy().tobytes() for i in some} for name, some in zip("ab", known, strict=True)
    }
    for images in second:
        assert all(i.numpy().tobytes() in rows["b"] for i in images[:5])
        assert all(i.numpy().tobytes() in rows["a"] for i in images[5:])


def test_a_memory_smaller_than_a_minibatch_is_replayed_whole(dataset: Dataset) -> None:
    model = Watched()
    learn(model, sgd, split_classes(dataset, 2), batch_size=6, epochs=1, memory=2)
    assert [len(images) for images in model.seen] == [6, 6, 6, 8, 8, 8]


# Learning a sequence


def by_hand(model: nn.Module, tasks: list[Task], loss: Any = cross_entropy) -> list[list[float]]:
    """R of "test", class-incremental, without replay."""
    rows = []
    for task in tasks:
        batches = task.data.train.batches(6, 4)
        fit(model, lookbehind(model), batches, gradients=24, splits={}, schedule=cosine, loss=loss)
        rows.append([evaluate(model, t.data.test.batches(99)).accuracy for t in tasks])
    return rows


def test_a_sequence_is_fit_on_one_task_after_the_other(dataset: Dataset) -> None:
    tasks, one, two = split_classes(dataset, 3), network(), network()
    found = learn(one, lookbehind, tasks, batch_size=6, gradients=24, seed=4)
    before = [evaluate(two, task.data.test.batches(99)).accuracy for task in tasks]
    expected = by_hand(two, tasks)
    assert identical(weights(one), weights(two))
    assert found.accuracy["test"].tolist() == expected
    assert found.before["test"].tolist() == before
    assert set(found.accuracy) == {"validation", "test"}
    assert not found.stopped


def test_jointly_is_fit_on_all_images_together(dataset: Dataset) -> None:
    tasks, one, two = split_classes(dataset, 3), network(), network()
    found = learn(one, sgd, tasks, batch_size=6, epochs=2, joint=True, seed=4)
    parts = [task.data.train for task in tasks]
    images, labels = torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
    fit(two, sgd(two), Split(images, labels, *SCALE).batches(6, 4), epochs=2, splits={})
    assert identical(weights(one), weights(two))
    scores = [evaluate(two, task.data.test.batches(99)).accuracy for task in tasks]
    assert found.accuracy["test"].tolist() == [scores]
    assert lifelong.average_accuracy(found.accuracy["test"]) == pytest.approx(sum(scores) / 3)


def test_task_incremental_learns_and_judges_within_the_classes_of_the_task(
    dataset: Dataset,
) -> None:
    """Oracle: a network of two logits, the rows of the last layer that the task has."""
    tasks = split_classes(dataset, 3, seed=1)
    model = network()
    found = learn(model, sgd, tasks[:1], batch_size=6, epochs=2, incremental="task")
    rows = list(tasks[0].classes)
    small = network()
    last = small[3]
    with torch.no_grad():
        last.weight, last.bias = (
            nn.Parameter(last.weight[rows].clone()), nn.Parameter(last.bias[rows].clone())
        )  # fmt: skip
    place = torch.zeros(6, dtype=torch.long)
    place[rows] = torch.arange(2)

    def relabelled(split: Split) -> Split:
        return replace(split, labels=place[split.labels])

    batches = relabelled(tasks[0].data.train).batches(6, 0)
    fit(small, sgd(small), batches, epochs=2, splits={})
    assert torch.allclose(model[3].weight[rows], last.weight, atol=1e-12)
    assert torch.allclose(model[1].weight, small[1].weight, atol=1e-12)
    others = [c for c in range(6) if c not in rows]
    assert torch.equal(model[3].weight[others], network()[3].weight[others])
    score = evaluate(small, relabelled(tasks[0].data.test).batches(99))
    assert found.accuracy["test"].tolist() == [[score.accuracy]]


def test_replayed_images_are_judged_within_their_own_task(dataset: Dataset) -> None:
    """One step on a new and a remembered task: the mean of both losses, each in its classes."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([4, 5, 0, 1])
    mates = lifelong._mates(split_classes(dataset, 3))
    loss = lifelong._loss_within(mates, cross_entropy, logits, labels)
    by_hand = [
        cross_entropy(logits[:2, 4:6], labels[:2] - 4, reduction="sum"),
        cross_entropy(logits[2:, 0:2], labels[2:], reduction="sum"),
    ]
    assert torch.allclose(loss, sum(by_hand) / 4, atol=1e-14)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[:2, :4], torch.zeros(2, 4))


def test_where_every_task_has_all_classes_both_are_the_same(dataset: Dataset) -> None:
    found = {}
    for incremental in ("task", "class"):
        model = network()
        found[incremental] = (
            learn(
                model, sgd, permuted(dataset, 2), batch_size=6, epochs=1, incremental=incremental
            ).accuracy["test"],
            weights(model),
        )
    assert torch.equal(found["task"][0], found["class"][0])
    assert identical(found["task"][1], found["class"][1])


def test_the_order_of_the_classes_is_forgotten_and_replay_helps(dataset: Dataset) -> None:
    tasks = split_classes(dataset, 3)
    R, F = {}, {}
    for memory in (0, 12):
        found = learn(network(32), sgd, tasks, batch_size=6, epochs=20, memory=memory)
        R[memory] = found.accuracy["test"]
        F[memory] = float(lifelong.average_forgetting(R[memory]))
    assert R[0].diagonal().min() > 0.9, "each task is learned"
    assert R[0][-1, :-1].max() < 0.1, "all but the last are forgotten"
    assert F[0] > F[12] + 0.3


@pytest.mark.parametrize("name", ["sgd", "lookbehind"])
@pytest.mark.parametrize("memory", [0, 5])
def test_a_stopped_sequence_goes_on_bit_for_bit(
    dataset: Dataset, tmp_path: Path, name: str, memory: int
) -> None:
    make = {"sgd": sgd, "lookbehind": lookbehind}[name]
    tasks = split_classes(dataset, 3)
    again = partial(learn, make_optimizer=make, tasks=tasks, batch_size=5, epochs=2, memory=memory)
    whole, first, second = network(), network(), network()
    expected = again(whole)
    asked = itertools.count()
    part = again(first, checkpoint=tmp_path, stop=lambda: next(asked) >= 9)  # in the second task
    assert part.stopped
    for split, R in part.accuracy.items():
        assert torch.equal(R[0], expected.accuracy[split][0])
        assert R[1:].isnan().all()
        assert R.shape == (3, 3)
    found = again(second, checkpoint=tmp_path, resume=True)
    assert not found.stopped
    assert identical(weights(second), weights(whole))
    for split, R in found.accuracy.items():
        assert torch.equal(R, expected.accuracy[split])
    with pytest.raises(ValueError, match="memory"):
        learn(
            network(), make, tasks, batch_size=5, epochs=2, memory=memory + 1, checkpoint=tmp_path,
            resume=True,
        )  # fmt: skip


def test_each_task_has_a_fresh_optimizer_and_what_learn_got_stays_as_it_was(
    dataset: Dataset,
) -> None:
    made: list[Any] = []

    def make(model: nn.Module) -> Any:
        made.append(SAM(sgd(model), 0.05))
        return made[-1]

    tasks = split_classes(dataset, 3)
    before = copy.deepcopy([task.data.train.images for task in tasks])
    learn(network(), make, tasks, batch_size=6, gradients=6, crop=1, flip=True, memory=9)
    assert len(made) == 3
    assert [task.data.train.images.tolist() for task in tasks] == [b.tolist() for b in before]


@pytest.mark.parametrize("incremental", ["task", "class"])
def test_a_sequence_that_diverges_says_where(dataset: Dataset, incremental: str) -> None:
    with pytest.raises(FloatingPointError, match="the loss on test of task 0 is not finite"):
        learn(
            network(), partial(sgd, lr=math.inf), split_classes(dataset, 2), batch_size=6, epochs=2,
            incremental=incremental,
        )  # fmt: skip


def test_wrong_arguments(dataset: Dataset) -> None:
    halves, thirds = split_classes(dataset, 2), split_classes(dataset, 3)
    start = partial(learn, network(), sgd, batch_size=6, epochs=1)
    with pytest.raises(ValueError, match="at least one task"):
        start([])
    with pytest.raises(ValueError, match='incremental must be "task" or "class", got \'domain\''):
        start(halves, incremental="domain")
    with pytest.raises(ValueError, match="memory must be an int ≥ 0, got -1"):
        start(halves, memory=-1)
    with pytest.raises(ValueError, match=r"same or disjoint .* got \(0, 1, 2\) and \(2, 3\)"):
        start([halves[0], thirds[1]], incremental="task")
    other = replace(halves[1], data=replace(halves[1].data, classes=tuple("uvwxyz")))
    with pytest.raises(ValueError, match="one problem"):
        start([halves[0], other])
    with pytest.raises(ValueError, match="exactly one of epochs and gradients"):
        learn(network(), sgd, halves, batch_size=6)


@pytest.mark.parametrize(("incremental", "memory"), [("class", 0), ("task", 5)])
def test_members_of_an_ensemble_learn_as_each_alone(
    dataset: Dataset, incremental: str, memory: int
) -> None:
    start = partial(
        learn, tasks=split_classes(dataset, 3), batch_size=5, gradients=12, memory=memory,
        incremental=incremental,
    )  # fmt: skip

    def make(model: nn.Module, rho: Any) -> Any:
        return Lookbehind(sgd(model), Ball(rho), k=2)

    alone = [start(network(), partial(make, rho=rho)) for rho in (0.02, 0.1)]
    many = Ensemble([network(), network()])
    make_many = partial(make, rho=torch.tensor([0.02, 0.1]))
    found = start(many, make_many, loss=member_cross_entropy, score=evaluate_members)
    for name, R in found.accuracy.items():
        assert R.shape == (2, 3, 3)
        assert found.before[name].shape == (2, 3)
        for e, one in enumerate(alone):
            assert torch.equal(R[e], one.accuracy[name])
            assert torch.equal(found.before[name][e], one.before[name])


def test_a_member_that_diverges_has_no_accuracy(dataset: Dataset) -> None:
    broken = network()
    with torch.no_grad():
        broken[3].bias.fill_(math.nan)
    found = learn(
        Ensemble([network(), broken]), sgd, split_classes(dataset, 2), batch_size=5, epochs=3,
        loss=member_cross_entropy, score=evaluate_members,
    )  # fmt: skip
    for R in found.accuracy.values():
        assert R[0].isfinite().all()
        assert R[1].isnan().all()


@pytest.mark.gpu
def test_a_sequence_on_a_gpu(dataset: Dataset) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        for incremental, tasks in (("task", 3), ("class", 2)):
            model = network().to(device)
            sequence = split_classes(dataset.to(device), tasks)
            learned = learn(
                model, lookbehind, sequence, batch_size=6, epochs=2, memory=8,
                incremental=incremental,
            )  # fmt: skip
            found[device, incremental] = learned.accuracy["test"]
            assert learned.accuracy["test"].device.type == "cpu"
            parts = weights(model)
            found[device, incremental, "weights"] = [w.detach().cpu() for w in parts]
    for incremental in ("task", "class"):
        assert torch.equal(found["cpu", incremental], found["cuda", incremental])
        both = (found[d, incremental, "weights"] for d in ("cpu", "cuda"))
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*both, strict=True))
    on = dataset.to("cuda")
    for sequence in (permuted(on, 2), rotated(on, [0, 30])):
        assert all(task.data.test.images.is_cuda for task in sequence)


# The stored study behind notebook 09

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script that makes it."""
    monkeypatch.syspath_prepend(str(RESULTS))
    yield import_module("lifelong")
    for name in ("lifelong", "stored"):
        sys.modules.pop(name, None)


def test_the_stored_study_is_whole(study: Any) -> None:
    text = (RESULTS / "lifelong.json").read_text(encoding="utf-8")
    assert len(text) < 100_000
    kept = json.loads(text)
    assert all(kept[key] for key in ("commit", "torch", "hardware"))
    assert Recipe(**kept["common"]) == study.COMMON
    assert (kept["methods"], kept["sequences"]) == (study.METHODS, study.SEQUENCES)
    points = [
        tuple(row[n] for n in ("name", "budget", "sequence", "memory")) for row in kept["runs"]
    ]
    assert points == list(
        itertools.product(study.METHODS, study.BUDGETS, study.SEQUENCES, study.MEMORIES)
    )
    for row in kept["runs"]:
        pairs = study.pairs(row["name"])
        assert list(zip(row["lr"], row["rho"], strict=True)) == pairs
        assert [len(values) for values in row["validation"]] == [len(study.SEEDS)] * len(pairs)
        assert len(row["forgetting"]) == len(pairs)


def test_a_member_of_the_study_is_the_run_that_the_notebook_makes(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sequence = "Lookbehind-SAM k 2", "permuted"
    monkeypatch.setattr(study, "pairs", lambda _: [(0.03, 0.05), (0.1, 0.0)])
    monkeypatch.setitem(study.SEQUENCES, sequence, {**study.SEQUENCES[sequence], "gradients": 9})
    accuracies, forgettings = study.measured(name, "equal gradients", sequence, 50, 1)
    for e, (lr, rho) in enumerate(study.pairs(name)):
        recipe = replace(study.COMMON, lr=lr, rho=rho, seed=1, **study.METHODS[name])
        data = recipe.load()
        alone = learn(
            recipe.make_model(data), recipe.make_optimizer, permuted(data, 3), batch_size=20,
            gradients=9, memory=50, seed=1,
        )  # fmt: skip
        R = alone.accuracy["validation"]
        assert accuracies[e] == pytest.approx(float(lifelong.average_accuracy(R)))
        assert forgettings[e] == pytest.approx(float(lifelong.average_forgetting(R)))


# What is read from R

R = torch.tensor(
    [
        [0.90, 0.30, 0.10],
        [0.60, 0.80, 0.20],
        [0.50, 0.85, 0.70],
    ],
    dtype=torch.float64,
)
BEFORE = torch.tensor([0.5, 0.1, 0.3], dtype=torch.float64)


def test_measures_of_a_matrix_worked_by_hand() -> None:
    assert lifelong.average_accuracy(R) == pytest.approx((0.50 + 0.85 + 0.70) / 3)
    f = [0.90 - 0.50, 0.80 - 0.85]
    assert lifelong.forgetting(R).tolist() == pytest.approx(f)
    assert lifelong.average_forgetting(R) == pytest.approx(sum(f) / 2)
    assert lifelong.backward_transfer(R) == pytest.approx((0.50 - 0.90 + 0.85 - 0.80) / 2)
    assert lifelong.forward_transfer(R, BEFORE) == pytest.approx((0.30 - 0.1 + 0.20 - 0.3) / 2)


def test_forgetting_is_from_the_best_accuracy_backward_transfer_from_the_first() -> None:
    """Task 0 gets better while task 1 is learned, and then worse."""
    some = torch.tensor([[0.6, 0.2, 0.1], [0.8, 0.7, 0.1], [0.5, 0.7, 0.9]])
    assert lifelong.forgetting(some).tolist() == pytest.approx([0.3, 0.0])
    assert lifelong.backward_transfer(some) == pytest.approx((-0.1 + 0.0) / 2)


def test_the_best_accuracy_may_be_from_before_the_task_was_learned() -> None:
    some = torch.tensor([[0.9, 0.75, 0.1], [0.9, 0.7, 0.1], [0.9, 0.6, 0.9]])
    assert lifelong.forgetting(some).tolist() == pytest.approx([0.0, 0.15])


def test_measures_of_many_matrices_at_once() -> None:
    many = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    before = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(1))
    for measure in (
        lifelong.average_accuracy, lifelong.forgetting, lifelong.average_forgetting,
        lifelong.backward_transfer,
    ):  # fmt: skip
        singly = [torch.stack([measure(one) for one in some]) for some in many]
        assert torch.allclose(measure(many), torch.stack(singly))
    singly = [
        [lifelong.forward_transfer(many[i, j], before[i, j]) for j in (0, 1)] for i in range(4)
    ]
    assert torch.allclose(lifelong.forward_transfer(many, before), torch.tensor(singly))
    assert (lifelong.backward_transfer(many) >= -lifelong.average_forgetting(many) - 1e-12).all()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1)])
def test_what_is_no_accuracy_matrix(shape: tuple[int, ...]) -> None:
    for measure in (lifelong.forgetting, lifelong.average_forgetting, lifelong.backward_transfer):
        with pytest.raises(ValueError, match=r"R must have shape \(\.\.\., T, T\)"):
            measure(torch.zeros(shape))
