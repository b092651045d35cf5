"""`learn`: replay in one closure, each task as `fit` learns it, ensembles, what goes wrong."""

import copy
import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from lessons import SCALE, lookbehind, network, sgd, six_classes  # noqa: F401
from problems import double_precision, identical  # noqa: F401
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.study import Ensemble, evaluate_members, lifelong, member_cross_entropy
from lookbehind.study.lifelong import learn, permuted, split_classes
from lookbehind.train import cosine, evaluate, fit
from lookbehind.train.data import Split


def watched():
    """A network, and a list of the images of every forward pass that it will do in training."""
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _, given: seen.extend(given if model.training else ()))
    return model, seen


def test_all_gradients_of_a_step_see_one_minibatch_with_the_remembered_images(dataset):
    """k + 1 = 4 a step: a step of the second task has 5 new images and 5 of the first task."""
    (model, seen), tasks = watched(), split_classes(dataset, 2)
    learn(model, lookbehind, tasks, batch_size=5, gradients=12, memory=7)
    first, second = seen[:12], seen[12:]
    assert {len(images) for images in first} == {5}
    assert {len(images) for images in second} == {10}
    for some in (first, second):
        steps = [some[i : i + 4] for i in range(0, len(some), 4)]
        assert all(torch.equal(images, step[0]) for step in steps for images in step)
        assert not torch.equal(steps[0][0], steps[1][0])
    known = [next(iter(task.data.train.batches(18)))[0] for task in tasks]
    old, new = ({i.numpy().tobytes() for i in some} for some in known)
    for images in second:
        found = [i.numpy().tobytes() for i in images]
        assert {*found[:5]} <= new and {*found[5:]} <= old


def test_a_memory_smaller_than_a_minibatch_is_replayed_whole_and_tasks_stay_as_they_were(dataset):
    (model, seen), tasks = watched(), split_classes(dataset, 2)
    before = copy.deepcopy([task.data.train.images for task in tasks])
    learn(model, sgd, tasks, batch_size=6, epochs=1, memory=2)
    assert [len(images) for images in seen] == [6, 6, 6, 8, 8, 8]
    assert identical([task.data.train.images for task in tasks], before)


def accuracies(model, tasks):
    return [evaluate(model, task.data.test.batches(99)).accuracy for task in tasks]


def test_a_sequence_is_fit_on_one_task_after_the_other(dataset):
    tasks, one, two, rows = split_classes(dataset, 3), network(), network(), []
    found = learn(one, lookbehind, tasks, batch_size=6, gradients=24, seed=4)
    for task in tasks:
        batches = task.data.train.batches(6, 4)
        fit(two, lookbehind(two), batches, gradients=24, splits={}, schedule=cosine)
        rows.append(accuracies(two, tasks))
    assert identical([*one.parameters()], [*two.parameters()])
    assert found.accuracy["test"].tolist() == rows
    assert set(found.accuracy) == {"validation", "test"} and not found.stopped


def test_jointly_is_fit_on_all_images_together(dataset):
    tasks, one, two = split_classes(dataset, 3), network(), network()
    found = learn(one, sgd, tasks, batch_size=6, epochs=2, joint=True, seed=4)
    parts = [task.data.train for task in tasks]
    images, labels = torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
    fit(two, sgd(two), Split(images, labels, *SCALE).batches(6, 4), epochs=2, splits={})
    assert identical([*one.parameters()], [*two.parameters()])
    assert found.accuracy["test"].tolist() == [accuracies(two, tasks)]


def test_task_incremental_learns_and_judges_within_the_classes_of_the_task(dataset):
    """Oracle: a network of two logits, the rows of the last layer that the task has."""
    model, small, (_, task, _) = network(), network(), split_classes(dataset, 3)
    found = learn(model, sgd, [task], batch_size=6, epochs=2, incremental="task")
    last, rows, others = small[3], [2, 3], [0, 1, 4, 5]
    last.weight, last.bias = (nn.Parameter(p.detach()[rows]) for p in (last.weight, last.bias))
    splits = task.data.train, task.data.test
    train, test = (replace(split, labels=split.labels - 2) for split in splits)
    fit(small, sgd(small), train.batches(6, 0), epochs=2, splits={})
    assert torch.allclose(model[3].weight[rows], last.weight, atol=1e-12)
    assert torch.allclose(model[1].weight, small[1].weight, atol=1e-12)
    assert torch.equal(model[3].weight[others], network()[3].weight[others])
    assert found.accuracy["test"].tolist() == [[evaluate(small, test.batches(99)).accuracy]]


