"""`LandscapeExplorer`: its traits, files and errors, and what computes anew."""

import threading

import pytest
import torch
import traitlets

pytest.importorskip("ipywidgets")
import landscapes
from landscapes import IMAGES, QUICK, finished, small
from measuring import complete

from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.landscape import job as jobs
from lookbehind.weights import weights_of

data, done = landscapes.data, landscapes.done
networks, quick = landscapes.networks, landscapes.quick


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (jobs.GRADIENT, jobs.GRADIENT, "directions of a are parallel: choose two different"),
        (jobs.NEXT, jobs.GAUSSIAN, "a and b differ in their layers"),
        (jobs.GAUSSIAN, jobs.PATH_1, "b has no training path of three points"),
    ],
)
def test_a_plane_that_is_none_is_told_in_words(data, first, second, error):
    models = {"a": small(0), "b": small(1, width=9)}
    path = [weights_of(small(seed)) for seed in (5, 6, 0)]
    explorer = LandscapeExplorer(models, data, paths={"a": path}, **QUICK)
    explorer.first, explorer.second = first, second
    assert error in finished(explorer).message
    assert not explorer.running
    explorer.first, explorer.second = jobs.GRADIENT, jobs.GAUSSIAN
    explorer.wait()
    assert "Done" in explorer.message


def test_only_what_is_shown_is_computed_and_only_what_there_is_offered(data):
    explorer = LandscapeExplorer({"a": small(0), "b": small(1)}, data, **QUICK)
    assert jobs.NEXT in explorer.directions and jobs.AFTER not in explorer.directions
    explorer.shown = ["b"]
    assert [s.name for s in finished(explorer).sights] == ["b"]


@pytest.fixture
def gate(monkeypatch):
    """The first plane's points wait; calling it lets them go."""
    inside, go = threading.Event(), threading.Event()
    plain = jobs.Job._between

    def between(job):
        if all(sight.line is not None and complete(sight.line) for sight in job.sights):
            inside.set()
            assert go.wait(60)
        return plain(job)

    monkeypatch.setattr(jobs.Job, "_between", between)

    def wait_then(action):
        assert inside.wait(60)
        action()
        go.set()

    yield wait_then
    go.set()


def test_stop_ends_it_and_what_is_there_stays(data, gate):
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    explorer.compute()
    assert explorer.running
    gate(lambda: explorer._handle_custom_msg({"kind": "stop"}, []))
    explorer.wait()
    assert "Stopped" in explorer.message and not explorer.running
    assert complete(explorer.sights[0].line) and explorer.scene["networks"][0]["line"]
    assert len(explorer.sights[0].plane.a) == jobs.COARSE_POINTS
    assert len(explorer.sights[0].climbs) < 3
    assert "Done" in finished(explorer).message


def test_a_change_stops_what_is_under_way_and_the_last_picture_stays_meanwhile(data, gate):
    explorer = LandscapeExplorer({"a": small(0), "b": small(1)}, data, **QUICK)
    explorer.compute()
    seen = []

    def move():
        explorer.observe(lambda change: seen.append(change.new), "scene")
        explorer.half = 0.5
        assert explorer.running and explorer.message == "Computing."
        assert len(explorer.sights) == 2 and explorer.scene["half"] == 1

    old = explorer._job
    gate(move)
    explorer.wait()
    assert old.stopped and not old.thread.is_alive() and "Done" in explorer.message
    new = [scene for scene in seen if scene["half"] == 0.5]
    assert new and all(len(scene["networks"]) == 2 for scene in new)
    assert explorer.sights[0].plane.a[-1] == 0.5 and complete(explorer.sights[0].plane)


def test_the_chosen_radius_is_climbed_while_the_planes_are_made(data, gate):
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    explorer.compute()
    seen, job = [], explorer._job

    def move():
        explorer.rho = 0.7
        points = lambda: len(explorer.sights[0].plane.a)  # noqa: E731
        explorer.observe(lambda change: seen.append((set(change.new["a"]), points())), "climbs")

    gate(move)
    explorer.wait()
    assert seen[0] == ({"0.2", "0.7"}, jobs.COARSE_POINTS)
    assert explorer._job is job, "k and rho are the page's alone"


def test_the_first_pictures_are_of_few_points_and_images(data, monkeypatch):
    monkeypatch.setattr(jobs, "CLIMB_IMAGES", 20)
    explorer = LandscapeExplorer({"a": small(0), "b": small(1)}, data, **QUICK)
    seen = []
    explorer.observe(lambda _: seen.append([s.plane.images for s in explorer.sights]), "scene")
    finished(explorer)
    assert seen[0] == [20] and [20, 20] in seen and seen[-1] == [IMAGES, IMAGES]


def test_it_computes_by_itself_only_once_a_page_shows_it(data):
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    explorer.half = 0.5
    assert explorer.sights == [] and not explorer.running
    output, metadata = explorer._repr_mimebundle_()  # without a picture
    assert set(output) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert metadata == {}
    for _ in range(2):
        explorer._handle_custom_msg({"kind": "ready"}, [])
    job = explorer._job
    explorer.wait()
    explorer._handle_custom_msg({"kind": "ready"}, [])
    assert explorer._job is job and "Done" in explorer.message


def test_the_networks_are_left_as_they_were(data):
    model = small(0).train()
    before = weights_of(model)
    finished(LandscapeExplorer({"a": model}, data, **QUICK))
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(w, before[n]) for n, w in weights_of(model).items())


@pytest.mark.parametrize(
    ("given", "kind", "error"),
    [
        ({"second": "up"}, traitlets.TraitError, "second must be one of .*got 'up'"),
        ({"points": 12}, traitlets.TraitError, "'points' trait .* not the int 12"),
        ({"paths": {"b": []}}, ValueError, "paths must be of"),
        ({"second": jobs.NEXT}, traitlets.TraitError, "second must be one of"),
        ({"shown": []}, traitlets.TraitError, "'shown' trait .* length 1"),
        ({"shown": ["b"]}, traitlets.TraitError, r"shown must be one of \['a'\]"),
        ({"k": 11}, traitlets.TraitError, "'k' trait .* 11"),
        ({"networks": {}}, ValueError, "at least one network"),
        ({"networks": {"a": 3}}, TypeError, "networks must hold modules or outcomes, got 3"),
        ({"networks": {"a": torch.nn.Flatten()}}, ValueError, "model must have parameters"),
    ],
)
def test_a_wrong_argument_is_told_at_once(data, given, kind, error):
    with pytest.raises(kind, match=error):
        LandscapeExplorer(**{"networks": {"a": small(0)}, "dataset": data, **QUICK} | given)
