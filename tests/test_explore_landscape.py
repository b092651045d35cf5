"""`LandscapeExplorer`: what it computes in its thread and sends to the page; traits and errors."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace

import landscapes
import numpy as np
import pytest
import torch
import traitlets
from landscapes import IMAGES, around, batches, finished, small, trained
from measuring import all_of, complete
from problems import Problem
from torch.optim import SGD

from lookbehind import Ball, Lookbehind
from lookbehind.explore.landscape import job as jobs
from lookbehind.explore.landscape.explorer import RADII
from lookbehind.measure import Objective, difference, dot, hessian_eigenpairs, line, plane, project
from lookbehind.measure import principal_directions as principal
from lookbehind.weights import weights_of

quick = landscapes.quick


@pytest.fixture(scope="module")
def done():
    """An explorer that has computed everything, to be read only."""
    return finished(around(trained()))


def test_lines_and_planes_are_those_of_the_library(done):
    assert "Done, on 60 images" in done.message and done.progress == 1
    for sight, model in zip(done.sights, (trained()["SAM"].model, trained()["plain"]), strict=True):
        a, b = sight.directions
        np.testing.assert_equal(vars(sight.plane), vars(plane(model, batches(), a, b, points=11)))
        np.testing.assert_equal(vars(sight.line), vars(line(model, batches(), a)))
        assert sight.start == Objective(model, batches()).score()


@pytest.mark.parametrize("rho", [RADII[0], 0.2, RADII[-1]])
def test_a_climb_is_that_of_the_optimizer(done, rho):
    sight, model = done.sights[1], small(1)
    origin, points, problem = weights_of(model), [], Problem(model, batches())

    def observe(event):
        if event.kind == "ascent":
            points.append(weights_of(model))

    base = SGD(model.parameters(), lr=0.1)
    Lookbehind(base, Ball(rho), k=jobs.STEPS, observers=[observe]).step(problem.closure())
    losses = [problem.gradient()([*point.values()])[0] for point in points]
    on_plane = project(points, origin, *sight.directions)
    rows = np.array(sight.climbs[rho])
    assert rows.shape == (jobs.STEPS + 1, 6)
    np.testing.assert_allclose(rows[1:, :2], on_plane.coordinates, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 4], on_plane.off_plane, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 2], losses, rtol=1e-3)
    np.testing.assert_allclose(rows[0], [0, 0, *vars(sight.start).values(), 0, 0], atol=1e-7)


def check_unit(sight):
    """A length is the same in all directions of the plane."""
    gram = [[dot(d, e) for e in sight.directions] for d in sight.directions]
    np.testing.assert_allclose(gram, sight.unit**2 * np.eye(2), atol=1e-5)


def test_oblique_directions_span_the_same_plane_and_say_that_one_was_turned():
    sights = finished(around("abc", first=jobs.NEXT, second=jobs.AFTER)).sights
    for i, sight in enumerate(sights):
        check_unit(sight)
        following, after = (sights[(i + n) % 3].model for n in (1, 2))
        towards = difference(sight.model, following)
        assert all(torch.equal(sight.directions[0][n], d) for n, d in towards.items())
        on_plane = project([weights_of(after)], weights_of(sight.model), *sight.directions)
        assert on_plane.off_plane[0] == pytest.approx(0, abs=1e-4)
        assert sight.labels == (jobs.NEXT, f"{jobs.AFTER}, its part at right angles to a")


def test_what_the_page_gets_is_json_without_nan():
    explorer = finished(around(half=20.0))
    (sight,) = explorer.sights
    sight.plane = replace(sight.plane, loss=np.full((11, 11), np.inf))
    explorer.show(explorer._job)
    json.dumps([explorer.scene, explorer.climbs], allow_nan=False)
    assert explorer.scene["networks"][0]["plane"]["loss"][0][0] is None
    output, _ = explorer._repr_mimebundle_()
    assert "image/png" not in output and "up to inf" in output["text/plain"]


def test_each_network_has_its_own_directions_of_one_seed():
    explorer = around("ab", first=jobs.FILTERS)
    for sight in finished(explorer).sights:
        check_unit(sight)
        weights, direction = weights_of(sight.model), sight.directions[0]
        for name in ("1.weight", "3.weight"):
            torch.testing.assert_close(*(t[name].norm(dim=1) for t in (weights, direction)))
    explorer.first = jobs.GAUSSIAN
    ones, others = (s.directions[0]["1.weight"] for s in finished(explorer).sights)
    torch.testing.assert_close(ones, others)


def test_directions_along_a_path():
    path = [weights_of(small(seed)) for seed in (5, 6, 7, 0)]
    explorer = around("abc", paths={"a": path}, shown=["a"], first=jobs.PATH_1, second=jobs.PATH_2)
    assert explorer.directions == [*jobs.DIRECTIONS]
    (sight,) = finished(explorer).sights
    on_plane = project(path, small(0), *principal(path).directions)
    rows = np.array(sight.path)
    np.testing.assert_allclose(rows[:, :2], on_plane.coordinates, atol=1e-5)
    assert sight.explained == pytest.approx(on_plane.explained)
    scores = [Objective(small(0), batches()).score(w) for w in path]
    np.testing.assert_allclose(rows[:, 2:4], [[s.loss, s.accuracy] for s in scores])


def test_the_gradient_is_that_of_the_climb_so_its_first_step_lies_on_the_plane(done):
    assert done.first == jobs.GRADIENT
    for sight in done.sights:
        check_unit(sight)
        a, b, _, _, off, away = sight.climbs[0.2][1]
        assert (a, b) == pytest.approx((0.2, 0), abs=1e-5)
        assert off < 1e-5 and away == pytest.approx(0.2)


def test_hessian_directions_are_its_eigenvectors_on_the_climbs_minibatch():
    (sight,) = finished(around(first=jobs.TOP, second=jobs.SECOND)).sights
    assert sight.unit == pytest.approx(1, abs=1e-5)
    expected = hessian_eigenpairs(small(0), batches(), count=2).vectors
    for direction, vector in zip(sight.directions, expected, strict=True):
        torch.testing.assert_close(dict(direction), dict(vector), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (jobs.GRADIENT, jobs.GRADIENT, "directions of a are parallel: choose two different"),
        (jobs.NEXT, jobs.GAUSSIAN, "a and b differ in their layers"),
        (jobs.GAUSSIAN, jobs.PATH_1, "b has no training path of three points"),
    ],
)
def test_a_plane_that_is_none_is_told_in_words(first, second, error):
    models = {"a": small(0), "b": small(1, width=9)}
    path = [weights_of(small(seed)) for seed in (5, 6, 0)]
    explorer = finished(around(models, paths={"a": path}, first=first, second=second))
    assert error in explorer.message and not explorer.running
    explorer.first, explorer.second = jobs.GRADIENT, jobs.GAUSSIAN
    explorer.wait()
    assert "Done" in explorer.message


def test_only_what_is_shown_is_computed_and_only_what_there_is_offered():
    explorer = around("ab", shown=["b"])
    assert jobs.NEXT in explorer.directions and jobs.AFTER not in explorer.directions
    assert [s.name for s in finished(explorer).sights] == ["b"]


@pytest.fixture
def computing(monkeypatch):
    """A context in which an explorer's job waits, between two points of its planes."""
    inside, go = threading.Event(), threading.Event()
    plain = jobs.Job._between

    def between(job):
        if all(sight.line is not None and complete(sight.line) for sight in job.sights):
            inside.set()
            assert go.wait(60)
        return plain(job)

    @contextmanager
    def waiting(explorer):
        explorer.compute()
        assert inside.wait(60)
        try:
            yield explorer._job
        finally:
            go.set()
        explorer.wait()

    monkeypatch.setattr(jobs.Job, "_between", between)
    return waiting


