"""Wrong arguments are told by name, with their value and what is allowed."""

import math

import pytest
import torch
from torch import nn

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM

NAN, INF = math.nan, math.inf
ALPHA = (
    r'alpha must be a finite number in \[0, 1\], or one per member, or "adaptive", or a callable'
)
GRADIENT, FEW = 'gradient must be "last" or "mean"', "closure must be one, or a sequence of k ="
MEMBERS = r"has shape \(4,\).*leading dimension 4; got one of shape \(3, 2\)"


def base():
    return torch.optim.SGD([nn.Parameter(torch.ones(3, 2))], lr=0.1)


def multistep(**options):
    return MultistepSAM(base(), Ball(), **{"k": 2, **options})


def lookbehind(**options):
    return Lookbehind(base(), **{"ball": Ball(), **options})


def empty():
    emptied = base()
    emptied.param_groups[0]["params"] = []
    return emptied


WRONG = {
    **{
        f"k={k!r}": (lambda k=k: lookbehind(k=k), error, f"k must be an int ≥ 1, got {k!r}")
        for k, error in ((0, ValueError), (2.0, TypeError), (True, TypeError), ("5", TypeError))
    },
    **{
        f"alpha={alpha!r}": (lambda a=alpha: lookbehind(alpha=a), error, f"{ALPHA}.*; got {found}")
        for alpha, error, found in [
            (-0.1, ValueError, "-0.1"),
            (1.1, ValueError, "1.1"),
            (NAN, ValueError, "nan"),
            ("adaptiv", ValueError, "'adaptiv'"),
            (None, TypeError, "None"),
            (True, TypeError, "True"),
            (torch.tensor([0.5, 2.0, 0.5]), ValueError, "tensor"),
            (torch.tensor([0.5, NAN, 0.5]), ValueError, "tensor"),
            (torch.ones(3, 1), ValueError, r"a torch.float32 tensor of shape \(3, 1\)"),
            (torch.ones(3, dtype=torch.int64), ValueError, "a torch.int64 tensor"),
        ]
    },
    **{
        f"rho={rho!r}": (lambda rho=rho: Ball(rho), error, f"rho must be .* ≥ 0.*; got {found}")
        for rho, error, found in [
            (-0.1, ValueError, "-0.1"),
            (NAN, ValueError, "nan"),
            (INF, ValueError, "inf"),
            (None, TypeError, "None"),
            (True, TypeError, "True"),
            ("0.1", ValueError, "'0.1'"),
            (torch.tensor([0.1, -0.1]), ValueError, "tensor"),
            (torch.tensor(INF), ValueError, "inf"),
            (torch.ones(2, 2), ValueError, r"a torch.float32 tensor of shape \(2, 2\)"),
            (torch.ones(0), ValueError, r"a torch.float32 tensor of shape \(0,\)"),
        ]
    },
    **{
        f"eta={eta!r}": (lambda eta=eta: AdaptiveBall(0.1, eta), error, f"eta must be.*{found}")
        for eta, error, found in [
            (-1, ValueError, "a finite number ≥ 0; got -1"),
            (NAN, ValueError, "got nan"),
            (None, TypeError, "got None"),
            (torch.ones(3), TypeError, "tensor"),
        ]
    },
    "alpha of 4": (lambda: lookbehind(alpha=torch.full((4,), 0.5)), ValueError, "alpha " + MEMBERS),
    "rho of 4": (lambda: SAM(base(), torch.ones(4)), ValueError, "rho " + MEMBERS),
    "rho of SAM": (lambda: SAM(base(), -1), ValueError, "rho must.*got -1"),
    "eta of ASAM": (lambda: ASAM(base(), 0.1, NAN), ValueError, "eta must.*got nan"),
    "k of Multistep": (lambda: multistep(k=-2), ValueError, "≥ 1, got -2"),
    "gradient": (lambda: multistep(gradient="first"), ValueError, f"{GRADIENT}, got 'first'"),
    "k of Lookahead": (lambda: Lookahead(base(), k=True), TypeError, "k must be .*got True"),
    "word": (lambda: Lookahead(base(), alpha="adaptive"), ValueError, "alpha must.*'adaptive'"),
    # the optimizers inside
    "base a list": (lambda: SAM([1]), TypeError, r"base must be a torch.optim.Optimizer, got \[1"),
    "base a SAM": (lambda: ASAM(SAM(base())), TypeError, "base must be a torch.optim"),
    "inner a list": (lambda: Lookahead([]), TypeError, r"inner must be an optimizer.*got \[\]"),
    "no parameters": (lambda: SAM(empty()), ValueError, "base must hold parameters, got an empty"),
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
