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


def test_a_class_split_gives_every_image_to_the_task_of_its_label(dataset):
    tasks = split_classes(dataset, 3)
    assert [task.classes for task in tasks] == [(0, 1), (2, 3), (4, 5)]
    for task in tasks:
        assert task.data.classes == dataset.classes
        for name, whole in dataset.splits.items():
            found = task.data.splits[name]
            mine = [i for i, label in enumerate(whole.labels.tolist()) if label in task.classes]
            assert torch.equal(found.images, whole.images[mine])
            assert torch.equal(found.labels, whole.labels[mine]) and found.mean is whole.mean
            assert name != "train" or torch.equal(task.data.noisy, dataset.noisy[mine])


def test_permuted_tasks_have_one_order_of_pixels_for_all_images(dataset):
    dataset.train.images[0, 0] = torch.arange(12).view(3, 4)  # so that the order can be read
    tasks = permuted(dataset, 3, seed=5)
    assert torch.equal(tasks[0].data.test.images, dataset.test.images)
    orders = [task.data.train.images[0, 0].flatten().long() for task in tasks]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    for task, order in zip(tasks, orders, strict=True):
        assert sorted(order.tolist()) == list(range(12)) and task.classes == tuple(range(6))
        for one, whole in zip(*(d.splits.values() for d in (task.data, dataset)), strict=True):
            assert torch.equal(one.images.flatten(2), whole.images.flatten(2)[..., order])
            assert torch.equal(one.labels, whole.labels)
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


def numbered(count, start=0):
    images = torch.zeros(count, 2, 3, 4, dtype=torch.uint8)
    return Split(images, torch.arange(start, start + count), *SCALE)


def held(reservoir):
    return reservoir.split.labels.tolist()


@pytest.mark.parametrize("parts", [(6,), (1, 1, 1, 1, 1, 1), (3, 0, 3), (1, 5)])
def test_over_all_draws_every_set_of_images_is_kept_equally_often(parts):
    """Exact: the n-th draw is one of n values, all equally likely; 6! = 720 courses in all."""
    found = Counter()
    for draws in itertools.product(*(range(n) for n in range(1, 7))):
        reservoir, left = Reservoir(2), iter(draws)
        reservoir._places = lambda count, left=left: [*itertools.islice(left, count)]
        for count in parts:
            reservoir.add(numbered(count, reservoir.seen))
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
    one, two = Reservoir(10, 7), Reservoir(10, 7)
    one.add(numbered(40))
    two.add(numbered(40))
    assert held(one) == held(two) and one.seen == 40


@pytest.mark.parametrize("memory", [20, 99])
def test_images_stay_with_their_labels_all_where_there_is_room(memory):
    split, reservoir = some_split(60, 0), Reservoir(memory, 1)
    assert reservoir.split is None
    for rows in (slice(0, 35), slice(35, 60)):
        reservoir.add(replace(split, images=split.images[rows], labels=split.labels[rows]))
    pairs, kept = (
        {(i.numpy().tobytes(), int(y)) for i, y in zip(some.images, some.labels, strict=True)}
        for some in (split, reservoir.split)
    )
    assert len(kept & pairs) == len(reservoir.split) == min(memory, 60)


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


@pytest.mark.parametrize("shape", [(), (1, 2)])
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
def test_measures_of_matrices_worked_by_hand(R, f, shape):
    many, accuracy, forgetting = torch.tensor(R).expand(*shape, 3, 3), sum(R[-1]) / 3, sum(f) / 2
    torch.testing.assert_close(lifelong.average_accuracy(many), torch.full(shape, accuracy))
    torch.testing.assert_close(lifelong.average_forgetting(many), torch.full(shape, forgetting))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1)])
def test_what_is_no_accuracy_matrix(shape):
    with pytest.raises(ValueError, match=r"R must have shape \(\.\.\., T, T\)"):
        lifelong.average_forgetting(torch.zeros(shape))