def test_stop_ends_it_and_what_is_there_stays(computing):
    explorer = around()
    with computing(explorer):
        assert explorer.running
        explorer._handle_custom_msg({"kind": "stop"}, [])
    assert "Stopped" in explorer.message and not explorer.running
    (sight,) = explorer.sights
    assert complete(sight.line) and explorer.scene["networks"][0]["line"]
    assert len(sight.plane.a) == jobs.COARSE_POINTS and len(sight.climbs) < 3
    assert "Done" in finished(explorer).message


def test_a_change_stops_what_is_under_way_and_the_last_picture_stays_meanwhile(computing):
    explorer, seen = around("ab"), []
    with computing(explorer) as old:
        explorer.observe(lambda change: seen.append(change.new), "scene")
        explorer.half = 0.5
        assert explorer.running and explorer.message == "Computing."
        assert len(explorer.sights) == 2 and explorer.scene["half"] == 1
    assert old.stopped and not old.thread.is_alive() and "Done" in explorer.message
    new = [scene for scene in seen if scene["half"] == 0.5]
    assert new and all(len(scene["networks"]) == 2 for scene in new)
    assert explorer.sights[0].plane.a[-1] == 0.5 and complete(explorer.sights[0].plane)


def test_the_chosen_radius_is_climbed_while_the_planes_are_made(computing):
    explorer, seen = around(), []

    def note(change):
        seen.append((set(change.new["a"]), len(explorer.sights[0].plane.a)))

    with computing(explorer) as job:
        explorer.rho = 0.7
        explorer.observe(note, "climbs")
    assert seen[0] == ({"0.2", "0.7"}, jobs.COARSE_POINTS)
    assert explorer._job is job, "k and rho are the page's alone"


