"""Directions, lines and planes against networks whose weights are really set, numpy and scipy."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_measure_objective import EXACT, a_network, all_of, elsewhere, same, with_weights
from test_measure_sharpness import Squared, one_image
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lookbehind.measure import (
    Line,
    Plane,
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
from lookbehind.scores import Score
from lookbehind.train import evaluate
from lookbehind.weights import Weights, moved, weights_of


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def flat(weights: Mapping[str, Tensor]) -> np.ndarray:
    return torch.cat([weights[name].flatten() for name in sorted(weights)]).numpy()


def directions(model: nn.Module) -> tuple[Weights, Weights]:
    first, second = (gaussian_direction(model, seed=seed) for seed in (1, 2))
    return filter_normalized(model, first, vectors="normalize"), filter_normalized(model, second)


def a_plane(**options: Any) -> Plane:
    model, data = a_network()
    return plane(model, data, *directions(model), **{"points": (4, 6), **options})


# Directions


def test_a_gaussian_direction_is_standard_normal_and_repeats() -> None:
    model = nn.Linear(300, 300).double()
    before = torch.get_rng_state()
    found = gaussian_direction(model, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(flat(found).tolist(), flat(gaussian_direction(model, seed=3)).tolist())
    assert not same(flat(found).tolist(), flat(gaussian_direction(model, seed=4)).tolist())
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


def test_each_filter_has_the_norm_of_the_networks() -> None:
    model, _ = a_network()
    weights = weights_of(model)
    for vectors in ("ignore", "normalize"):
        found = filter_normalized(model, gaussian_direction(model), vectors=vectors)
        for name, w in weights.items():
            if w.ndim >= 2:
                for ours, theirs in zip(found[name], w, strict=True):
                    norm = float(theirs.norm())
                    assert float(ours.norm()) == pytest.approx(norm, **EXACT)
            else:
                wanted = float(w.norm()) if vectors == "normalize" else 0.0
                assert float(found[name].norm()) == pytest.approx(wanted, **EXACT)


def test_normalizing_keeps_what_a_filter_points_at_and_is_done_once() -> None:
    model, _ = a_network()
    raw = gaussian_direction(model)
    found = filter_normalized(model, raw)
    cosines = torch.cosine_similarity(found["fc.weight"], raw["fc.weight"], dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines))
    again = filter_normalized(model, found)
    np.testing.assert_allclose(flat(again), flat(found), rtol=1e-12)
    raw["fc.weight"][1] = 0  # a filter of zeros has nowhere to point
    assert not filter_normalized(model, raw)["fc.weight"][1].any()


def test_the_scale_of_a_layer_makes_no_difference_to_its_picture() -> None:
    """Li et al.: two layers of a ReLU network scaled by c and 1 / c are the same function."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))
    model.double()
    data = [(torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,)))]
    raw, found = gaussian_direction(model), []
    for c in (1.0, 50.0):
        scaled = {
            "0.weight": model[0].weight.detach() * c,
            "2.weight": model[2].weight.detach() / c,
        }
        other = with_weights(model, scaled)
        found.append(line(other, data, filter_normalized(other, raw), points=5).loss)
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_a_difference_leads_from_one_network_to_the_other() -> None:
    model, data = a_network()
    other = with_weights(model, elsewhere(model))
    wanted = flat(weights_of(other)) - flat(weights_of(model))
    for start in (model, weights_of(model), model.state_dict()):
        for end in (other, weights_of(other), other.state_dict()):
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
    with pytest.raises(ValueError, match="one line"):
        solution_plane(model, first, moved(weights_of(model), (2.0, u)))
    with pytest.raises(ValueError, match="one line"):
        solution_plane(model, model, second)


def test_a_unit_direction() -> None:
    model, _ = a_network()
    raw = gaussian_direction(model)
    np.testing.assert_allclose(flat(unit(raw)), flat(raw) / np.linalg.norm(flat(raw)), rtol=1e-12)
    with pytest.raises(ValueError, match="norm > 0, got 0"):
        unit({"w": torch.zeros(3)})


# Paths


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
    found = project(path, model.state_dict(), first, second)
    np.testing.assert_allclose(found.coordinates, steps, atol=1e-13)
    np.testing.assert_allclose(found.off_plane, 0, atol=1e-13)
    assert found.explained == pytest.approx(1, abs=1e-15)
    principal = principal_directions(path)
    assert sum(principal.explained) == pytest.approx(1, **EXACT)
    assert project(path, path[2], *principal.directions).explained == pytest.approx(1, **EXACT)
    assert project(path[:1], model, first, second).explained == 1  # nothing to explain


