"""Wrong arguments are told by name, with their value and what is allowed."""

import re
from functools import partial
from math import inf, nan

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM

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
]
WRONG = {
    f"{name}={value!r}": (
        partial(make, **{name: value}),
        error,
        f"{said}.*got {re.escape(repr(value))}",
    )
    for make, name, said, error, values in REFUSED
    for value in values
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


def test_the_bounds_themselves_are_allowed():
    lookbehind(ball=Ball(0), k=1, alpha=0)
    lookbehind(ball=AdaptiveBall(0.0, 0), k=1, alpha=1)
    lookbehind(ball=Ball(torch.tensor(0.1)), alpha=torch.tensor([0.0, 0.5, 1.0]))
