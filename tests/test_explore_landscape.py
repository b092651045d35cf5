"""`LandscapeExplorer`: what it computes in its thread, and what it sends to the page."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD

pytest.importorskip("ipywidgets")
import landscapes
from landscapes import QUICK, batches, finished, small

from lookbehind import Ball, Lookbehind
from lookbehind.explore.landscape import LandscapeExplorer, job
from lookbehind.explore.landscape import view as landscape_view
from lookbehind.explore.landscape.explorer import RADII
from lookbehind.explore.shared import METHOD_COLORS
from lookbehind.measure import (
    Objective,
    difference,
    hessian_eigenpairs,
    line,
    plane,
    principal_directions,
    project,
)
from lookbehind.train.data import Dataset
from lookbehind.weights import weights_of

data, done = landscapes.data, landscapes.done
networks, quick = landscapes.networks, landscapes.quick


def test_lines_and_planes_are_those_of_the_library(
    done: LandscapeExplorer, data: Dataset, networks: dict[str, Any]
) -> None:
    assert "Done, on 60 images" in done.message and done.progress.value == 1
    for sight, model in zip(done.sights, [networks["SAM"].model, networks["plain"]], strict=True):
        first, second = sight.directions
        expected = plane(model, batches(data), first, second, points=11)
        np.testing.assert_array_equal(sight.plane.loss, expected.loss)
        np.testing.assert_array_equal(sight.plane.accuracy, expected.accuracy)
        profile = line(model, batches(data), first)
        np.testing.assert_array_equal(sight.line.loss, profile.loss)
        assert sight.start == Objective(model, batches(data)).score()


@pytest.mark.parametrize("rho", [RADII[0], 0.2, RADII[-1]])
def test_a_climb_is_that_of_the_optimizer(
    done: LandscapeExplorer, data: Dataset, rho: float
) -> None:
    sight = done.sights[1]
    origin, points, losses = weights_of(sight.model), [], []
    model = small(1)
    images, labels = batches(data)[0]

    def closure() -> Any:
        model.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    def observe(event: Any) -> None:
        if event.kind == "ascent":
            points.append(weights_of(model))
            losses.append(float(cross_entropy(model(images), labels).detach()))

    Lookbehind(
        SGD(model.parameters(), lr=0.1), Ball(rho), k=job.STEPS, observers=[observe]
    ).step(closure)  # fmt: skip
    on_plane = project(points, origin, *sight.directions)
    rows = np.array(sight.climbs[rho])
    assert rows.shape == (job.STEPS + 1, 6)
    np.testing.assert_allclose(rows[1:, :2], on_plane.coordinates, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 4], on_plane.off_plane, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 2], losses, rtol=1e-3)
    np.testing.assert_allclose(rows[0], [0, 0, *vars(sight.start).values(), 0, 0], atol=1e-7)


@pytest.mark.parametrize("gram", [np.diag([1.0, 4.0]), np.array([[2.0, -0.9], [-0.9, 0.7]])])
def test_the_outline_is_where_a_point_of_the_plane_lies_at_distance_one(gram: Any) -> None:
    points = landscape_view.outline(gram)
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", points, gram, points), 1)
    np.testing.assert_allclose(points[0], points[-1], atol=1e-12)


def test_the_outline_of_oblique_directions_is_the_ball_in_the_weights(
    done: LandscapeExplorer,
) -> None:
    sight = done.sights[0]
    for a, b in landscape_view.outline(sight.gram)[::17]:
        parts = zip(*(d.values() for d in sight.directions), strict=True)
        squares = [float((a * d.double() + b * e.double()).square().sum()) for d, e in parts]
        assert sum(squares) == pytest.approx(1, rel=1e-5)


def test_all_networks_share_one_range_and_one_scale(done: LandscapeExplorer) -> None:
    scene = done.view.scene
    losses = np.concatenate([np.ravel(getattr(s, r).loss) for s in done.sights for r in PARTS])
    low, high, log = scene["ranges"]["loss"]
    assert high == losses.max()
    assert low == losses.min() if not log else low == max(losses.min(), 1e-4 * high)
    for sight, net in zip(done.sights, scene["networks"], strict=True):
        assert sight.plane.a[0] == sight.plane.b[0] == -1 and sight.plane.a[-1] == 1
        assert net["plane"]["a"][0] == -scene["half"]
    assert scene["networks"][0]["color"] == METHOD_COLORS["SAM"]


PARTS = ("line", "plane")


def test_what_the_page_gets_is_json_without_nan(data: Dataset) -> None:
    explorer = LandscapeExplorer({"far": small(0)}, data, **QUICK)
    explorer.half.value = 20.0
    finished(explorer)
    far = replace(explorer.sights[0].plane, loss=np.full((11, 11), np.inf))
    explorer.sights[0].plane = far
    explorer.show(explorer._work)
    json.dumps([explorer.view.scene, explorer.view.climbs], allow_nan=False)
    assert explorer.view.scene["networks"][0]["plane"]["loss"][0][0] is None


def test_each_network_has_its_own_directions_of_one_seed(data: Dataset) -> None:
    explorer = LandscapeExplorer({"a": small(0), "b": small(1)}, data, **QUICK)
    explorer.first.value = job.FILTERS
    finished(explorer)
    for sight in explorer.sights:
        weights, direction = weights_of(sight.model), sight.directions[0]
        for name in ("1.weight", "3.weight"):
            lengths = [t[name].norm(dim=1) for t in (weights, direction)]
            torch.testing.assert_close(*lengths)
    ones, others = (s.directions[1]["1.weight"] for s in explorer.sights)
    torch.testing.assert_close(ones, others)


def test_directions_towards_networks_and_along_a_path(data: Dataset) -> None:
    models = {name: small(seed) for seed, name in enumerate("abc")}
    path = [weights_of(small(seed)) for seed in (5, 6, 7, 0)]
    explorer = LandscapeExplorer(models, data, paths={"a": path}, **QUICK)
    assert explorer.first.options == job.DIRECTIONS
    explorer.first.value, explorer.second.value = job.NEXT, job.AFTER
    finished(explorer)
    names = [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    for sight, (own, *others) in zip(explorer.sights, names, strict=True):
        for direction, other in zip(sight.directions, others, strict=True):
            expected = difference(models[own], models[other])
            assert all(torch.equal(direction[n], d) for n, d in expected.items())
    explorer.shown.children[1].value = explorer.shown.children[2].value = False
    explorer.first.value, explorer.second.value = job.PATH_1, job.PATH_2
    sight = finished(explorer).sights[0]
    on_plane = project(path, models["a"], *principal_directions(path).directions)
    rows = np.array(sight.path)
    np.testing.assert_allclose(rows[:, :2], on_plane.coordinates, atol=1e-5)
    assert sight.explained == pytest.approx(on_plane.explained)
    scores = [Objective(models["a"], batches(data)).score(w) for w in path]
    np.testing.assert_allclose(rows[:, 2:4], [[s.loss, s.accuracy] for s in scores])


def test_the_gradient_is_that_of_the_climb_so_its_first_step_lies_on_the_plane(
    done: LandscapeExplorer,
) -> None:
    assert done.first.value == job.GRADIENT
    for sight in done.sights:
        a, b, _, _, off, away = sight.climbs[0.2][1]
        assert (a, b) == pytest.approx((0.2, 0), abs=1e-5)
        assert off < 1e-5 and away == pytest.approx(0.2)


def test_hessian_directions_are_its_eigenvectors_on_the_climbs_minibatch(data: Dataset) -> None:
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK | {"second": job.SECOND})
    explorer.first.value = job.TOP
    sight = finished(explorer).sights[0]
    np.testing.assert_allclose(sight.gram, np.eye(2), atol=1e-3)
    expected = hessian_eigenpairs(small(0), batches(data), count=2).vectors
    for direction, vector in zip(sight.directions, expected, strict=True):
        assert all(torch.equal(direction[name], v) for name, v in vector.items())
