"""What the studies compare is what their scripts say: the match, the peers, the angles."""

from dataclasses import replace
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from results import scripts  # noqa: F401

from lookbehind import Ball
from lookbehind.optim import make_method
from lookbehind.train import Recipe

pytestmark = pytest.mark.usefixtures("scripts")


def weights(*values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def walk(optimizer, w, loss, steps):
    """The points (steps + 1, n) on a loss of the weights and the number of the step."""
    points = [w.detach().clone()]

    def closure():
        optimizer.zero_grad()
        value = loss(w, len(points) - 1)
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)
        points.append(w.detach().clone())
    return torch.stack(points)


def test_looksam_at_every_minibatch_is_sam_and_between_them_keeps_the_part_aside():
    peers = import_module("peers")
    H = torch.diag(torch.tensor([1.0, 5.0], dtype=torch.float64))
    w = weights(1.0, 0.5)
    optimizer = peers.LookSAM(torch.optim.SGD([w], lr=0.1), Ball(0.2), every=2, alpha=0.7)
    points = walk(optimizer, w, lambda w, _: w @ H @ w / 2, 4)
    for n, (point, after) in enumerate(pairwise(points)):
        g = H @ point
        there = H @ (point + 0.2 * g / g.norm())
        if n % 2 == 0:
            aside = there - (there @ g) / (g @ g) * g
        else:
            there = g + 0.7 * g.norm() / aside.norm() * aside
        torch.testing.assert_close(after, point - 0.1 * there)


def test_momentum_sam_climbs_against_its_momentum():
    peers = import_module("peers")
    w, scale = weights(1.0, 0.5), torch.tensor([1.0, 5.0], dtype=torch.float64)
    base = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    optimizer = peers.MomentumSAM(base, Ball(0.2), k=1)
    v = torch.zeros(2, dtype=torch.float64)
    for point, after in pairwise(walk(optimizer, w, lambda w, _: (scale * w * w).sum() / 2, 4)):
        aside = 0.2 * v / v.norm() if v.any() else v
        v = 0.9 * v + scale * (point - aside)
        torch.testing.assert_close(after, point - 0.1 * v)


def path_of(recipe, loss, steps):
    """The points (steps + 1, 2) of the recipe's method."""
    w = weights(1.0, -0.5)
    base = torch.optim.SGD([w], lr=recipe.lr, momentum=recipe.momentum)
    settings = {n: getattr(recipe, n) for n in ("rho", "k", "alpha", "gradient")}
    return walk(make_method(recipe.method, base, **settings), w, loss, steps)


@pytest.mark.parametrize("k", [2, 5])
def test_the_matched_control_moves_as_far_by_a_minibatch_and_forgets_as_fast(k):
    """A gradient at the first minibatch only, and how it goes on to move the weights."""
    ours = Recipe(k=k, alpha=1 / k, lr=0.1, rho=0.05)
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = {}
    for name, recipe in {"ours": ours, **import_module("control").matched(ours)}.items():
        points = path_of(recipe, lambda w, n: (slope * w).sum() * (n == 0), 150)
        moves = points.diff(dim=0)[:, 1]
        found[name] = float(moves.sum()), float(moves[3] / moves[2])
    total, decay = found["ours"]
    assert decay == pytest.approx(0.9**k)
    for name in ("SAM, matched", "mean-Multistep, matched"):
        assert found[name] == pytest.approx((total, decay))
    for name in ("SAM, old momentum", "mean-Multistep, old momentum"):
        assert found[name] == pytest.approx((total, 0.9))


def test_the_matched_control_has_the_same_path_on_a_quadratic_to_first_order():
    ours = Recipe(k=3, alpha=0.5, lr=0.002, rho=0.02)
    scale = torch.tensor([1.0, 4.0], dtype=torch.float64)

    def apart(recipe, steps):
        paths = [
            path_of(some, lambda w, _: (scale * w * w).sum() / 2, steps)
            for some in (recipe, import_module("control").matched(recipe)["SAM, matched"])
        ]
        return float((paths[0] - paths[1]).norm(dim=1).max())

    far, near = apart(ours, 40), apart(replace(ours, lr=0.001), 80)
    assert near < 0.6 * far < 0.6 * 0.03


def test_ascents_meet_the_maximum_where_they_must():
    """On a slope all gradients point there; on a bowl the first ascent turns most of the way."""
    ascents = import_module("ascents")
    w = torch.tensor([1.0, 0.2], dtype=torch.float64)
    scale = torch.tensor([1.0, 9.0], dtype=torch.float64)
    assert max(ascents.angles(lambda p: (scale * p).sum(-1), w, 0.1)) < 1e-4
    first, *rest = ascents.angles(lambda p: (scale * p * p).sum(-1) / 2, w, 0.5)
    assert first > 2 * max(rest)
