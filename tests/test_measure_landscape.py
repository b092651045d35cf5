"""`Objective`, lines and planes against networks whose weights are really set, and their files."""

import math
from functools import partial
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from measuring import EXACT, ONE_IMAGE, Squared, a_network, away, complete, directions, with_weights
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind.measure import Objective, difference, filter_normalized, line, plane
from lookbehind.scores import Score
from lookbehind.train import evaluate
from lookbehind.weights import moved, weights_of


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
def test_the_gradient_is_autograds(statistics):
    model, data = a_network()
    weights = away(model, 0.1)
    loss, gradient = Objective(model, data, statistics=statistics).gradient(weights)
    other = with_weights(model, weights, data if statistics == "reestimated" else None).eval()
    mean = sum(cross_entropy(other(x), y, reduction="sum") for x, y in data) / 9
    mean.backward()
    assert loss == pytest.approx(float(mean.detach()), **EXACT)
    expected = {name: p.grad for name, p in other.named_parameters()}
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_after_an_error_inside_the_network_it_goes_on_as_before():
    model, data = a_network()
    objective = Objective(model, data, statistics="reestimated")
    expected = objective.loss()
    with pytest.raises(RuntimeError, match="shape"):
        objective.loss({**objective.weights, "fc.weight": torch.zeros(3, 3, dtype=torch.float64)})
    assert objective.loss() == expected


def test_frozen_or_unused_parameters_stay_where_they_are_and_the_objective_keeps_its_own():
    model, data = a_network()
    model.get_submodule("fc").requires_grad_(False)
    model.unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    objective = Objective(model, data)
    assert "fc.weight" not in objective.weights and "conv1.weight" in objective.weights
    expected = objective.loss()
    assert expected == pytest.approx(evaluate(model, data).loss, **EXACT)
    _, gradient = objective.gradient()
    assert gradient.keys() == objective.weights.keys() and not gradient["unused"].any()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert objective.loss() == expected


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_taken_as_it_is(in_place):
    model, data = a_network()
    expected, names = Objective(model, data).loss(), weights_of(model).keys()
    if in_place:
        model.compile(backend="eager")
    compiled = model if in_place else torch.compile(model, backend="eager")
    objective = Objective(compiled, data)
    assert objective.weights.keys() == names
    assert objective.loss() == pytest.approx(expected, **EXACT)
    assert difference(compiled, model).keys() == names
    assert all(direction.keys() == names for direction in directions(compiled))


def test_parameters_that_are_shared_move_together():
    torch.manual_seed(0)
    one = nn.Linear(3, 3).double()
    model = nn.Sequential(one, nn.Tanh(), one)
    data = [(torch.randn(5, 3, dtype=torch.float64), torch.randint(3, (5,)))]
    weights = away(model)
    assert len(weights) == 2
    expected = evaluate(with_weights(model, weights), data).loss
    assert Objective(model, data).loss(weights) == pytest.approx(expected, **EXACT)


def test_weights_are_copies_and_moved_is_a_sum():
    model, _ = a_network()
    weights = weights_of(model)
    up = {n: torch.ones_like(w) for n, w in weights.items()}
    there = moved(weights, (2.0, up), (-0.5, weights))
    for name, p in model.named_parameters():
        torch.testing.assert_close(there[name], 2 + p.detach() / 2, rtol=0, atol=1e-15)
        assert weights[name].data_ptr() != p.data_ptr() and not weights[name].requires_grad


def a_plane(**options):
    model, data = a_network()
    return plane(model, data, *directions(model), **{"points": 5, **options})


@pytest.mark.parametrize("statistics", ["stored", "reestimated"])
def test_lines_and_planes_are_the_loss_of_networks_with_these_weights(statistics):
    model, data = a_network()
    first, second = directions(model)
    seen = data if statistics == "reestimated" else None
    one = line(model, data, first, span=(-0.5, 1.5), points=5, statistics=statistics)
    two = plane(model, data, first, second, span=(-1, 0.5), points=4, statistics=statistics)
    assert one.a.tolist() == [-0.5, 0, 0.5, 1, 1.5] and two.loss.shape == (4, 4)
    np.testing.assert_allclose(np.append(two.a, two.b), [-1, -0.5, 0, 0.5] * 2)
    for found in (one, two):
        for index, loss in np.ndenumerate(found.loss):
            steps = [found.a[i] for i in index][::-1]
            at = moved(weights_of(model), *zip(steps, (first, second), strict=False))
            score = evaluate(with_weights(model, at, seen), data)
            assert loss == pytest.approx(score.loss, **EXACT)
            assert found.accuracy[index] == pytest.approx(score.accuracy, **EXACT)
        assert (found.statistics, found.images, complete(found)) == (statistics, 9, True)
    assert one.start == Score(one.loss[1], one.accuracy[1])


def test_the_start_is_evaluated_even_off_the_grid():
    model, data = a_network()
    found = line(model, data, directions(model)[0], span=(0.5, 1.0), points=2)
    assert found.start.loss == pytest.approx(evaluate(model, data).loss, **EXACT)
    assert found.start.loss not in found.loss
    assert a_plane(points=21, stop=lambda: True).a[10] == 0