def test_what_no_path_or_plane_can_be_is_refused() -> None:
    model, path = a_path(4)
    first, _ = directions(model)
    straight = [moved(path[0], (t, first)) for t in (0.0, 1.0, 3.0)]
    assert principal_directions(straight, count=1).explained == pytest.approx((1.0,))
    with pytest.raises(ValueError, match="path must spread in at least 2 dim"):
        principal_directions(straight)
    with pytest.raises(ValueError, match="path must spread in at least 1 dim"):
        principal_directions([path[0]] * 3, count=1)
    with pytest.raises(ValueError, match="path must be finite"):
        principal_directions([*path, moved(path[0], (math.nan, first))], count=1)
    for count in (0, 4, True):
        with pytest.raises(ValueError, match=f"count must be an int from 1.*got {count}"):
            principal_directions(path, count=count)
    with pytest.raises(ValueError, match="path must hold at least one point"):
        project([], model, first, path[0])
    with pytest.raises(ValueError, match="must not be parallel"):
        project(path, model, first, moved(first, (-3.0, first)))
    with pytest.raises(ValueError, match=r"path must have the network's param.*lacks \['fc.bias"):
        principal_directions([path[0], {n: w for n, w in path[1].items() if n != "fc.bias"}], 1)


# Lines and planes


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
def test_a_line_is_the_loss_of_networks_with_these_weights(statistics: str) -> None:
    model, data = a_network()
    direction, _ = directions(model)
    found = line(model, data, direction, span=(-0.5, 1.5), points=5, statistics=statistics)
    np.testing.assert_array_equal(found.a, [-0.5, 0, 0.5, 1, 1.5])
    for a, loss, accuracy in zip(found.a, found.loss, found.accuracy, strict=True):
        other = with_weights(model, moved(weights_of(model), (a, direction)))
        if statistics == "reestimated":
            update_bn(data, other)
        score = evaluate(other, data)
        assert (loss, accuracy) == pytest.approx((score.loss, score.accuracy), **EXACT)
    assert found.start == Score(found.loss[1], found.accuracy[1])
    assert (found.statistics, found.images, found.complete) == (statistics, 9, True)


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
def test_a_plane_is_the_loss_of_networks_with_these_weights(statistics: str) -> None:
    model, data = a_network()
    first, second = directions(model)
    found = plane(
        model, data, first, second, span=((-1, 0.5), (0, 2)), points=(4, 3), statistics=statistics
    )
    assert found.loss.shape == found.accuracy.shape == (3, 4)
    np.testing.assert_allclose(found.a, [-1, -0.5, 0, 0.5])
    np.testing.assert_allclose(found.b, [0, 1, 2])
    for (row, column), loss in np.ndenumerate(found.loss):
        at = moved(weights_of(model), (found.a[column], first), (found.b[row], second))
        other = with_weights(model, at)
        if statistics == "reestimated":
            update_bn(data, other)
        score = evaluate(other, data)
        assert loss == pytest.approx(score.loss, **EXACT)
        assert found.accuracy[row, column] == pytest.approx(score.accuracy, **EXACT)


def test_a_quadratic_is_drawn_exactly() -> None:
    h, w = [4.0, 1.0], [0.3, 0.4]
    model = Squared(h, w)
    e1, e2 = ({"weight": torch.tensor(e, dtype=torch.float64)} for e in ([1, 0], [0, 1]))
    found = plane(model, one_image(0.0), e1, e2, span=(-0.2, 0.2), points=(5, 9))
    a, b = np.meshgrid(found.a, found.b)
    np.testing.assert_allclose(
        found.loss, 0.5 * (h[0] * (w[0] + a) ** 2 + h[1] * (w[1] + b) ** 2), rtol=1e-12
    )


def test_the_start_is_evaluated_even_off_the_grid() -> None:
    model, data = a_network()
    found = line(model, data, directions(model)[0], span=(0.5, 1.0), points=2)
    assert found.start.loss == pytest.approx(evaluate(model, data).loss, **EXACT)
    assert found.start.loss not in found.loss
    assert a_plane(points=21, stop=lambda: True).a[10] == 0


def test_a_loss_that_is_not_finite_is_not_taken_for_a_missing_point() -> None:
    model, data = a_network()
    found = line(model, data, directions(model)[0], span=(0, 1e200), points=3)
    assert found.complete and np.isinf(found.loss[1:]).all() and np.isfinite(found.loss[0])


