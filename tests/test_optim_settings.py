"""Settings: refused by name where they are wrong, changed between steps, saved and restored."""

import copy
import re
from functools import partial
from math import inf, nan

import problems
import pytest
import reference
import torch
from problems import METHODS, difference, every_method, identical, make_base, mlp, through_disk
from torch import nn
from torch.optim import SGD

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim import make_method

ALPHA = (
    r'alpha must be a finite number in \[0, 1\], or one per member, or "adaptive", or a callable'
)
ETA, RHO = "eta must be a finite number ≥ 0", "rho must be a finite number ≥ 0, or one per member"
MEMBERS = r"has shape \(4,\).*leading dimension 4; got one of shape \(3, 2\)"
FEW, WIDE = "closure must be one, or a sequence of k =", "; got a torch.float32 tensor of shape "


def base():
    return SGD([nn.Parameter(torch.ones(3, 2))], lr=0.1)


lookbehind = partial(Lookbehind, base(), ball=Ball())
multistep = partial(MultistepSAM, base(), ball=Ball(), k=2)
by_name = partial(make_method, base=base(), rho=0.1, k=2, alpha=0.5)
# What takes a setting, its name, what is said before its value, and values that are refused.
REFUSED = [
    (lookbehind, "k", "k must be an int ≥ 1", ValueError, [0]),
    (lookbehind, "k", "k must be an int ≥ 1", TypeError, [2.0, True, "5"]),
    (lookbehind, "alpha", ALPHA, ValueError, [-0.1, 1.1, nan, "adaptiv"]),
    (lookbehind, "alpha", ALPHA, ValueError, map(torch.tensor, [[0.5, 2, 0.5], [0.5, nan, 0]])),
    (lookbehind, "alpha", ALPHA, TypeError, [None, True]),
    (Ball, "rho", RHO, ValueError, [-0.1, nan, inf, "0.1", torch.tensor([0.1, -0.1])]),
    (Ball, "rho", RHO, TypeError, [None, True]),
    (AdaptiveBall, "eta", ETA, ValueError, [-1, nan]),
    (AdaptiveBall, "eta", ETA, TypeError, [None, torch.ones(3)]),
    (multistep, "gradient", 'gradient must be "last" or "mean"', ValueError, ["first"]),
    (by_name, "name", "name must be one of SGD, SAM", ValueError, ["Lookbehind"]),
]
WRONG = {
    f"{name}={v!r}": (partial(make, **{name: v}), error, f"{said}.*got {re.escape(repr(v))}")
    for make, name, said, error, values in REFUSED
    for v in values
} | {
    "alpha 2D": (lambda: lookbehind(alpha=torch.eye(3)), ValueError, rf"{ALPHA}.*{WIDE}\(3, 3\)"),
    "alpha int": (lambda: lookbehind(alpha=torch.arange(3)), ValueError, f"{ALPHA}.*a torch.int64"),
    "rho inf": (lambda: Ball(torch.tensor(inf)), ValueError, f"{RHO}; got inf"),
    "rho (2, 2)": (lambda: Ball(torch.ones(2, 2)), ValueError, rf"{RHO}{WIDE}\(2, 2\)"),
    "rho (0,)": (lambda: Ball(torch.ones(0)), ValueError, rf"{RHO}{WIDE}\(0,\)"),
    "alpha of 4": (lambda: lookbehind(alpha=torch.ones(4) / 2), ValueError, f"alpha {MEMBERS}"),
    "rho of 4": (lambda: SAM(base(), torch.ones(4)), ValueError, f"rho {MEMBERS}"),
    "rho of SAM": (lambda: SAM(base(), -1), ValueError, "rho must.*got -1"),
    "eta of ASAM": (lambda: ASAM(base(), 0.1, nan), ValueError, "eta must.*got nan"),
    "k of Multistep": (lambda: multistep(k=-2), ValueError, "≥ 1, got -2"),
    "k of Lookahead": (lambda: Lookahead(base(), k=True), TypeError, "k must be .*got True"),
    "word": (lambda: Lookahead(base(), alpha="adaptive"), ValueError, "alpha must.*'adaptive'"),
    # the optimizers inside
    "base a list": (lambda: SAM([1]), TypeError, r"base must be a torch.optim.Optimizer, got \[1"),
    "base a SAM": (lambda: ASAM(SAM(base())), TypeError, "base must be a torch.optim"),
    "inner a list": (lambda: Lookahead([]), TypeError, r"inner must be an optimizer.*got \[\]"),
    "empty": (lambda: SAM(SGD([{"params": []}])), ValueError, "base must hold parameters.*empty"),
    "ball a number": (lambda: lookbehind(ball=0.1), TypeError, "ball must be a Ball.*got 0.1"),
    # the closure
    "no closure": (lambda: SAM(base()).step(), TypeError, "closure must be.*got None"),
    "closure a number": (lambda: SAM(base()).step(3), TypeError, "closure must be.*got 3"),
    "closures of None": (lambda: SAM(base()).step([None]), TypeError, "closure must be a func"),
    "too few closures": (lambda: lookbehind(k=3).step([float] * 2), ValueError, f"{FEW} 3; got 2"),
    "too many": (lambda: Lookahead(base(), k=1).step([float] * 2), ValueError, f"{FEW} 1; got 2"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_with_its_value_and_what_is_allowed(case):
    make, error, message = WRONG[case]
    with pytest.raises(error, match=message) as caught:
        make()
    assert type(caught.value) is error


def test_a_refused_change_changes_nothing():
    optimizer = Lookbehind(base(), Ball(0.1), k=3, alpha=0.4)
    for name, value in {"k": 0, "alpha": 2, "ball": 0.1}.items():
        with pytest.raises((ValueError, TypeError), match=name):
            setattr(optimizer, name, value)
    assert (optimizer.k, optimizer.alpha, optimizer.ball) == (3, 0.4, Ball(0.1))


@every_method("momentum wd", "adamw")
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
    rho = torch.tensor([0.1, 0.2, 0.3])
    one = lookbehind(ball=AdaptiveBall(rho, 0.2), k=4, alpha="adaptive")
    other = lookbehind(ball=AdaptiveBall(0.5), alpha=rho)
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
    refused = pytest.raises((ValueError, TypeError), match=r"state|(k|rho|alpha) must|param")
    with problems.unchanged(problem, optimizer), refused:
        optimizer.load_state_dict(good if found is None else found)
    assert repr(optimizer) == told  # all settings, and the base's options


def test_settings_may_change_between_steps_up_to_their_bounds():
    problem = mlp()
    weights = problem.weights
    oracle = reference.Base(SGD, [0.05] * len(weights), momentum=0.9)
    optimizer = Lookbehind(make_base("momentum", problem.params), Ball(0.1), k=2, alpha=0.5)
    for k, ball, climb, alpha, lr in (
        (2, Ball(torch.tensor(0.25)), (0.25, None), 0, 0.05),
        (4, Ball(0.3), (0.3, None), 0.2, 0.1),
        (1, AdaptiveBall(0.2, 0), (0.2, 0), "adaptive", 0.02),
        (3, Ball(0), (0, None), 1, 0.05),
    ):
        optimizer.k, optimizer.ball, optimizer.alpha = k, ball, alpha
        for options in (*optimizer.param_groups, *oracle.optimizer.param_groups):
            options["lr"] = lr
        steps, scaled = [problem.gradient()] * k, [True] * len(weights)
        weights = reference.lookbehind(weights, steps, oracle, climb, scaled, alpha)
        optimizer.step(problem.closure())
        assert difference(problem.weights, weights) < 1e-10
