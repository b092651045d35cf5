"""`Objective` against networks whose weights are really set; the caller's is left as it was."""

import pytest
import torch
from measuring import EXACT, a_network, elsewhere, with_weights
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind.measure import Objective, difference, filter_normalized, gaussian_direction
from lookbehind.train import evaluate
from lookbehind.weights import moved, weights_of


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
def test_the_gradient_is_autograds(statistics):
    model, data = a_network()
    weights = elsewhere(model, 0.1)
    loss, gradient = Objective(model, data, statistics=statistics).gradient(weights)
    other = with_weights(model, weights, data if statistics == "reestimated" else None).eval()
    mean = sum(cross_entropy(other(x), y, reduction="sum") for x, y in data) / 9
    mean.backward()
    assert loss == pytest.approx(float(mean.detach()), **EXACT)
    expected = {name: p.grad for name, p in other.named_parameters()}
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_after_an_error_inside_the_network_it_goes_on_as_before():
    model, data = a_network()
    objective = Objective(model, data, statistics="reestimated")
    expected = objective.loss()
    with pytest.raises(RuntimeError, match="shape"):
        objective.loss({**objective.weights, "fc.weight": torch.zeros(3, 3, dtype=torch.float64)})
    assert objective.loss() == expected


def test_frozen_parameters_stay_where_they_are_and_the_objective_keeps_its_own():
    model, data = a_network()
    model.get_submodule("fc").requires_grad_(False)
    objective = Objective(model, data)
    assert "fc.weight" not in objective.weights and "conv1.weight" in objective.weights
    expected = objective.loss()
    assert expected == pytest.approx(evaluate(model, data).loss, **EXACT)
    assert objective.gradient()[1].keys() == objective.weights.keys()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert objective.loss() == expected


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_taken_as_it_is(in_place):
    model, data = a_network()
    expected, names = Objective(model, data).loss(), weights_of(model).keys()
    if in_place:
        model.compile(backend="eager")
    compiled = model if in_place else torch.compile(model, backend="eager")
    objective = Objective(compiled, data)
    assert objective.weights.keys() == names
    assert objective.loss() == pytest.approx(expected, **EXACT)
    assert difference(compiled, model).keys() == names
    assert filter_normalized(compiled, gaussian_direction(compiled)).keys() == names


def test_parameters_that_are_shared_move_together():
    torch.manual_seed(0)
    one = nn.Linear(3, 3).double()
    model = nn.Sequential(one, nn.Tanh(), one)
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.randint(3, (5,)))]
    weights = elsewhere(model)
    assert len(weights) == 2
    expected = evaluate(with_weights(model, weights), data).loss
    assert Objective(model, data).loss(weights) == pytest.approx(expected, **EXACT)


def test_weights_are_copies_and_moved_is_a_sum():
    model, _ = a_network()
    weights = weights_of(model)
    up = {n: torch.ones_like(w) for n, w in weights.items()}
    there = moved(weights, (2.0, up), (-0.5, weights))
    for name, p in model.named_parameters():
        torch.testing.assert_close(there[name], 2 + p.detach() / 2, rtol=0, atol=1e-15)
        assert weights[name].data_ptr() != p.data_ptr() and not weights[name].requires_grad


def test_wrong_arguments_are_named():
    model, data = a_network()
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        Objective(model, iter(()))
    with pytest.raises(ValueError, match='statistics must be "stored" or "reestimated", got'):
        Objective(model, data, statistics="train")
    with pytest.raises(ValueError, match="require a gradient"):
        Objective(model.requires_grad_(False), data)