def test_replayed_images_are_judged_within_their_own_task(dataset):
    """One step on a new and a remembered task: the mean of both losses, each in its classes."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([4, 5, 0, 1])
    groups = lifelong._groups(split_classes(dataset, 3), True, logits.device)
    loss = lifelong._loss_within(groups, cross_entropy, logits, labels)
    new = cross_entropy(logits[:2, 4:6], labels[:2] - 4)
    old = cross_entropy(logits[2:, 0:2], labels[2:])
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
    start = partial(learn, make_optimizer=sgd, tasks=tasks, batch_size=5, epochs=2)
    expected, asked = start(network()), itertools.count()
    part = start(network(), stop=lambda: next(asked) >= 9)  # in the second task
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
    none = replace(halves[1].data.test, labels=torch.zeros(0, dtype=torch.int64))
    lacking = replace(halves[1], data=replace(halves[1].data, test=none))
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


@pytest.mark.parametrize(("incremental", "memory"), [("class", 0), ("task", 5)])
def test_members_of_an_ensemble_learn_as_each_alone(dataset, incremental, memory):
    options = {"tasks": split_classes(dataset, 3), "batch_size": 5, "gradients": 12}
    start = partial(learn, incremental=incremental, memory=memory, **options)

    def make(model, rho):
        return Lookbehind(sgd(model), Ball(rho), k=2)

    alone = [start(network(), partial(make, rho=rho)) for rho in (0.02, 0.1)]
    many = Ensemble([network(), network()])
    make_many = partial(make, rho=torch.tensor([0.02, 0.1]))
    found = start(many, make_many, loss=member_cross_entropy, score=evaluate_members)
    for name, R in found.accuracy.items():
        assert torch.equal(R, torch.stack([one.accuracy[name] for one in alone]))


def test_a_member_that_diverges_has_no_accuracy(dataset):
    broken = network()
    nn.init.constant_(broken[3].bias, math.nan)
    both, tasks = Ensemble([network(), broken]), split_classes(dataset, 2)
    kinds = {"loss": member_cross_entropy, "score": evaluate_members}
    for R in learn(both, sgd, tasks, batch_size=5, epochs=3, **kinds).accuracy.values():
        assert R[0].isfinite().all() and R[1].isnan().all()


@pytest.mark.parametrize("memory", [0, 6])
def test_label_smoothing_is_within_the_classes_of_a_task(dataset, memory):
    loss = partial(cross_entropy, label_smoothing=0.2)
    model, tasks = network(), split_classes(dataset, 3)
    found = learn(model, partial(sgd, lr=0.02), tasks, batch_size=6, epochs=8, incremental="task",
                  memory=memory, loss=loss)  # fmt: skip
    assert found.accuracy["test"].diagonal().mean() > 0.7


@pytest.mark.parametrize("incremental", ["task", "class"])
def test_more_outputs_than_classes_are_classes_to_come(dataset, incremental):
    model, tasks = network(), split_classes(dataset, 3)
    model[3] = nn.Linear(8, 9).double()
    before = model[3].weight[6:].detach().clone()
    found = learn(model, sgd, tasks, batch_size=6, epochs=2, incremental=incremental)
    assert found.accuracy["test"].isfinite().all()
    assert torch.equal(model[3].weight[6:], before) == (incremental == "task")


def test_fewer_outputs_than_classes_are_named(dataset):
    model = network()
    model[3] = nn.Linear(8, 3).double()
    with pytest.raises(ValueError, match="labels from 2 to 3"):
        learn(model, sgd, split_classes(dataset, 3), batch_size=6, epochs=1)


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
