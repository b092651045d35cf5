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
    problem, other = mlp(dtype=torch.float32), mlp(seed=5, dtype=torch.float32)
    other.batches = problem.batches
    optimizer, resumed = (METHODS[method](make_base(base, p.params)) for p in (problem, other))
    scheduler, again = (torch.optim.lr_scheduler.StepLR(o.base, 2) for o in (optimizer, resumed))

    def step(optimizer, problem, scheduler):
        for _ in range(3):
            optimizer.step(problem.closure())
            scheduler.step()

    step(optimizer, problem, scheduler)
    optimizer.climber.ball = type(optimizer.climber.ball)(0.3)
    changed = {"k": 2, "alpha": 0.3, "reuse_gradients": False, "gradient": "mean"}
    for name in changed.keys() & optimizer.settings().keys():
        setattr(optimizer, name, changed[name])
    saved = through_disk([x.state_dict() for x in (problem.model, optimizer, scheduler)])
    assert saved[1].keys() == {"state", "param_groups", "made_by", "shapes", "settings"}
    for x, state in zip((other.model, resumed, again), saved, strict=True):
        x.load_state_dict(state)
    assert repr(resumed) == repr(optimizer)
    step(optimizer, problem, scheduler)
    step(resumed, other, again)
    assert identical(other.weights, problem.weights)


def test_an_adaptive_alpha_and_members_are_restored_and_a_function_alpha_is_kept():
    w, rho = nn.Parameter(torch.ones(3, 2)), torch.tensor([0.1, 0.2, 0.3])
    base = torch.optim.SGD([w], lr=0.1)
    one = Lookbehind(base, AdaptiveBall(rho, 0.2), k=4, alpha="adaptive")
    other = Lookbehind(base, AdaptiveBall(0.5), alpha=rho)
    other.load_state_dict(through_disk(one.state_dict()))
    assert (other.alpha, other.k, other.ball.eta) == ("adaptive", 4, 0.2)
    assert isinstance(other.ball, AdaptiveBall) and torch.equal(other.ball.rho, rho)
    one.alpha, one.k, other.alpha = max, 2, min
    other.load_state_dict(through_disk(one.state_dict()))
    assert (other.alpha, other.k) == (min, 2)


def around(name, params):
    return Lookahead(Lookbehind(make_base(name, params), Ball(0.2), k=3, alpha=0.7), k=2)


def inner(**values):
    """Changes settings of the Lookbehind inside."""
    return lambda state, _: state["settings"][1].update(values)


# Each changes a good state in place, or returns another one.
FOREIGN = {
    "no dict": lambda *_: [],
    "of the base alone": lambda state, _: {n: state[n] for n in ("state", "param_groups")},
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
    found, told = FOREIGN[kind](good, problem.params), repr(optimizer)
    words = "state|k must|rho must|alpha must|param"
    with unchanged(problem, optimizer), pytest.raises((ValueError, TypeError), match=words):
        optimizer.load_state_dict(good if found is None else found)
    assert repr(optimizer) == told  # all settings, and the base's options


def test_settings_may_change_between_steps():
    problem = mlp()
    weights = problem.weights
    oracle = reference.Base(torch.optim.SGD, [0.05] * len(weights), momentum=0.9)
    optimizer = Lookbehind(make_base("momentum", problem.params), Ball(0.1), k=2, alpha=0.5)
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