def test_the_first_pictures_are_of_few_points_and_images(monkeypatch):
    monkeypatch.setattr(jobs, "CLIMB_IMAGES", 20)
    explorer, seen = around("ab"), []
    explorer.observe(lambda _: seen.append([s.plane.images for s in explorer.sights]), "scene")
    finished(explorer)
    assert seen[0] == [20] and [20, 20] in seen and seen[-1] == [IMAGES, IMAGES]


def test_it_computes_by_itself_only_once_a_page_shows_it():
    explorer = around()
    explorer.half = 0.5
    assert explorer.sights == [] and not explorer.running
    output, metadata = explorer._repr_mimebundle_()  # without a picture
    shown = {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert set(output) == shown and metadata == {}
    for _ in range(2):
        explorer._handle_custom_msg({"kind": "ready"}, [])
    job = explorer._job
    explorer.wait()
    explorer._handle_custom_msg({"kind": "ready"}, [])
    assert explorer._job is job and "Done" in explorer.message


def test_the_networks_are_left_as_they_were():
    model = small(0).train()
    before = all_of(model)
    finished(around({"a": model}))
    torch.testing.assert_close(all_of(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "kind", "error"),
    [
        ({"points": 12}, traitlets.TraitError, "'points' trait .* not the int 12"),
        ({"paths": {"b": []}}, ValueError, "paths must be of"),
        ({"second": jobs.NEXT}, traitlets.TraitError, "second must be one of .*got 'towards the"),
        ({"shown": []}, traitlets.TraitError, "'shown' trait .* length 1"),
        ({"shown": ["b"]}, traitlets.TraitError, r"shown must be one of \['a'\]"),
        ({"k": 11}, traitlets.TraitError, "'k' trait .* 11"),
        ({"networks": {}}, ValueError, "at least one network"),
        ({"networks": {"a": 3}}, TypeError, "networks must hold modules or outcomes, got 3"),
        ({"networks": {"a": torch.nn.Flatten()}}, ValueError, "model must have parameters"),
    ],
)
def test_a_wrong_argument_is_told_at_once(given, kind, error):
    with pytest.raises(kind, match=error):
        around(**given)
