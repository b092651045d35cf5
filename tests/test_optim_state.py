"""Resume, foreign states, and settings that change between steps."""

import copy

import pytest
import reference
import torch
from problems import METHODS, difference, identical, make_base, mlp, through_disk, unchanged
from torch import nn

from lookbehind import SAM, AdaptiveBall, Ball, Lookahead, Lookbehind


@pytest.mark.parametrize("base", ["momentum wd", "adamw"])
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
    optimizer.climber.ball = type(optimizer.climber.ball)(0.3)
    changed = {"k": 2, "alpha": 0.3, "reuse_gradients": False, "gradient": "mean"}
    for name in changed.keys() & optimizer.settings().keys():
        setattr(optimizer, name, changed[name])
    saved = through_disk([x.state_dict() for x in (problem.model, optimizer, scheduler)])
    assert saved[1].keys() == {"state", "param_groups", "made_by", "shapes", "settings"}
    other = mlp(seed=5, dtype=torch.float32)
    other.batches = problem.batches
    resumed = METHODS[method](make_base(base, other.params))
    resumed_scheduler = torch.optim.lr_scheduler.StepLR(resumed.base, 2)
    for x, state in zip((other.model, resumed, resumed_scheduler), saved, strict=True):
        x.load_state_dict(state)
    assert repr(resumed) == repr(optimizer)
    step(3, optimizer, problem, scheduler)
    step(3, resumed, other, resumed_scheduler)
    assert identical(other.weights, problem.weights)


def test_an_adaptive_alpha_and_members_are_restored():
    w, rho = nn.Parameter(torch.ones(3, 2)), torch.tensor([0.1, 0.2, 0.3])
    one = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(rho, 0.2), k=4, alpha="adaptive")
    other = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(0.5), alpha=rho)
    other.load_state_dict(through_disk(one.state_dict()))
    assert (other.alpha, other.k, other.ball.eta) == ("adaptive", 4, 0.2)
    assert isinstance(other.ball, AdaptiveBall) and torch.equal(other.ball.rho, rho)


def test_a_function_alpha_is_kept_when_a_state_is_loaded():
    params = mlp().params
    one = Lookbehind(make_base("sgd", params), Ball(), alpha=max, k=2)
    other = Lookbehind(make_base("sgd", params), Ball(), alpha=min)
    other.load_state_dict(through_disk(one.state_dict()))
    assert (other.alpha, other.k) == (min, 2)


def around(name, params, k=3, alpha=0.7):
    return Lookahead(Lookbehind(make_base(name, params), Ball(0.2), k=k, alpha=alpha), k=2)


def inner(**values):
    """Changes settings of the Lookbehind inside."""
    return lambda state, _: state["settings"][1].update(values)


# Each changes a good state in place, or returns another one.
FOREIGN = {
    "no dict": lambda state, params: [],
    "of the base alone": lambda state, params: {n: state[n] for n in ("state", "param_groups")},
    "without settings": lambda state, params: state.pop("settings") and None,
    "setting missing": lambda state, params: state["settings"][1].pop("k") and None,
    "setting too many": inner(extra=1),
    "k of 0": inner(k=0),
    "k of words": inner(k="five"),
    "negative rho": inner(ball={"rho": -1.0}),
    "alpha of 2": inner(alpha=2.0),
    "other ball": inner(ball={"rho": 0.1, "eta": 0.1}),
    "no base state": lambda state, params: state.pop("state") and None,
    "no groups": lambda state, params: state.pop("param_groups") and None,
    "other groups": lambda state, params: state["param_groups"].append({"params": []}),
    "other base": lambda state, params: around("adamw", params).state_dict(),
    "other class": lambda state, params: SAM(make_base("momentum", params)).state_dict(),
    "other model": lambda *_: around("momentum", mlp((4, 6, 3)).params).state_dict(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_or_broken_state_is_refused_before_anything_changes(kind):
    problem = mlp()
    optimizer = around("momentum", problem.params)
    optimizer.step(problem.closure())
    good = copy.deepcopy(optimizer.state_dict())
    good["settings"][0]["k"], good["param_groups"][0]["lr"] = 4, 7.0
    found = FOREIGN[kind](good, problem.params)
    told = repr(optimizer)
    with (
        unchanged(problem, optimizer),
        pytest.raises((ValueError, TypeError), match=r"state|k must|rho must|alpha must|param"),
    ):
        optimizer.load_state_dict(good if found is None else found)
    assert repr(optimizer) == told  # all settings, and the base's options


def test_settings_may_change_between_steps():
    problem = mlp()
    weights = problem.weights
    base = make_base("momentum", problem.params)
    oracle = reference.Base(torch.optim.SGD, [0.05] * len(weights), momentum=0.9)
    optimizer = Lookbehind(base, Ball(0.1), k=2, alpha=0.5)
    for k, ball, climb, alpha, lr in (
        (2, Ball(0.1), (0.1, None), 0.5, 0.05),
        (4, Ball(0.3), (0.3, None), 0.2, 0.1),
        (1, AdaptiveBall(0.2, 0.1), (0.2, 0.1), "adaptive", 0.02),
        (3, Ball(0.0), (0.0, None), 1, 0.05),
    ):
        optimizer.k, optimizer.ball, optimizer.alpha = k, ball, alpha
        for options in (*optimizer.param_groups, *oracle.optimizer.param_groups):
            options["lr"] = lr
        steps, scaled = [problem.gradient()] * k, [True] * len(weights)
        weights = reference.lookbehind(weights, steps, oracle, climb, scaled, alpha)
        optimizer.step(problem.closure())
        assert difference(problem.weights, weights) < 1e-10
