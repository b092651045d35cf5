"""`LandscapeExplorer`: what it computes in its thread, and what it sends to the page."""

import json
from dataclasses import replace

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
from lookbehind.explore.landscape.explorer import RADII
from lookbehind.measure import Objective, difference, dot, hessian_eigenpairs, line, plane, project
from lookbehind.measure import principal_directions as principal
from lookbehind.weights import weights_of

data, done = landscapes.data, landscapes.done
networks, quick = landscapes.networks, landscapes.quick


def test_lines_and_planes_are_those_of_the_library(done, data, networks):
    assert "Done, on 60 images" in done.message and done.progress == 1
    for sight, model in zip(done.sights, [networks["SAM"].model, networks["plain"]], strict=True):
        first, second = sight.directions
        expected = plane(model, batches(data), first, second, points=11)
        np.testing.assert_array_equal(sight.plane.loss, expected.loss)
        np.testing.assert_array_equal(sight.plane.accuracy, expected.accuracy)
        profile = line(model, batches(data), first)
        np.testing.assert_array_equal(sight.line.loss, profile.loss)
        assert sight.start == Objective(model, batches(data)).score()


@pytest.mark.parametrize("rho", [RADII[0], 0.2, RADII[-1]])
def test_a_climb_is_that_of_the_optimizer(done, data, rho):
    sight = done.sights[1]
    origin, points, losses = weights_of(sight.model), [], []
    model = small(1)
    images, labels = batches(data)[0]

    def closure():
        model.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    def observe(event):
        if event.kind == "ascent":
            points.append(weights_of(model))
            losses.append(float(cross_entropy(model(images), labels).detach()))

    base = SGD(model.parameters(), lr=0.1)
    Lookbehind(base, Ball(rho), k=job.STEPS, observers=[observe]).step(closure)
    on_plane = project(points, origin, *sight.directions)
    rows = np.array(sight.climbs[rho])
    assert rows.shape == (job.STEPS + 1, 6)
    np.testing.assert_allclose(rows[1:, :2], on_plane.coordinates, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 4], on_plane.off_plane, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 2], losses, rtol=1e-3)
    np.testing.assert_allclose(rows[0], [0, 0, *vars(sight.start).values(), 0, 0], atol=1e-7)


def check_unit(sight):
    """A length is the same in all directions of the plane."""
    gram = [[dot(d, e) for e in sight.directions] for d in sight.directions]
    np.testing.assert_allclose(gram, sight.unit**2 * np.eye(2), atol=1e-5)


def test_oblique_directions_span_the_same_plane_and_say_that_one_was_turned(data):
    models = {name: small(seed) for seed, name in enumerate("abc")}
    explorer = LandscapeExplorer(models, data, **QUICK | {"first": job.NEXT, "second": job.AFTER})
    for sight, start, *others in zip(finished(explorer).sights, "abc", "bca", "cab", strict=True):
        check_unit(sight)
        towards = [difference(models[start], models[other]) for other in others]
        assert all(torch.equal(sight.directions[0][n], d) for n, d in towards[0].items())
        own, there = (weights_of(models[name]) for name in (start, others[1]))
        on_plane = project([there], own, *sight.directions)
        assert on_plane.off_plane[0] == pytest.approx(0, abs=1e-4)
        assert sight.labels == (job.NEXT, f"{job.AFTER}, its part at right angles to a")


def test_what_the_page_gets_is_json_without_nan(data):
    explorer = LandscapeExplorer({"far": small(0)}, data, **QUICK)
    explorer.half = 20.0
    finished(explorer)
    far = replace(explorer.sights[0].plane, loss=np.full((11, 11), np.inf))
    explorer.sights[0].plane = far
    explorer.show(explorer._job)
    json.dumps([explorer.scene, explorer.climbs], allow_nan=False)
    assert explorer.scene["networks"][0]["plane"]["loss"][0][0] is None
    output, _ = explorer._repr_mimebundle_()
    assert "image/png" not in output and "up to inf" in output["text/plain"]


def test_each_network_has_its_own_directions_of_one_seed(data):
    models = {"a": small(0), "b": small(1)}
    explorer = LandscapeExplorer(models, data, **QUICK | {"first": job.FILTERS})
    for sight in finished(explorer).sights:
        check_unit(sight)
        weights, direction = weights_of(sight.model), sight.directions[0]
        for name in ("1.weight", "3.weight"):
            lengths = [t[name].norm(dim=1) for t in (weights, direction)]
            torch.testing.assert_close(*lengths)
    explorer.first = job.GAUSSIAN
    ones, others = (s.directions[0]["1.weight"] for s in finished(explorer).sights)
    torch.testing.assert_close(ones, others)


def test_directions_along_a_path(data):
    models = {name: small(seed) for seed, name in enumerate("abc")}
    path = [weights_of(small(seed)) for seed in (5, 6, 7, 0)]
    explorer = LandscapeExplorer(models, data, paths={"a": path}, **QUICK)
    assert explorer.directions == [*job.DIRECTIONS]
    explorer.shown, explorer.first, explorer.second = ["a"], job.PATH_1, job.PATH_2
    sight = finished(explorer).sights[0]
    on_plane = project(path, models["a"], *principal(path).directions)
    rows = np.array(sight.path)
    np.testing.assert_allclose(rows[:, :2], on_plane.coordinates, atol=1e-5)
    assert sight.explained == pytest.approx(on_plane.explained)
    scores = [Objective(models["a"], batches(data)).score(w) for w in path]
    np.testing.assert_allclose(rows[:, 2:4], [[s.loss, s.accuracy] for s in scores])


def test_the_gradient_is_that_of_the_climb_so_its_first_step_lies_on_the_plane(done):
    assert done.first == job.GRADIENT
    for sight in done.sights:
        check_unit(sight)
        a, b, _, _, off, away = sight.climbs[0.2][1]
        assert (a, b) == pytest.approx((0.2, 0), abs=1e-5)
        assert off < 1e-5 and away == pytest.approx(0.2)


def test_hessian_directions_are_its_eigenvectors_on_the_climbs_minibatch(data):
    chosen = {"first": job.TOP, "second": job.SECOND}
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK | chosen)
    sight = finished(explorer).sights[0]
    assert sight.unit == pytest.approx(1, abs=1e-5)
    expected = hessian_eigenpairs(small(0), batches(data), count=2).vectors
    for direction, vector in zip(sight.directions, expected, strict=True):
        torch.testing.assert_close(dict(direction), dict(vector), rtol=1e-3, atol=1e-3)