def test_a_loss_that_is_not_finite_is_not_taken_for_a_missing_point():
    model, data = a_network()
    found = line(model, data, directions(model)[0], span=(0, 1e200), points=3)
    assert complete(found) and np.isinf(found.loss).tolist() == [False, True, True]


@pytest.mark.parametrize(("points", "counts"), [(21, [9, 25, 81, 289, 441]), (2, [4])])
def test_pictures_come_coarse_to_fine(points, counts):
    model, seen = Squared([4.0, 1.0], [0.3, 0.4]), []
    axes = ({"weight": e} for e in torch.eye(2, dtype=torch.float64))
    found = plane(model, ONE_IMAGE, *axes, points=points, update=seen.append)
    known = [~np.isnan(picture.loss) for picture in seen]
    assert [k.sum() for k in known] == counts
    assert all(k[0, 0] and k[-1, 0] and k[0, -1] and k[-1, -1] for k in known)
    assert all(after[before].all() for before, after in pairwise(known))
    for picture, k in zip(seen, known, strict=True):
        np.testing.assert_array_equal(picture.loss[k], found.loss[k])


@pytest.mark.parametrize("after", [0, 11])
def test_a_plane_can_be_stopped(after):
    found = a_plane(stop=iter([False] * after + [True]).__next__)
    assert not complete(found) and (~np.isnan(found.loss)).sum() == after
    whole, filled = a_plane(), found.filled()
    known = ~np.isnan(found.loss)
    np.testing.assert_array_equal(found.loss[known], whole.loss[known])
    assert found.start == whole.start and complete(filled) and not complete(found)
    for where in map(tuple, np.argwhere(np.isnan(found.loss)).tolist()):
        steps = [math.dist(where, point) for point in np.argwhere(known)]
        nearest = found.loss[known][np.flatnonzero(steps == np.min(steps))] if steps else []
        assert filled.loss[where] in (nearest if steps else [found.start.loss])


def test_ctrl_c_keeps_what_there_is():
    found = a_plane(update=Mock(side_effect=KeyboardInterrupt))
    assert (~np.isnan(found.loss)).sum() == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {n: d[n] for n in d if n != "fc.bias"}, r"must have .* lacks \['fc.bias'\]$"),
        (lambda d: d | {"bn1.running_var": torch.ones(2)}, r"must .* adds \['bn1.running_var'\]$"),
        (lambda d: d | {"fc.bias": torch.ones(3)}, r"must .* at 'fc.bias' \(10,\), got \(3,\)"),
        (lambda d: d | {"fc.bias": torch.full((10,), math.nan)}, "must be finite, at 'fc.bias'"),
        (lambda d: {n: torch.zeros_like(t) for n, t in d.items()}, "must not be all zero"),
    ],
)
def test_a_direction_that_is_none_is_refused(change, message):
    model, data = a_network()
    first, second = directions(model)
    with pytest.raises(ValueError, match=f"second {message}"):
        plane(model, data, first, change(second), points=3)
    for use in (partial(line, model, data), partial(filter_normalized, model)):
        with pytest.raises(ValueError, match=f"direction {message}"):
            use(change(second))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"span": (1.0, -1.0)}, ValueError, r"span must be finite, from low to high, got \(1.0"),
        ({"span": (0.0, 0.0)}, ValueError, "span must be finite"),
        ({"span": (0.0, math.inf)}, ValueError, "span must be finite"),
        ({"span": (math.nan, 1.0)}, ValueError, r"got \(nan, 1.0\)"),
        ({"points": 1}, ValueError, "points must be .*≥ 2, got 1"),
        ({"points": True}, TypeError, "points must be an int ≥ 2, got True"),
        ({"statistics": "train"}, ValueError, 'statistics must be "stored" or "reestimated", got'),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        a_plane(**options)


def test_what_is_saved_is_plain_arrays(tmp_path):
    model, data = a_network()
    part = a_plane(stop=iter([False] * 5 + [True]).__next__)
    whole = line(model, data, directions(model)[0], points=3, statistics="reestimated")
    for grid, name, saved in ((part, "new/a.tar", "new/a.tar.npz"), (whole, "b.npz", "b.npz")):
        path = grid.save(tmp_path / name)
        assert path == tmp_path / saved
        with np.load(path, allow_pickle=False) as found:
            assert {*found.files} == {*grid.__dataclass_fields__}
            for field in {*found.files} - {"start"}:
                np.testing.assert_equal(found[field], getattr(grid, field))
            assert found["start"].tolist() == [grid.start.loss, grid.start.accuracy]
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["a.tar.npz", "b.npz"]


def test_an_old_file_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    found = a_plane()
    path = found.save(tmp_path / "a")
    bits = path.read_bytes()

    def full(file, **_):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        found.save(path)
    assert path.read_bytes() == bits and list(tmp_path.iterdir()) == [path]


def test_an_objective_wants_images_and_weights():
    model, data = a_network()
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        Objective(model, iter(()))
    with pytest.raises(ValueError, match="require a gradient"):
        Objective(model.requires_grad_(False), data)
