"""`LandscapeExplorer`: its buttons, files and errors, and what a page sets off."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ipywidgets")
import landscapes
from landscapes import IMAGES, QUICK, RECIPE, finished, small

from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.landscape import job as jobs
from lookbehind.explore.landscape import view as landscape_view
from lookbehind.explore.landscape.explorer import RADII
from lookbehind.measure import Plane
from lookbehind.train.data import Dataset
from lookbehind.weights import weights_of

data, done = landscapes.data, landscapes.done
networks, quick = landscapes.networks, landscapes.quick


def test_every_radius_of_the_slider_has_a_climb_in_the_page(done: LandscapeExplorer) -> None:
    for sight in done.sights:
        table = done.view.climbs[sight.name]
        assert set(table) == {f"{rho:g}" for rho in RADII}
        assert all(len(rows) == jobs.STEPS + 1 for rows in table.values())
        assert table["0.2"] == landscape_view.plain(sight.climbs[0.2])


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (
            jobs.GRADIENT,
            jobs.GRADIENT,
            "the two directions of a are parallel: choose two different",
        ),
        (jobs.NEXT, jobs.GAUSSIAN, "a and b differ in their layers"),
        (jobs.GAUSSIAN, jobs.PATH_1, "b has no training path of three points"),
    ],
)
def test_a_plane_that_is_none_is_told_in_words(
    data: Dataset, first: str, second: str, error: str
) -> None:
    models = {"a": small(0), "b": small(1, width=9)}
    path = [weights_of(small(seed)) for seed in (5, 6, 0)]
    explorer = LandscapeExplorer(models, data, paths={"a": path}, **QUICK)
    explorer.first.value, explorer.second.value = first, second
    assert error in finished(explorer).message
    assert not explorer.compute_button.disabled
    explorer.first.value, explorer.second.value = jobs.GRADIENT, jobs.GAUSSIAN
    assert "Done" in finished(explorer).message


def test_a_checkpoint_and_a_run_of_the_same_network_show_the_same(
    data: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "half way.pt"
    outcome = RECIPE.run(dataset=data, checkpoint=path)
    explorer = LandscapeExplorer({"run": outcome, "file": path}, data, **QUICK)
    one, other = finished(explorer).sights
    np.testing.assert_array_equal(one.plane.loss, other.plane.loss)
    explorer.path.value = str(path)
    explorer.load_button.click()
    assert "Loaded half way: press Compute" in explorer.message
    explorer.load_button.click()
    assert [box.description for box in explorer.shown.children][2:] == ["half way", "half way 2"]
    explorer.shown.children[0].value = False
    assert [s.name for s in finished(explorer).sights] == ["file", "half way", "half way 2"]


def test_a_file_that_is_no_checkpoint_is_told_in_words_and_nothing_is_lost(
    data: Dataset, tmp_path: Path
) -> None:
    explorer = finished(LandscapeExplorer({"a": small(0)}, data, **QUICK))
    sights = explorer.sights
    (tmp_path / "text.pt").write_text("no checkpoint")
    for path, error in [
        ("", "Give the path"),
        (str(tmp_path / "missing.pt"), "Not loaded: .*missing.pt"),
        (str(tmp_path / "text.pt"), "Not loaded: .*text.pt is not a whole checkpoint"),
        (str(tmp_path), "Not loaded: "),
    ]:
        explorer.path.value = path
        explorer.load_button.click()
        assert re.search(error, explorer.message)
    assert explorer.sights is sights and len(explorer.shown.children) == 1


def test_save_never_overwrites_and_a_plane_comes_back(
    done: LandscapeExplorer, tmp_path: Path
) -> None:
    done._folder = tmp_path / "new"
    done.save_button.click()
    done.save_button.click()
    found = sorted(path.name for path in done._folder.iterdir())
    assert found == ["SAM-2.npz", "SAM.npz", "plain-2.npz", "plain.npz"]
    assert "Saved in the folder" in done.message and "plain-2.npz" in done.message
    back = Plane.load(done._folder / "SAM.npz")
    np.testing.assert_array_equal(back.loss, done.sights[0].plane.loss)
    (tmp_path / "file").write_text("")
    done._folder = tmp_path / "file"
    done.save_button.click()
    assert "Not saved" in done.message


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The first plane's points wait; calling it lets them go."""
    inside, go = threading.Event(), threading.Event()
    plain = jobs.Job._between

    def between(job: Any, sight: Any) -> bool:
        if sight.line is not None and sight.line.complete:
            inside.set()
            assert go.wait(60)
        return plain(job, sight)

    monkeypatch.setattr(jobs.Job, "_between", between)

    def wait_then(action: Callable[[], None]) -> None:
        assert inside.wait(60)
        action()
        go.set()

    yield wait_then
    go.set()


