"""Resume, foreign states, schedules, and settings that change between steps."""

import copy
import io

import pytest
import reference
import torch
from problems import (
    METHODS,
    copied_state,
    difference,
    identical,
    make_base,
    mlp,
    one_thread,  # noqa: F401
    same_state,
)
from torch import nn

from lookbehind import SAM, AdaptiveBall, Ball, Lookahead, Lookbehind

# --- resume and schedules -----------------------------------------------------------------------


def through_disk(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base", ["sgd", "momentum wd", "nesterov", "adamw", "rmsprop"])
@pytest.mark.parametrize("method", METHODS)
def test_resume_is_exact(method, base):
    """To stop after three steps and go on from disk is to go on, bit for bit, settings included."""
    problem = mlp(dtype=torch.float32)
    optimizer = METHODS[method](make_base(base, problem.params))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer.base, 2)

    def step(n, optimizer, problem, scheduler):
        for _ in range(n):
            optimizer.step(problem.closure())
            scheduler.step()

    step(3, optimizer, problem, scheduler)
    changed = optimizer.inner if method == "Lookahead" else optimizer
    if method not in ("SAM", "ASAM"):
        optimizer.k = 2
    changed.ball = type(changed.ball)(0.3)
    if hasattr(optimizer, "alpha"):
        optimizer.alpha = 0.3
    saved = through_disk([x.state_dict() for x in (problem.model, optimizer, scheduler)])
    other = mlp(seed=5, dtype=torch.float32)
    other.batches = problem.batches
    resumed = METHODS[method](make_base(base, other.params))
    resumed_scheduler = torch.optim.lr_scheduler.StepLR(resumed.base, 2)
    for x, state in zip((other.model, resumed, resumed_scheduler), saved, strict=True):
        x.load_state_dict(state)
    assert resumed.k == optimizer.k
    assert getattr(resumed, "alpha", None) == getattr(optimizer, "alpha", None)
    step(3, optimizer, problem, scheduler)
    step(3, resumed, other, resumed_scheduler)
    assert identical(other.weights, problem.weights)


def test_an_adaptive_alpha_and_members_are_restored():
    w = nn.Parameter(torch.ones(3, 2))
    rho = torch.tensor([0.1, 0.2, 0.3])
    one = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(rho, 0.2), k=4, alpha="adaptive")
    other = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(0.5), alpha=rho)
    other.load_state_dict(through_disk(one.state_dict()))
    assert other.alpha == "adaptive"
    assert other.k == 4
    assert isinstance(other.ball, AdaptiveBall)
    assert torch.equal(other.ball.rho, rho)
    assert other.ball.eta == 0.2


def test_a_function_alpha_is_kept_when_a_state_is_loaded():
    problem = mlp()

    def alpha(first, total):
        return 0.5

    one = Lookbehind(make_base("sgd", problem.params), Ball(), alpha=alpha, k=2)
    other = Lookbehind(make_base("sgd", problem.params), Ball(), alpha=alpha)
    other.load_state_dict(through_disk(one.state_dict()))
    assert other.alpha is alpha
    assert other.k == 2


def broken(change):
    def make(good, problem):
        state = copy.deepcopy(good)
        change(state)
        return state

    return make


FOREIGN = {
    "no dict": lambda good, problem: None,
    "of the base alone": lambda good, problem: {n: good[n] for n in ("state", "param_groups")},
    "without settings": broken(lambda s: s.pop("settings")),
    "setting missing": broken(lambda s: s["settings"][0].pop("k")),
    "setting too many": broken(lambda s: s["settings"][0].update(extra=1)),
    "k of 0": broken(lambda s: s["settings"][0].update(k=0)),
    "k of words": broken(lambda s: s["settings"][0].update(k="five")),
    "negative rho": broken(lambda s: s["settings"][0]["ball"].update(rho=-1.0)),
    "alpha of 2": broken(lambda s: s["settings"][0].update(alpha=2.0)),
    "other ball": broken(lambda s: s["settings"][0].update(ball={"rho": 0.1, "eta": 0.1})),
    "no base state": broken(lambda s: s.pop("state")),
    "no groups": broken(lambda s: s.pop("param_groups")),
    "other groups": broken(lambda s: s["param_groups"].append({"params": []})),
    "other base": lambda good, problem: Lookbehind(
        make_base("adamw", problem.params), Ball()
    ).state_dict(),
    "other class": lambda good, problem: SAM(make_base("momentum", problem.params)).state_dict(),
    "other model": lambda good, problem: Lookbehind(
        make_base("momentum", mlp((4, 6, 3)).params), Ball()
    ).state_dict(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_or_broken_state_is_refused_before_anything_changes(kind):
    problem = mlp()
    optimizer = Lookbehind(make_base("momentum", problem.params), Ball(0.2), k=3, alpha=0.7)
    optimizer.step(problem.closure())
    good = copy.deepcopy(optimizer.state_dict())
    good["settings"][0].update(k=4)
    state = FOREIGN[kind](good, problem)
    before, options = copied_state(optimizer.base), copy.deepcopy(optimizer.base.defaults)
    lrs = [group["lr"] for group in optimizer.param_groups]
    with pytest.raises((ValueError, TypeError), match=r"state|k must|rho must|alpha must|param"):
        optimizer.load_state_dict(state)
    assert (optimizer.k, optimizer.alpha, optimizer.ball) == (3, 0.7, Ball(0.2))
    assert same_state(copied_state(optimizer.base), before)
    assert optimizer.base.defaults == options
    assert [group["lr"] for group in optimizer.param_groups] == lrs


def test_a_foreign_inner_state_leaves_lookahead_as_it_was():
    problem = mlp()
    optimizer = Lookahead(SAM(make_base("momentum", problem.params), 0.2), k=3, alpha=0.7)
    state = copy.deepcopy(optimizer.state_dict())
    state["settings"][0]["k"] = 4
    state["settings"][1]["ball"]["rho"] = -1.0
    with pytest.raises(ValueError, match="rho must"):
        optimizer.load_state_dict(state)
    assert optimizer.k == 3
    assert optimizer.inner.ball == Ball(0.2)


def test_a_scheduler_wraps_the_base():
    problem = mlp()
    weights = problem.weights
    optimizer = Lookbehind(make_base("sgd", problem.params, lr=0.1), Ball(0.1), k=2, alpha=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer.base, 0.5)
    for lr in (0.1, 0.05, 0.025):
        oracle = reference.Base("sgd", [{"lr": lr}] * len(weights))
        steps = [problem.gradient()] * 2
        scaled = [True] * len(weights)
        weights = reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, 0.5)
        optimizer.step(problem.closure())
        scheduler.step()
        assert difference(problem.weights, weights) < 1e-12


def test_k_ball_and_alpha_may_change_between_steps():
    problem = mlp()
    weights = problem.weights
    base = make_base("momentum", problem.params)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    optimizer = Lookbehind(base, Ball(0.1), k=2, alpha=0.5)
    for k, ball, climb, alpha in (
        (2, Ball(0.1), (0.1, None), 0.5),
        (4, Ball(0.3), (0.3, None), 0.2),
        (1, AdaptiveBall(0.2, 0.1), (0.2, 0.1), "adaptive"),
        (3, Ball(0.0), (0.0, None), 1),
    ):
        optimizer.k, optimizer.ball, optimizer.alpha = k, ball, alpha
        scaled = [True] * len(weights)
        steps = [problem.gradient()] * k
        weights = reference.lookbehind(weights, steps, oracle, climb, scaled, alpha)
        optimizer.step(problem.closure())
        assert difference(problem.weights, weights) < 1e-10
