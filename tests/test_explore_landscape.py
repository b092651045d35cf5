"""`LandscapeExplorer`: what it computes in its thread, what it sends to the page, and errors."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

pytest.importorskip("ipywidgets")

from lookbehind import Ball, Lookbehind
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.landscape import explorer as landscape_explorer
from lookbehind.explore.landscape import job as landscape_job
from lookbehind.explore.landscape import view as landscape_view
from lookbehind.explore.landscape.explorer import RADII
from lookbehind.explore.landscape.job import (
    AFTER,
    DIRECTIONS,
    FILTERS,
    GAUSSIAN,
    GRADIENT,
    NEXT,
    PATH_1,
    PATH_2,
    SECOND,
    STEPS,
    TOP,
)
from lookbehind.explore.shared import METHOD_COLORS
from lookbehind.measure import (
    Objective,
    Plane,
    difference,
    hessian_eigenpairs,
    line,
    plane,
    principal_directions,
    project,
)
from lookbehind.train import Recipe
from lookbehind.train.data import Dataset, digits
from lookbehind.weights import weights_of

IMAGES = 60
RECIPE = Recipe(train=100, validation=0, gradients=40)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(landscape_explorer, "RADII", (0.1, 0.2, 0.7))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits(train=100, validation=0)


@pytest.fixture(scope="module")
def networks(data: Dataset) -> dict[str, Any]:
    """Two small networks; the first is a finished run."""
    return {"SAM": replace(RECIPE, method="SAM", rho=0.05).run(dataset=data), "plain": small(1)}


@pytest.fixture(scope="module")
def done(networks: dict[str, Any], data: Dataset) -> LandscapeExplorer:
    """An explorer that has computed everything, to be read only."""
    return finished(LandscapeExplorer(networks, data, **QUICK))


QUICK: dict[str, Any] = {"images": IMAGES, "points": 11, "second": GAUSSIAN}


def small(seed: int, width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def finished(explorer: LandscapeExplorer) -> LandscapeExplorer:
    explorer.compute_button.click()
    explorer.wait()
    return explorer


def batches(data: Dataset, count: int = IMAGES) -> list[Any]:
    split = data.train
    return [*replace(split, images=split.images[:count], labels=split.labels[:count]).batches(500)]


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
        SGD(model.parameters(), lr=0.1), Ball(rho), k=STEPS, observers=[observe]
    ).step(closure)  # fmt: skip
    on_plane = project(points, origin, *sight.directions)
    rows = np.array(sight.climbs[rho])
    assert rows.shape == (STEPS + 1, 6)
    np.testing.assert_allclose(rows[1:, :2], on_plane.coordinates, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 4], on_plane.off_plane, atol=2e-4 * (1 + 10 * rho))
    np.testing.assert_allclose(rows[1:, 2], losses, rtol=1e-3)
    np.testing.assert_allclose(rows[0], [0, 0, *vars(sight.start).values(), 0, 0], atol=1e-7)


def test_every_radius_of_the_slider_has_a_climb_in_the_page(done: LandscapeExplorer) -> None:
    for sight in done.sights:
        table = done.view.climbs[sight.name]
        assert set(table) == {f"{rho:g}" for rho in RADII}
        assert all(len(rows) == STEPS + 1 for rows in table.values())
        assert table["0.2"] == landscape_view.plain(sight.climbs[0.2])


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
    explorer.first.value = FILTERS
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
    assert explorer.first.options == DIRECTIONS
    explorer.first.value, explorer.second.value = NEXT, AFTER
    finished(explorer)
    names = [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")]
    for sight, (own, *others) in zip(explorer.sights, names, strict=True):
        for direction, other in zip(sight.directions, others, strict=True):
            expected = difference(models[own], models[other])
            assert all(torch.equal(direction[n], d) for n, d in expected.items())
    explorer.shown.children[1].value = explorer.shown.children[2].value = False
    explorer.first.value, explorer.second.value = PATH_1, PATH_2
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
    assert done.first.value == GRADIENT
    for sight in done.sights:
        a, b, _, _, off, away = sight.climbs[0.2][1]
        assert (a, b) == pytest.approx((0.2, 0), abs=1e-5)
        assert off < 1e-5 and away == pytest.approx(0.2)


def test_hessian_directions_are_its_eigenvectors_on_the_climbs_minibatch(data: Dataset) -> None:
    explorer = LandscapeExplorer({"a": small(0)}, data, **QUICK | {"second": SECOND})
    explorer.first.value = TOP
    sight = finished(explorer).sights[0]
    np.testing.assert_allclose(sight.gram, np.eye(2), atol=1e-3)
    expected = hessian_eigenpairs(small(0), batches(data), count=2).vectors
    for direction, vector in zip(sight.directions, expected, strict=True):
        assert all(torch.equal(direction[name], v) for name, v in vector.items())


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (GRADIENT, GRADIENT, "the two directions of a are parallel: choose two different ones"),
        (NEXT, GAUSSIAN, "a and b differ in their layers"),
        (GAUSSIAN, PATH_1, "b has no training path of three points"),
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
    explorer.first.value, explorer.second.value = GRADIENT, GAUSSIAN
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
    plain = landscape_job.Job._between

    def between(job: Any, sight: Any) -> bool:
        if sight.line is not None and sight.line.complete:
            inside.set()
            assert go.wait(60)
        return plain(job, sight)

    monkeypatch.setattr(landscape_job.Job, "_between", between)

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
        coarse = len(explorer.sights[0].plane.a) == landscape_job.COARSE_POINTS
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
    monkeypatch.setattr(landscape_job, "CLIMB_IMAGES", 20)
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
        ({"second": NEXT}, "second must be one of"),
    ],
)
def test_a_wrong_argument_is_told_at_once(data: Dataset, given: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        LandscapeExplorer({"a": small(0)}, data, **QUICK | given)


def test_no_network_or_something_else_is_refused(data: Dataset) -> None:
    with pytest.raises(ValueError, match="at least one network"):
        LandscapeExplorer({}, data)
    with pytest.raises(TypeError, match="modules, outcomes or paths"):
        LandscapeExplorer({"a": 3}, data)  # type: ignore[dict-item]


def test_its_text_is_stable(done: LandscapeExplorer) -> None:
    assert repr(done).startswith("LandscapeExplorer, interactive once its cell runs")
