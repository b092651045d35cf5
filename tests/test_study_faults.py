"""What a study was not made for: it works, or says what is allowed."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import network, sgd, six_classes  # noqa: F401
from problems import double_precision  # noqa: F401
from sweeps import FOUR, refuses, run_here
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

from lookbehind import Ball, Lookbehind
from lookbehind.study import Ensemble, member_cross_entropy
from lookbehind.study.lifelong import learn, split_classes
from lookbehind.train import fit

# What a measure gives, and how it is read again.
RESULTS = {
    "tensor": (torch.tensor(0.5), 0.5),
    "with a gradient": (torch.tensor(0.5, requires_grad=True), 0.5),
    "vector": (torch.arange(3), [0, 1, 2]),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(3), 3),
    "array": (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
    "list": ([np.float64(1), torch.ones(1), (1, 2)], [1.0, [1.0], [1, 2]]),
    "none": (None, None),
}


def test_what_a_measure_gives_is_plain_as_it_is_read_again(tmp_path):
    measures = {name: lambda *_, value=value: value for name, (value, _) in RESULTS.items()}
    path, expected = tmp_path / "runs.jsonl", {name: value for name, (_, value) in RESULTS.items()}
    (row,) = run_here(FOUR[:1], path, measures=measures)
    found = {name: row[name] for name in RESULTS}
    assert found == expected and str(found) == str(expected)
    assert run_here(FOUR[:1], path, measures=measures) == [row]


@pytest.mark.parametrize("value", [nn.Linear(1, 1), {1, 2}, 1j, {(1, 2): 3}, Path("a"), refuses])
def test_what_a_measure_cant_give_is_the_error_of_its_run_only(value):
    calls = iter(range(4))

    def measure(model, dataset):
        assert not model.training
        given = value if next(calls) == 1 else 1.0
        return given(model, dataset) if given is refuses else given

    rows = run_here(FOUR, measures={"it": measure})
    assert [row.get("it") for row in rows] == [1.0, None, 1.0, 1.0]
    assert rows[1].keys() == {"recipe", "error"} and rows[1]["recipe"] == asdict(FOUR[1])
    assert rows[1]["error"].startswith(("TypeError: ", "ArithmeticError: no value"))


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