def test_stop_ends_it_and_what_is_there_stays(data: Dataset, gate: Any) -> None:
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    explorer.save_button.click()
    assert "Nothing to save yet" in explorer.message
    explorer.compute_button.click()
    assert explorer.compute_button.disabled and not explorer.stop_button.disabled
    gate(explorer.stop_button.click)
    explorer.wait()
    assert "Stopped" in explorer.message and not explorer.running
    assert explorer.sights[0].line.complete and explorer.view.scene["networks"][0]["line"]
    assert len(explorer.sights[0].climbs) < 3
    assert "Done" in finished(explorer).message


def test_the_radius_of_the_slider_is_climbed_while_the_planes_are_made(
    data: Dataset, gate: Any
) -> None:
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    explorer.compute_button.click()
    seen: list[Any] = []

    def note(change: Any) -> None:
        coarse = len(explorer.sights[0].plane.a) == jobs.COARSE_POINTS
        seen.append((set(change.new["a"]), coarse))

    def move() -> None:
        explorer.rho.value = 0.7
        explorer.view.observe(note, "climbs")

    gate(move)
    explorer.wait()
    assert seen[0] == ({"0.2", "0.7"}, True)


def test_the_first_pictures_are_of_few_points_and_images(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CLIMB_IMAGES", 20)
    explorer = LandscapeExplorer({"a": small(0), "b": small(1)}, data, **QUICK)
    seen: list[list[int]] = []
    explorer.view.observe(lambda _: seen.append([s.plane.images for s in explorer.sights]), "scene")
    finished(explorer)
    assert seen[0] == [20] and seen[2] == [20, 20] and seen[-1] == [IMAGES, IMAGES]


def test_a_control_that_needs_the_kernel_says_so(data: Dataset) -> None:
    explorer = finished(LandscapeExplorer({"a": small(0)}, data, **QUICK))
    explorer.half.value = 0.5
    assert "Press Compute" in explorer.message
    finished(explorer)
    assert explorer.view.scene["half"] == explorer.sights[0].plane.a[-1] == 0.5
    explorer.shown.children[0].value = False
    explorer.compute()
    assert "Choose at least one network" in explorer.message


def test_it_computes_by_itself_only_once_a_page_shows_it(data: Dataset) -> None:
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK)
    assert explorer.sights == [] and not explorer.running
    for _ in range(2):
        explorer.view._handle_custom_msg({"kind": "ready"}, [])
    job = explorer._work
    explorer.wait()
    explorer.view._handle_custom_msg({"kind": "ready"}, [])
    assert explorer._work is job and "Done" in explorer.message


def test_the_networks_are_left_as_they_were(data: Dataset) -> None:
    model = small(0).train()
    before = weights_of(model)
    finished(LandscapeExplorer({"a": model}, data, **QUICK))
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(w, before[n]) for n, w in weights_of(model).items())


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"second": "up"}, "second must be one of .*got 'up'"),
        ({"points": 12}, "points must be one of .*got 12"),
        ({"paths": {"b": []}}, "paths must be of"),
        ({"second": jobs.NEXT}, "second must be one of"),
    ],
)
def test_a_wrong_argument_is_told_at_once(data: Dataset, given: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LandscapeExplorer({"a": small(0)}, data, **QUICK | given)


@pytest.mark.parametrize(
    ("networks", "error"), [({}, "at least one network"), ({"a": 3}, "modules, outcomes or paths")]
)
def test_no_network_or_something_else_is_refused(data: Dataset, networks: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        LandscapeExplorer(networks, data)


def test_its_text_is_stable(done: LandscapeExplorer) -> None:
    assert repr(done).startswith("LandscapeExplorer, interactive once its cell runs")
