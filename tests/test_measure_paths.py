"""Principal directions and projections of paths, against numpy's SVD and least squares."""

import math

import numpy as np
import pytest
from measuring import EXACT, a_network, directions, flat
from torch import nn

from lookbehind.measure import gaussian_direction, principal_directions, project
from lookbehind.weights import Weights, moved, weights_of


def a_path(points: int = 7) -> tuple[nn.Module, list[Weights]]:
    """A walk with steps of unequal size: its principal components are well apart."""
    model, _ = a_network()
    ways = [gaussian_direction(model, seed=seed) for seed in range(points)]
    path = [weights_of(model)]
    for i, way in enumerate(ways[1:]):
        path.append(moved(path[-1], (0.5**i, way), (0.3, ways[0])))
    return model, path


def test_principal_directions_are_those_of_an_svd() -> None:
    _, path = a_path()
    x = np.stack([flat(point) for point in path])
    _, singular, rows = np.linalg.svd(x - x.mean(0), full_matrices=False)
    found = principal_directions(path, count=3)
    np.testing.assert_allclose(found.explained, singular[:3] ** 2 / (singular**2).sum(), rtol=1e-9)
    ours = np.stack([flat(d) for d in found.directions])
    np.testing.assert_allclose(ours @ ours.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.abs(ours @ rows[:3].T), np.eye(3), atol=1e-8)
    assert (ours @ (x[-1] - x[0]) >= 0).all()


def test_a_projection_is_least_squares() -> None:
    model, path = a_path()
    first, second = directions(model)
    origin = path[-1]
    found = project(path, origin, first, second)
    basis = np.stack([flat(first), flat(second)], 1)
    for point, coordinates, off in zip(path, found.coordinates, found.off_plane, strict=True):
        offset = flat(point) - flat(origin)
        wanted, *_ = np.linalg.lstsq(basis, offset, rcond=None)
        np.testing.assert_allclose(coordinates, wanted, atol=1e-11)
        assert off == pytest.approx(np.linalg.norm(offset - basis @ wanted), rel=1e-9, abs=1e-11)
    total = sum(np.linalg.norm(flat(point) - flat(origin)) ** 2 for point in path)
    assert found.explained == pytest.approx(1 - (found.off_plane**2).sum() / total, **EXACT)
    assert 0 < found.explained < 1


def test_a_path_in_the_plane_is_explained_whole() -> None:
    model, _ = a_network()
    first, second = directions(model)
    steps = np.array([[0, 0], [1, 0.5], [-0.3, 2], [0.1, 0.1]])
    path = [moved(weights_of(model), (a, first), (b, second)) for a, b in steps.tolist()]
    assert project(path, model, first, second).explained == pytest.approx(1)
    principal = principal_directions(path)
    assert sum(principal.explained) == pytest.approx(1, **EXACT)
    assert project(path, path[2], *principal.directions).explained == pytest.approx(1, **EXACT)
    assert project(path[:1], model, first, second).explained == 1  # nothing to explain


def test_what_no_path_or_plane_can_be_is_refused() -> None:
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
