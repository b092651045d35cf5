"""Directions and paths in the space of weights, against numpy's SVD and least squares."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from measuring import EXACT, a_network, away, directions, flat, with_weights
from torch import nn

from lookbehind.measure import difference, filter_normalized, gaussian_direction, line, plane, unit
from lookbehind.measure.directions import principal_directions, project, solution_plane, stream
from lookbehind.train import evaluate
from lookbehind.weights import moved, weights_of


def test_a_gaussian_direction_is_standard_normal_and_repeats():
    model = nn.Linear(300, 300).double()
    before = torch.get_rng_state()
    found = gaussian_direction(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert (flat(found) == flat(gaussian_direction(model, seed=3))).all()
    assert (flat(found) != flat(gaussian_direction(model, seed=4))).any()
    x, n = flat(found), 300 * 301
    assert abs(x.mean()) < 4 / math.sqrt(n) and abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)  # a uniform draw has 1.8


@pytest.mark.gpu
def test_directions_are_made_on_the_models_device():
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


def test_each_filter_has_the_norm_of_the_networks_and_keeps_what_it_points_at():
    model, _ = a_network()
    raw = gaussian_direction(model)
    found = filter_normalized(model, raw)
    for name, w in weights_of(model).items():
        for ours, theirs in zip(found[name], w, strict=True):
            norm = float(theirs.norm()) if w.ndim > 1 else 0
            assert float(ours.norm()) == pytest.approx(norm, abs=0, **EXACT)
    cosines = torch.cosine_similarity(found["fc.weight"], raw["fc.weight"], dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines))
    raw["fc.weight"][1] = 0  # a filter of zeros has nowhere to point
    assert not filter_normalized(model, raw)["fc.weight"][1].any()


def test_a_difference_leads_from_one_network_to_the_other():
    model, data = a_network()
    other = with_weights(model, away(model))
    wanted = flat(weights_of(other)) - flat(weights_of(model))
    for start, end in product((model, weights_of(model)), (other, weights_of(other))):
        np.testing.assert_array_equal(flat(difference(start, end)), wanted)
    found = line(model, data, difference(model, other), span=(0, 1), points=3)
    assert found.loss[0] == found.start.loss
    assert found.loss[-1] == pytest.approx(evaluate(other, data).loss, rel=1e-9)


def test_the_plane_of_three_solutions_holds_them():
    model, _ = a_network()
    first, second = away(model), away(model, -0.7)
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


def test_a_unit_direction():
    raw = gaussian_direction(a_network()[0])
    np.testing.assert_allclose(flat(unit(raw)), flat(raw) / np.linalg.norm(flat(raw)), rtol=1e-12)
    with pytest.raises(ValueError, match="norm > 0, got 0"):
        unit({"w": torch.zeros(3)})


@pytest.mark.parametrize("seed", [0, 1])
def test_neither_direction_nor_noise_has_anything_in_common_with_a_network_of_its_seed(seed):
    torch.manual_seed(seed)
    model = nn.Linear(64, 64)
    direction, noise = gaussian_direction(model, seed=seed), stream("noise", seed)
    drawn = [model.weight, direction["weight"], torch.randn(64, 64, generator=noise)]
    correlations = torch.corrcoef(torch.stack(drawn).flatten(1)) - torch.eye(3)
    assert correlations.abs().max() < 4 / 64


def a_path(points=7):
    """A walk with steps of unequal size: its principal components are well apart."""
    model, _ = a_network()
    ways = [gaussian_direction(model, seed=seed) for seed in range(points)]
    path = [weights_of(model)]
    for i, way in enumerate(ways[1:]):
        path.append(moved(path[-1], (0.5**i, way), (0.3, ways[0])))
    return model, path


def test_principal_directions_are_those_of_an_svd():
    _, path = a_path()
    x = np.stack([flat(point) for point in path])
    _, singular, rows = np.linalg.svd(x - x.mean(0), full_matrices=False)
    found = principal_directions(path, count=3)
    np.testing.assert_allclose(found.explained, singular[:3] ** 2 / (singular**2).sum(), rtol=1e-9)
    ours = np.stack([flat(d) for d in found.directions])
    np.testing.assert_allclose(ours @ ours.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.abs(ours @ rows[:3].T), np.eye(3), atol=1e-8)
    assert (ours @ (x[-1] - x[0]) >= 0).all()


def test_a_projection_is_least_squares():
    model, path = a_path()
    first, second = directions(model)
    found = project(path, path[-1], first, second)
    basis = np.stack([flat(first), flat(second)], 1)
    offsets = np.stack([flat(point) - flat(path[-1]) for point in path], 1)
    wanted, *_ = np.linalg.lstsq(basis, offsets, rcond=None)
    np.testing.assert_allclose(found.coordinates, wanted.T, atol=1e-11)
    off = np.linalg.norm(offsets - basis @ wanted, axis=0)
    assert found.off_plane == pytest.approx(off, rel=1e-9, abs=1e-11)
    total = (offsets**2).sum()
    assert found.explained == pytest.approx(1 - (found.off_plane**2).sum() / total, **EXACT)
    assert 0 < found.explained < 1


def test_a_path_in_the_plane_is_explained_whole():
    model, _ = a_network()
    first, second = directions(model)
    steps = np.array([[0, 0], [1, 0.5], [-0.3, 2], [0.1, 0.1]])
    path = [moved(weights_of(model), (a, first), (b, second)) for a, b in steps.tolist()]
    assert project(path, model, first, second).explained == pytest.approx(1)
    principal = principal_directions(path)
    assert sum(principal.explained) == pytest.approx(1, **EXACT)
    assert project(path, path[2], *principal.directions).explained == pytest.approx(1, **EXACT)
    assert project(path[:1], model, first, second).explained == 1  # nothing to explain


def test_what_no_path_or_plane_can_be_is_refused():
    model, path = a_path(4)
    first, _ = directions(model)
    straight = [moved(path[0], (t, first)) for t in (0.0, 1.0, 3.0)]
    assert principal_directions(straight, count=1).explained == pytest.approx((1.0,))
    partial_point = {n: w for n, w in path[1].items() if n != "fc.bias"}
    for points, count, message in (
        (straight, 2, "path must spread in at least 2 dim"),
        ([path[0]] * 3, 1, "path must spread in at least 1 dim"),
        ([*path, moved(path[0], (math.nan, first))], 1, "path must be finite"),
        (path, 0, "count must be .*, got 0"),
        (path, 4, "count must be .*, got 4"),
        ([path[0], partial_point], 1, r"path must have the network's param.*lacks \['fc.bias"),
    ):
        with pytest.raises(ValueError, match=message):
            principal_directions(points, count=count)
    with pytest.raises(ValueError, match="path must hold at least one point"):
        project([], model, first, path[0])
    with pytest.raises(ValueError, match="must not be parallel"):
        project(path, model, first, moved(first, (-3.0, first)))