@pytest.mark.parametrize("points", [(21, 21), (2, 7), (5, 4)])
def test_pictures_come_coarse_to_fine(points: tuple[int, int]) -> None:
    seen: list[Plane] = []
    e1, e2 = ({"weight": torch.tensor(e, dtype=torch.float64)} for e in ([1, 0], [0, 1]))
    model, span = Squared([4.0, 1.0], [0.3, 0.4]), (-0.2, 0.2)
    found = plane(model, one_image(0.0), e1, e2, span=span, points=points, update=seen.append)
    known = [~np.isnan(picture.loss) for picture in seen]
    assert known[0].sum() == min(points[0], 3) * min(points[1], 3)
    assert all(k[0, 0] and k[-1, 0] and k[0, -1] and k[-1, -1] for k in known)
    for before, after in pairwise(known):
        assert after[before].all() and after.sum() > before.sum()
    for picture, k in zip(seen, known, strict=True):
        np.testing.assert_array_equal(picture.loss[k], found.loss[k])
    assert seen[-1].complete and same(seen[-1].loss.tolist(), found.loss.tolist())
    if points == (21, 21):
        assert [int(k.sum()) for k in known] == [9, 25, 81, 289, 441]


@pytest.mark.parametrize("after", [0, 1, 11, 23])
def test_a_plane_can_be_stopped(after: int) -> None:
    asked = iter(range(100))
    found = a_plane(stop=lambda: next(asked) == after)
    assert not found.complete and (~np.isnan(found.loss)).sum() == after
    whole, filled = a_plane(), found.filled()
    known = ~np.isnan(found.loss)
    np.testing.assert_array_equal(found.loss[known], whole.loss[known])
    assert found.start == whole.start and filled.complete and not found.complete
    for where in map(tuple, np.argwhere(np.isnan(found.loss)).tolist()):
        steps = [math.dist(where, point) for point in np.argwhere(known)]
        nearest = found.loss[known][np.flatnonzero(steps == np.min(steps))] if steps else []
        assert filled.loss[where] in (nearest if steps else [found.start.loss])


def test_ctrl_c_keeps_what_there_is() -> None:
    def interrupt(_: Plane) -> None:
        raise KeyboardInterrupt

    found = a_plane(update=interrupt)
    assert (~np.isnan(found.loss)).sum() == 9


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
@pytest.mark.parametrize("ending", ["complete", "stopped", "failed"])
def test_the_callers_network_and_random_state_are_left_alone(ending: str, statistics: str) -> None:
    model, data = a_network()
    next(iter(model.parameters())).grad = torch.ones(2, 1, 3, 3, dtype=torch.float64)
    model.get_submodule("layer1").eval()
    model.get_submodule("layer2").requires_grad_(False)
    model.append(nn.Dropout())
    first, second = directions(model)
    asked = iter(range(100))

    def stop() -> bool:
        if ending == "failed" and next(asked) == 3:
            raise OSError("the disk is full")
        return ending == "stopped" and next(asked) == 3

    before = all_of(model)
    try:
        options = {"points": 3, "statistics": statistics, "stop": stop}
        plane(model, data, first, second, **options)
    except OSError:
        assert ending == "failed"
    assert same(all_of(model), before)


def test_a_compiled_network_and_a_frozen_layer() -> None:
    model, data = a_network()
    model.get_submodule("fc").requires_grad_(False)
    direction = filter_normalized(model, gaussian_direction(model))
    assert "fc.weight" not in direction
    expected = line(model, data, direction, points=3).loss
    compiled: Any = torch.compile(model, backend="eager")
    assert gaussian_direction(compiled).keys() == direction.keys()
    assert difference(compiled, model.state_dict()).keys() == direction.keys()
    found = line(
        compiled, data, filter_normalized(compiled, gaussian_direction(compiled)), points=3
    )
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12)


def test_a_bar_shows_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    a_plane(points=2)
    assert capsys.readouterr().err == ""
    a_plane(points=2, progress=True)
    assert "4/4" in capsys.readouterr().err


