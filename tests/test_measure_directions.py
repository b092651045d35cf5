"""Directions in the space of weights, against numpy."""

import math

import numpy as np
import pytest
import torch
from measuring import EXACT, a_network, directions, elsewhere, flat, with_weights
from torch import nn

from lookbehind.measure import (
    difference,
    filter_normalized,
    gaussian_direction,
    line,
    plane,
    principal_directions,
    project,
    solution_plane,
    unit,
)
from lookbehind.train import evaluate
from lookbehind.weights import moved, weights_of


def test_a_gaussian_direction_is_standard_normal_and_repeats() -> None:
    model = nn.Linear(300, 300).double()
    before = torch.get_rng_state()
    found = gaussian_direction(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (flat(found) == flat(gaussian_direction(model, seed=3))).all()
    assert (flat(found) != flat(gaussian_direction(model, seed=4))).any()
    x = flat(found)
    n = len(x)
    assert abs(x.mean()) < 4 / math.sqrt(n) and abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)  # a uniform draw has 1.8


@pytest.mark.gpu
def test_directions_are_made_on_the_models_device() -> None:
    model, data = a_network()
    model.cuda()
    first, second = directions(model)
    assert all(d.is_cuda for d in (*first.values(), *second.values()))
    found = plane(model, data, first, second, points=3)
    again = plane(model, data, {n: d.cpu() for n, d in first.items()}, second, points=3)
    np.testing.assert_allclose(found.loss, again.loss, rtol=1e-9)
    path = [moved(weights_of(model), (t, first), (t * t, second)) for t in (0.0, 1.0, 2.0)]
    cpu = [{n: w.cpu() for n, w in point.items()} for point in path]
    assert project(cpu, model, first, second).explained == pytest.approx(1)
    assert all(d.is_cuda for d in principal_directions(path).directions[1].values())


def test_each_filter_has_the_norm_of_the_networks_and_keeps_what_it_points_at() -> None:
    model, _ = a_network()
    raw = gaussian_direction(model)
    found = filter_normalized(model, raw)
    for name, w in weights_of(model).items():
        if w.ndim < 2:
            assert not found[name].any()
            continue
        for ours, theirs in zip(found[name], w, strict=True):
            assert float(ours.norm()) == pytest.approx(float(theirs.norm()), **EXACT)
    cosines = torch.cosine_similarity(found["fc.weight"], raw["fc.weight"], dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines))
    raw["fc.weight"][1] = 0  # a filter of zeros has nowhere to point
    assert not filter_normalized(model, raw)["fc.weight"][1].any()


def test_a_difference_leads_from_one_network_to_the_other() -> None:
    model, data = a_network()
    other = with_weights(model, elsewhere(model))
    wanted = flat(weights_of(other)) - flat(weights_of(model))
    for start in (model, weights_of(model)):
        for end in (other, weights_of(other)):
            np.testing.assert_array_equal(flat(difference(start, end)), wanted)
    found = line(model, data, difference(model, other), span=(0, 1), points=3)
    assert found.loss[0] == found.start.loss
    assert found.loss[-1] == pytest.approx(evaluate(other, data).loss, rel=1e-9)


def test_the_plane_of_three_solutions_holds_them() -> None:
    model, _ = a_network()
    first, second = elsewhere(model), elsewhere(model, -0.7)
    second = moved(second, (0.4, gaussian_direction(model)))
    u, v = solution_plane(model, first, second)
    assert flat(u) @ flat(v) == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(flat(v)) == pytest.approx(np.linalg.norm(flat(u)), **EXACT)
    seen = project([weights_of(model), first, second], model, u, v)
    np.testing.assert_allclose(seen.coordinates[:2], [[0, 0], [1, 0]], atol=1e-12)
    assert seen.coordinates[2, 1] > 0
    np.testing.assert_allclose(seen.off_plane, 0, atol=1e-12)
    for one, other in ((first, moved(weights_of(model), (2.0, u))), (model, second)):
        with pytest.raises(ValueError, match="one line"):
            solution_plane(model, one, other)


def test_a_unit_direction() -> None:
    model, _ = a_network()
    raw = gaussian_direction(model)
    np.testing.assert_allclose(flat(unit(raw)), flat(raw) / np.linalg.norm(flat(raw)), rtol=1e-12)
    with pytest.raises(ValueError, match="norm > 0, got 0"):
        unit({"w": torch.zeros(3)})


@pytest.mark.parametrize("seed", [0, 1])
def test_a_direction_has_nothing_in_common_with_a_network_of_its_seed(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(64, 64)
    drawn, weight = gaussian_direction(model, seed=seed)["weight"].flatten(), model.weight.flatten()
    assert abs(torch.corrcoef(torch.stack([weight, drawn]))[0, 1]) < 4 / 64
