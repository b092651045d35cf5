"""What a study was not made for: it works, or says what is allowed."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import network, sgd, six_classes  # noqa: F401
from problems import double_precision  # noqa: F401
from sweeps import CPU, FOUR, run_here
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

from lookbehind import Ball, Lookbehind
from lookbehind.study import Ensemble, evaluate_members, member_cross_entropy, sweep
from lookbehind.study.lifelong import learn, split_classes
from lookbehind.train import fit

RESULTS = {
    "tensor": (torch.tensor(0.5), 0.5),
    "with a gradient": (torch.tensor(0.5, requires_grad=True), 0.5),
    "vector": (torch.arange(3), [0, 1, 2]),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(3), 3),
    "array": (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
    "inside": (
        {"a": [np.float64(1), torch.ones(1)], "b": (1, 2)},
        {"a": [1.0, [1.0]], "b": [1, 2]},
    ),
    "none": (None, None),
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_a_measure_gives_is_plain_as_it_is_read_again(name, tmp_path):
    value, expected = RESULTS[name]
    measures = {"it": lambda model, dataset: value}
    path = tmp_path / "runs.jsonl"
    (row,) = sweep(FOUR[:1], path, measures=measures, hardware=CPU)
    assert row["it"] == expected and str(row["it"]) == str(expected)
    assert sweep(FOUR[:1], path, measures=measures, hardware=CPU) == [row]


@pytest.mark.parametrize("value", [nn.Linear(1, 1), {1, 2}, 1j, {(1, 2): 3}, Path("a")])
@pytest.mark.parametrize("kept", [False, True])
def test_what_a_measure_cant_give_is_the_error_of_its_run(value, kept, tmp_path):
    calls = iter(range(4))
    measures = {"it": lambda model, dataset: value if next(calls) == 1 else 1.0}
    rows = run_here(FOUR, tmp_path / "runs.jsonl" if kept else None, measures=measures)
    assert [row.get("it") for row in rows] == [1.0, None, 1.0, 1.0]
    assert rows[1]["recipe"] == asdict(FOUR[1]) and "TypeError: " in rows[1]["error"]


@pytest.mark.parametrize("memory", [0, 6])
def test_label_smoothing_is_within_the_classes_of_a_task(dataset, memory):
    loss = partial(cross_entropy, label_smoothing=0.2)
    model, tasks = network(), split_classes(dataset, 3)
    found = learn(model, partial(sgd, lr=0.02), tasks, batch_size=6, epochs=8, incremental="task",
                  memory=memory, loss=loss)  # fmt: skip
    assert found.accuracy["test"].diagonal().mean() > 0.7
    smooth = partial(member_cross_entropy, label_smoothing=0.2)
    ensemble = Ensemble([network(), network()])
    both = learn(ensemble, partial(sgd, lr=0.02), tasks, batch_size=6, epochs=8, memory=memory,
                 incremental="task", loss=smooth, score=evaluate_members)  # fmt: skip
    for accuracy in both.accuracy["test"]:
        torch.testing.assert_close(accuracy, found.accuracy["test"], equal_nan=True)


@pytest.mark.parametrize("incremental", ["task", "class"])
def test_more_outputs_than_classes_are_classes_to_come(dataset, incremental):
    model, tasks = network(), split_classes(dataset, 3)
    model[3] = nn.Linear(8, 9).double()
    before = model[3].weight[6:].detach().clone()
    found = learn(model, sgd, tasks, batch_size=6, epochs=2, incremental=incremental)
    assert found.accuracy["test"].isfinite().all()
    assert torch.equal(model[3].weight[6:], before) == (incremental == "task")


def test_fewer_outputs_than_classes_and_tasks_without_images_are_named(dataset):
    model, tasks = network(), split_classes(dataset, 3)
    model[3] = nn.Linear(8, 3).double()
    with pytest.raises(ValueError, match="labels from 2 to 3"):
        learn(model, sgd, tasks, batch_size=6, epochs=1)
    for split in ("test", "validation"):
        none = replace(tasks[1].data.splits[split], labels=torch.zeros(0, dtype=torch.int64))
        lacking = replace(tasks[1], data=replace(tasks[1].data, **{split: none}))
        with pytest.raises(ValueError, match="tasks must have images in the same splits, got"):
            learn(network(), sgd, [tasks[0], lacking], batch_size=6, epochs=1)


def made(kind, seed):
    """An MLP and one with a convolution, some of their weights made of others."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        if "conv" in kind:
            model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3))
        layer = model[0] if "conv" in kind else model[1]
        if "pruned" in kind:
            prune.l1_unstructured(layer, "weight", amount=0.5)
        elif "hook" in kind:
            with pytest.warns(FutureWarning, match="weight_norm"):
                torch.nn.utils.weight_norm(layer)
        else:
            parametrizations.weight_norm(layer)
    return model


@pytest.mark.parametrize(
    "kind", [f"{what}{by}" for what in ("mlp", "conv") for by in (", pruned", ", hook", "")]
)
def test_pruned_and_weight_normed_members_are_what_they_are_alone(kind):
    x, y = torch.randn(12, 2, 2, 2), torch.arange(12) % 3
    models = [made(kind, seed) for seed in range(3)]
    for model in models:
        model(x)  # leaves a tensor with a history
    ensemble, data = Ensemble(models), [(x[:6], y[:6]), (x[6:], y[6:])]
    outputs = torch.stack([model(x) for model in models])
    torch.testing.assert_close(ensemble(x), outputs)

    def trained(model, rho, loss):
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        fit(model, Lookbehind(base, Ball(rho), k=2), data, epochs=2, splits={}, loss=loss)

    trained(ensemble, torch.full((3,), 0.05), member_cross_entropy)
    for e, model in enumerate(models):
        trained(model, 0.05, None)
        member = ensemble.member(e)
        torch.testing.assert_close([*member.state_dict().values()], [*model.state_dict().values()])
        layer = member[0] if "conv" in kind else member[1]
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.detach().clone()  # before any forward pass
        torch.testing.assert_close(member(x), model(x))
        assert torch.equal(weight, layer.weight)
