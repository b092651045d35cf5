"""`lifelong`: task sequences, the reservoir, replay, each task as `fit` learns it, matrices R."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from problems import double_precision, identical  # noqa: F401
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.study import Ensemble, evaluate_members, lifelong, member_cross_entropy
from lookbehind.study.lifelong import Reservoir, learn, permuted, split_classes
from lookbehind.train import cosine, evaluate, fit
from lookbehind.train.data import Dataset, Split

SCALE = (torch.tensor([100.0, 110.0]), torch.tensor([50.0, 60.0]))


def some_split(count, seed):
    """Each of six classes in turn, written into a bright pixel, so that it can be learned."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(90, (count, 2, 3, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 6
    images.flatten(1)[torch.arange(count), labels] = 255
    return Split(images, labels, *SCALE)


@pytest.fixture
def dataset():
    noisy = torch.arange(36) < 6
    return Dataset(some_split(36, 0), some_split(12, 1), some_split(18, 2), noisy, tuple("abcdef"))


def network(out=6):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, out)).double()


def sgd(model, lr=0.05):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def lookbehind(model, rho=0.05):
    return Lookbehind(sgd(model), Ball(rho), k=3, alpha=0.5)


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
        (lambda _: lifelong.average_forgetting(torch.zeros(3)), r"R must have shape \(.*, T, T\)"),
        (lambda _: lifelong.average_forgetting(torch.zeros(2, 3)), r"T ≥ 2 tasks; got \(2, 3\)"),
        (lambda _: lifelong.average_forgetting(torch.zeros(1, 1)), r"tasks; got \(1, 1\)"),
    ],
)
def test_what_makes_no_sequence_and_is_no_matrix(dataset, make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(dataset)
    none = replace(dataset, validation=some_split(0, 0))  # which is fine
    for tasks in (split_classes(none, 2), permuted(none, 2)):
        assert all(set(task.data.splits) == {"train", "test"} for task in tasks)


def numbered(count, start=0):
    return replace(some_split(count, 0), labels=torch.arange(start, start + count))


@pytest.mark.parametrize("parts", [(6,), (1, 1, 1, 1, 1, 1), (3, 0, 3), (1, 5)])
def test_over_all_draws_every_set_of_images_is_kept_equally_often(parts):
    """Exact: the n-th draw is one of n values, all equally likely; 6! = 720 courses in all."""
    found = Counter()
    for draws in itertools.product(*(range(n) for n in range(1, 7))):
        reservoir, left = Reservoir(2), iter(draws)
        reservoir._places = lambda count, left=left: [*itertools.islice(left, count)]
        for count in parts:
            reservoir.add(numbered(count, reservoir.seen))
        found[tuple(sorted(reservoir.split.labels.tolist()))] += 1
    assert found == dict.fromkeys(itertools.combinations(range(6), 2), 720 // 15)


def test_draws_are_uniform_and_seeded():
    """Each of 40 images is held by 10 / 40 of the reservoirs, within 5 standard deviations."""
    trials, counts = 2000, torch.zeros(40)
    for seed in range(trials):
        reservoir = Reservoir(10, seed)
        reservoir.add(numbered(25))
        reservoir.add(numbered(15, 25))
        counts[reservoir.split.labels] += 1
        assert len(reservoir.split) == 10 and reservoir.seen == 40
    assert (counts / trials - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / trials)
    again = Reservoir(10, seed)
    again.add(numbered(25))
    again.add(numbered(15, 25))
    assert torch.equal(again.split.labels, reservoir.split.labels)


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


def watched():
    """A network, and a list of the images of every forward pass that it will do in training."""
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _, given: seen.extend(given if model.training else ()))
    return model, seen


def test_all_gradients_of_a_step_see_one_minibatch_with_the_remembered_images(dataset):
    """k + 1 = 4 a step: a step of the second task has 5 new images and 5 of the first task."""
    (model, seen), tasks = watched(), split_classes(dataset, 2)
    learn(model, lookbehind, tasks, batch_size=5, gradients=12, memory=7)
    assert [len(images) for images in seen] == [5] * 12 + [10] * 12
    steps = [seen[i : i + 4] for i in range(0, 24, 4)]
    assert all(torch.equal(images, step[0]) for step in steps for images in step)
    assert not any(torch.equal(steps[i][0], steps[i + 1][0]) for i in (0, 3))
    known = [next(iter(task.data.train.batches(18)))[0] for task in tasks]
    old, new = ({i.numpy().tobytes() for i in some} for some in known)
    for images in seen[12:]:
        found = [i.numpy().tobytes() for i in images]
        assert {*found[:5]} <= new and {*found[5:]} <= old


def test_a_memory_smaller_than_a_minibatch_is_replayed_whole_and_tasks_stay_as_they_were(dataset):
    (model, seen), tasks = watched(), split_classes(dataset, 2)
    before = [task.data.train.images.clone() for task in tasks]
    learn(model, sgd, tasks, batch_size=6, epochs=1, memory=2)
    assert [len(images) for images in seen] == [6, 6, 6, 8, 8, 8]
    assert identical([task.data.train.images for task in tasks], before)


@pytest.mark.parametrize(("joint", "budget"), [(False, {"gradients": 24}), (True, {"epochs": 2})])
def test_a_sequence_is_fit_on_one_task_after_the_other_or_on_all_together(dataset, joint, budget):
    tasks, one, two, rows = split_classes(dataset, 3), network(), network(), []
    found = learn(one, lookbehind, tasks, batch_size=6, joint=joint, seed=4, **budget)
    parts = [task.data.train for task in tasks]
    images, labels = torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
    for lesson in [Split(images, labels, *SCALE)] if joint else parts:
        fit(two, lookbehind(two), lesson.batches(6, 4), splits={}, schedule=cosine, **budget)
        rows.append([evaluate(two, task.data.test.batches(99)).accuracy for task in tasks])
    assert identical([*one.parameters()], [*two.parameters()])
    assert found.accuracy["test"].tolist() == rows
    assert set(found.accuracy) == {"validation", "test"} and not found.stopped


def test_task_incremental_learns_and_judges_within_the_classes_of_the_task(dataset):
    """Oracle: a network of two logits, the rows of the last layer that the task has."""
    model, small, (_, task, _) = network(), network(), split_classes(dataset, 3)
    found = learn(model, sgd, [task], batch_size=6, epochs=2, incremental="task")
    last, rows, others = small[3], [2, 3], [0, 1, 4, 5]
    last.weight, last.bias = (nn.Parameter(p.detach()[rows]) for p in (last.weight, last.bias))
    train, test = (replace(s, labels=s.labels - 2) for s in (task.data.train, task.data.test))
    fit(small, sgd(small), train.batches(6, 0), epochs=2, splits={})
    assert torch.allclose(model[3].weight[rows], last.weight, atol=1e-12)
    assert torch.allclose(model[1].weight, small[1].weight, atol=1e-12)
    assert torch.equal(model[3].weight[others], network()[3].weight[others])
    assert found.accuracy["test"].tolist() == [[evaluate(small, test.batches(99)).accuracy]]


def test_replayed_images_are_judged_within_their_own_task(dataset):
    """The mean of both losses, each in its classes: smoothing would make −∞ of a masked logit."""
    loss_of = partial(cross_entropy, label_smoothing=0.2)
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([4, 5, 0, 1])
    groups = lifelong._groups(split_classes(dataset, 3), True, logits.device)
    loss = lifelong._loss_within(groups, loss_of, logits, labels)
    new, old = loss_of(logits[:2, 4:6], labels[:2] - 4), loss_of(logits[2:, 0:2], labels[2:])
    assert torch.allclose(loss, (new + old) / 2, atol=1e-14)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all() and not gradient[:2, :4].any()


def test_where_every_task_has_all_classes_both_are_the_same(dataset):
    one, two, tasks = network(), network(), permuted(dataset, 2)
    start = partial(learn, make_optimizer=sgd, tasks=tasks, batch_size=6, epochs=1)
    first, second = start(one, incremental="task"), start(two, incremental="class")
    assert torch.equal(first.accuracy["test"], second.accuracy["test"])
    assert identical([*one.parameters()], [*two.parameters()])


def test_a_stopped_sequence_has_the_rows_of_what_was_learned(dataset):
    tasks = split_classes(dataset, 3)
    run = partial(learn, make_optimizer=sgd, tasks=tasks, batch_size=5, epochs=2)
    expected, asked = run(network()), itertools.count()
    part = run(network(), stop=lambda: next(asked) >= 9)  # in the second task
    assert part.stopped
    for split, R in part.accuracy.items():
        assert torch.equal(R[0], expected.accuracy[split][0])
        assert R[1:].isnan().all() and R.shape == (3, 3)


@pytest.mark.parametrize("incremental", ["task", "class"])
def test_a_sequence_that_diverges_says_where(dataset, incremental):
    tasks, options = split_classes(dataset, 2), {"batch_size": 6, "incremental": incremental}
    with pytest.raises(FloatingPointError, match="the loss on test of task 0 is not finite"):
        learn(network(), partial(sgd, lr=math.inf), tasks, epochs=2, **options)


def test_wrong_arguments(dataset):
    halves, thirds = split_classes(dataset, 2), split_classes(dataset, 3)
    other = replace(halves[1], data=replace(halves[1].data, classes=tuple("uvwxyz")))
    lacking = replace(halves[1], data=replace(halves[1].data, test=some_split(0, 0)))
    for tasks, options, message in (
        ([], {}, "at least one task"),
        (halves, {"incremental": "domain"}, 'incremental must be "task" or "class", got .domain.'),
        (halves, {"memory": -1}, "memory must be an int ≥ 0, got -1"),
        ([halves[0], thirds[1]], {"incremental": "task"}, r"disjoint .* \(0, 1, 2\) and \(2, 3\)"),
        ([halves[0], other], {}, "one problem"),
        ([halves[0], lacking], {}, "tasks must have images in the same splits, got"),
        (halves, {"epochs": None}, "exactly one of epochs and gradients"),
    ):
        with pytest.raises(ValueError, match=message):
            learn(network(), sgd, tasks, batch_size=6, **{"epochs": 1, **options})
    with pytest.raises(ValueError, match="labels from 2 to 3"):
        learn(network(3), sgd, thirds, batch_size=6, epochs=1)


@pytest.mark.parametrize(("incremental", "memory"), [("class", 0), ("task", 5)])
def test_members_of_an_ensemble_learn_as_each_alone(dataset, incremental, memory):
    options = {"tasks": split_classes(dataset, 3), "batch_size": 5, "gradients": 12}
    start = partial(learn, incremental=incremental, memory=memory, **options)
    alone = [start(network(), partial(lookbehind, rho=rho)) for rho in (0.02, 0.1)]
    many, make = Ensemble([network()] * 2), partial(lookbehind, rho=torch.tensor([0.02, 0.1]))
    found = start(many, make, loss=member_cross_entropy, score=evaluate_members)
    for name, R in found.accuracy.items():
        assert torch.equal(R, torch.stack([one.accuracy[name] for one in alone]))


def test_a_member_that_diverges_has_no_accuracy(dataset):
    both, tasks = Ensemble([network()] * 2), split_classes(dataset, 2)
    nn.init.constant_(both.state_dict()["3.bias"][1], math.nan)
    kinds = {"loss": member_cross_entropy, "score": evaluate_members}
    for R in learn(both, sgd, tasks, batch_size=5, epochs=3, **kinds).accuracy.values():
        assert R[0].isfinite().all() and R[1].isnan().all()


@pytest.mark.parametrize("incremental", ["task", "class"])
def test_more_outputs_than_classes_are_classes_to_come(dataset, incremental):
    model, tasks = network(9), split_classes(dataset, 3)
    before = model[3].weight[6:].detach().clone()
    found = learn(model, sgd, tasks, batch_size=6, epochs=2, incremental=incremental)
    assert found.accuracy["test"].isfinite().all()
    assert torch.equal(model[3].weight[6:], before) == (incremental == "task")


@pytest.mark.gpu
def test_a_sequence_on_a_gpu(dataset):
    for incremental, tasks in (("task", 3), ("class", 2)):
        found = []
        for device in ("cpu", "cuda"):
            model, sequence = network().to(device), split_classes(dataset.to(device), tasks)
            options = {"batch_size": 6, "memory": 8, "incremental": incremental}
            R = learn(model, lookbehind, sequence, epochs=2, **options).accuracy["test"]
            assert R.device.type == "cpu"
            found.append([R, *(w.detach().cpu() for w in model.parameters())])
        assert torch.equal(found[0][0], found[1][0])
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*found, strict=True))
    assert all(task.data.test.images.is_cuda for task in permuted(dataset.to("cuda"), 2))
