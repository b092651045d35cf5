"""`lifelong`: task sequences, the reservoir, replay, and what is read from R."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from lessons import SCALE, six_classes, some_split  # noqa: F401
from problems import double_precision  # noqa: F401

from lookbehind.study import lifelong
from lookbehind.study.lifelong import Reservoir, permuted, split_classes
from lookbehind.train.data import Split

# Sequences


def test_a_class_split_gives_every_image_to_the_task_of_its_label(dataset):
    tasks = split_classes(dataset, 3)
    assert [task.classes for task in tasks] == [(0, 1), (2, 3), (4, 5)]
    for task in tasks:
        assert task.data.classes == dataset.classes
        for name, whole in dataset.splits.items():
            mine = [i for i, label in enumerate(whole.labels.tolist()) if label in task.classes]
            assert torch.equal(task.data.splits[name].images, whole.images[mine])
            assert torch.equal(task.data.splits[name].labels, whole.labels[mine])
            assert task.data.splits[name].mean is whole.mean
        mine = [i for i, y in enumerate(dataset.train.labels.tolist()) if y in task.classes]
        assert torch.equal(task.data.noisy, dataset.noisy[mine])


def test_permuted_tasks_have_one_order_of_pixels_for_all_images(dataset):
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
        for name in ("test", "validation"):
            one, whole = task.data.splits[name], dataset.splits[name]
            assert torch.equal(one.images.flatten(2), whole.images.flatten(2)[..., order])
            assert torch.equal(one.labels, whole.labels)
        assert task.classes == tuple(range(6))
    again, other = (permuted(dataset, 3, seed=s)[2].data.test.images for s in (5, 6))
    assert torch.equal(again, tasks[2].data.test.images) and not torch.equal(again, other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: split_classes(d, 4), "tasks must divide the number of classes, 6; got 4"),
        (lambda d: split_classes(d, 0), "tasks must be an int ≥ 1, got 0"),
        (lambda d: split_classes(d, 2.0), "tasks must be an int ≥ 1, got 2.0"),
        (lambda d: permuted(d, True), "tasks must be an int ≥ 1, got True"),
        (lambda d: permuted(d, 2, seed=-1), "seed must be an int ≥ 0, got -1"),
        (  # only of classes a, b, c
            lambda d: split_classes(replace(d, validation=some_split(3, 1)), 2),
            "the validation split has none of d, e, f",
        ),
    ],
)
def test_what_makes_no_sequence(dataset, make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(dataset)
    none = replace(dataset, validation=some_split(0, 0))  # which is fine
    for tasks in (split_classes(none, 2), permuted(none, 2)):
        assert all(set(task.data.splits) == {"train", "test"} for task in tasks)


# The reservoir


class Chosen(Reservoir):
    """A reservoir whose draws are given."""

    draws: tuple[int, ...] = ()

    def _places(self, count):
        return list(self.draws[self.seen : self.seen + count])


def numbered(count, start=0):
    images = torch.zeros(count, 2, 3, 4, dtype=torch.uint8)
    return Split(images, torch.arange(start, start + count), *SCALE)


def held(reservoir):
    return [] if reservoir.split is None else reservoir.split.labels.tolist()


@pytest.mark.parametrize("parts", [(6,), (1, 1, 1, 1, 1, 1), (3, 0, 3), (1, 5)])
def test_over_all_draws_every_set_of_images_is_kept_equally_often(parts):
    """Exact: the n-th draw is one of n values, all equally likely; 6! = 720 courses in all."""
    found = Counter()
    for draws in itertools.product(*(range(n) for n in range(1, 7))):
        reservoir, start = Chosen(2), 0
        reservoir.draws = draws
        for count in parts:
            reservoir.add(numbered(count, start))
            start += count
        found[tuple(sorted(held(reservoir)))] += 1
    assert found == dict.fromkeys(itertools.combinations(range(6), 2), 720 // 15)


def test_draws_are_uniform_and_seeded():
    """Each of 40 images is held by 10 / 40 of the reservoirs, within 5 standard deviations."""
    trials, counts = 2000, torch.zeros(40)
    for seed in range(trials):
        reservoir = Reservoir(10, seed)
        reservoir.add(numbered(25))
        reservoir.add(numbered(15, 25))
        counts[held(reservoir)] += 1
        assert len(held(reservoir)) == 10
    assert (counts / trials - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / trials)
    one, two = pair = Reservoir(10, 7), Reservoir(10, 7)
    for reservoir in pair:
        reservoir.add(numbered(40))
    assert held(one) == held(two) and one.seen == 40


def test_images_stay_with_their_labels():
    split, reservoir = some_split(60, 0), Reservoir(20, 1)
    for rows in (slice(0, 35), slice(35, 60)):
        reservoir.add(replace(split, images=split.images[rows], labels=split.labels[rows]))
    pairs, kept = (
        {(i.numpy().tobytes(), int(y)) for i, y in zip(some.images, some.labels, strict=True)}
        for some in (split, reservoir.split)
    )
    assert len(kept & pairs) == 20


def test_what_is_fewer_than_the_capacity_is_all_kept():
    reservoir = Reservoir(50)
    assert reservoir.split is None
    reservoir.add(numbered(20))
    reservoir.add(numbered(30, 20))
    assert held(reservoir) == list(range(50))


# Replay


def replayed():
    new, old = numbered(30), numbered(13, 100)
    return lifelong.Replay(new.batches(4, 3), old.batches(4, 3, drop_last=True))


def test_every_minibatch_is_joined_by_a_remembered_one_from_all_of_the_memory():
    labels = [y.tolist() for _, y in replayed()]
    assert len(labels) == len(replayed()) == 8
    assert sorted(itertools.chain(*(some[:-4] for some in labels))) == list(range(30))
    old = [some[-4:] for some in labels]
    for start in (0, 3):  # a pass over the memory, in 3 minibatches of 4
        seen = set(itertools.chain(*old[start : start + 3]))
        assert len(seen) == 12 and seen <= set(range(100, 113))
    assert old[:3] != old[3:6], "in another order"


def test_an_epoch_of_replay_depends_on_its_number_alone():
    one, two = replayed(), replayed()
    epochs = [[y.tolist() for _, y in one] for _ in range(3)]
    two.set_epoch(2)
    assert [y.tolist() for _, y in two] == epochs[2]
    assert epochs[0] != epochs[1] != epochs[2]


# What is read from R


@pytest.mark.parametrize(
    ("R", "f"),
    [
        ([[0.9, 0.3, 0.1], [0.6, 0.8, 0.2], [0.5, 0.85, 0.7]], [0.9 - 0.5, 0.8 - 0.85]),
        # Task 0 gets better while task 1 is learned, and then worse.
        ([[0.6, 0.2, 0.1], [0.8, 0.7, 0.1], [0.5, 0.7, 0.9]], [0.8 - 0.5, 0.0]),
        # Task 1 was at its best before it was learned.
        ([[0.9, 0.75, 0.1], [0.9, 0.7, 0.1], [0.9, 0.6, 0.9]], [0.0, 0.75 - 0.6]),
    ],
)
def test_measures_of_matrices_worked_by_hand(R, f):
    accuracy, forgetting = sum(R[-1]) / 3, sum(f) / 2
    assert lifelong.average_accuracy(torch.tensor(R)) == pytest.approx(accuracy)
    assert lifelong.average_forgetting(torch.tensor(R)) == pytest.approx(forgetting)
    many = torch.tensor([R, R])[None]
    assert lifelong.average_accuracy(many)[0].tolist() == pytest.approx([accuracy] * 2)
    assert lifelong.average_forgetting(many)[0].tolist() == pytest.approx([forgetting] * 2)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1)])
def test_what_is_no_accuracy_matrix(shape):
    with pytest.raises(ValueError, match=r"R must have shape \(\.\.\., T, T\)"):
        lifelong.average_forgetting(torch.zeros(shape))