def changed(name: str, tensor: Tensor | None) -> Callable[[Weights], Weights]:
    def change(direction: Weights) -> Weights:
        rest = {n: d for n, d in direction.items() if n != name}
        return rest if tensor is None else {**rest, name: tensor}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("fc.bias", None), r"second must have .* lacks \['fc.bias'\]$"),
        (changed("bn1.running_var", torch.ones(2)), r"second must .* adds \['bn1.running_var'\]$"),
        (changed("fc.bias", torch.ones(3)), r"second must .* at 'fc.bias' \(10,\), got \(3,\)"),
        (changed("fc.bias", torch.full((10,), math.nan)), "second must be finite, at 'fc.bias'"),
        (lambda d: {n: torch.zeros_like(t) for n, t in d.items()}, "second must not be all zero"),
    ],
)
def test_a_direction_that_is_none_is_refused(
    change: Callable[[Weights], Weights], message: str
) -> None:
    model, data = a_network()
    first, second = directions(model)
    with pytest.raises(ValueError, match=message):
        plane(model, data, first, change(second), points=3)
    with pytest.raises(ValueError, match=message.replace("second", "direction")):
        line(model, data, change(second), points=3)
    with pytest.raises(ValueError, match=message.replace("second", "direction")):
        filter_normalized(model, change(second))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"span": (1.0, -1.0)}, ValueError, r"span must be finite, from low to high, got \(1.0"),
        ({"span": (0.0, 0.0)}, ValueError, "span must be finite"),
        ({"span": (0.0, math.inf)}, ValueError, "span must be finite"),
        ({"span": ((-1.0, 1.0), (math.nan, 1.0))}, ValueError, r"got \(nan, 1.0\)"),
        ({"points": 1}, ValueError, "points must be an int ≥ 2, got 1"),
        ({"points": (5, 0)}, ValueError, "points must be an int ≥ 2, got 0"),
        ({"points": 5.0}, TypeError, "points must be"),
        ({"points": True}, TypeError, "points must be an int ≥ 2, got True"),
        ({"statistics": "batch"}, ValueError, "statistics must be one of"),
    ],
)
def test_wrong_arguments_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        a_plane(**options)


def test_wrong_vectors_are_named() -> None:
    model, _ = a_network()
    with pytest.raises(ValueError, match=r"vectors must be one of .* got 'filter'"):
        filter_normalized(model, gaussian_direction(model), vectors="filter")


# Files


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model, data = a_network()
    asked = iter(range(100))
    part = a_plane(stop=lambda: next(asked) == 5)
    whole = line(model, data, directions(model)[0], points=3, statistics="reestimated")
    for grid, name in ((part, "new/a.tar"), (whole, "b.npz")):
        path = grid.save(tmp_path / name)
        assert path == tmp_path / (name if name.endswith(".npz") else f"{name}.npz")
        found = type(grid).load(tmp_path / name)
        for field in grid.__dataclass_fields__:
            ours, theirs = getattr(found, field), getattr(grid, field)
            assert type(ours) is type(theirs)
            if isinstance(theirs, np.ndarray):
                np.testing.assert_array_equal(ours, theirs)
                assert ours.dtype == theirs.dtype
            else:
                assert ours == theirs
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["a.tar.npz", "b.npz"]
    with pytest.raises(ValueError, match=r"b.npz must hold a 'lookbehind plane 1', it holds 'look"):
        Plane.load(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match=r"none.npz"):
        Line.load(tmp_path / "none")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = a_plane().save(tmp_path / "a")
    bits, rng = path.read_bytes(), np.random.default_rng(0)
    whole = Plane.load(path)
    for cut in (0, 1, 100, len(bits) // 2, len(bits) - 1):
        path.write_bytes(bits[:cut])
        with pytest.raises(ValueError, match=r"a.npz is damaged, or no file that a Line or Plane"):
            Plane.load(path)
    for place in rng.integers(len(bits), size=200):
        damaged = bytearray(bits)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = Plane.load(path)
        except ValueError:
            continue
        np.testing.assert_array_equal(found.loss, whole.loss)  # a date, or a length that is unused


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for write in (
        lambda file: np.save(file, np.ones(3)),
        lambda file: np.savez(file, a=np.array([{"run": "code"}], dtype=object)),
        lambda file: torch.save({"model": torch.ones(3)}, file),
    ):
        with path.open("wb") as file:
            write(file)
        with pytest.raises(ValueError, match=r"a.npz (is damaged, or no file that|must hold a)"):
            Plane.load(path)
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match="must hold a 'lookbehind plane 1', it holds 'nothing kn"):
        Plane.load(path)


def test_an_old_file_stays_where_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = a_plane()
    path = found.save(tmp_path / "a")
    bits = path.read_bytes()

    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        found.save(path)
    assert path.read_bytes() == bits and list(tmp_path.iterdir()) == [path]


def test_arrays_of_other_shapes_are_no_plane() -> None:
    axis = np.arange(3.0)
    with pytest.raises(ValueError, match=r"loss must have the shape \(2, 3\), got \(3, 2\)"):
        Plane(axis, axis[:2], np.ones((3, 2)), np.ones((2, 3)), Score(1, 1), "stored", 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_direction_has_nothing_in_common_with_a_network_of_its_seed(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(64, 64)
    weight, drawn = (
        w["weight"].flatten() for w in (weights_of(model), gaussian_direction(model, seed=seed))
    )
    assert abs(torch.corrcoef(torch.stack([weight, drawn]))[0, 1]) < 4 / 64
