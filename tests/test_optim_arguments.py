"""Wrong arguments are told by name, with their value and what is allowed."""

import math

import pytest
import torch
from problems import one_thread  # noqa: F401
from torch import nn

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM

NAN, INF = math.nan, math.inf


def base():
    return torch.optim.SGD([nn.Parameter(torch.ones(3, 2))], lr=0.1)


def stepped(optimizer, closure):
    optimizer.step(closure)


def empty():
    emptied = base()
    emptied.param_groups[0]["params"] = []
    return emptied


WRONG = {
    # k
    "k=0": (lambda: Lookbehind(base(), Ball(), k=0), ValueError, "k must be an int ≥ 1, got 0"),
    "k=-2": (
        lambda: MultistepSAM(base(), Ball(), k=-2),
        ValueError,
        "k must be an int ≥ 1, got -2",
    ),
    "k=2.0": (
        lambda: Lookbehind(base(), Ball(), k=2.0),
        TypeError,
        "k must be an int ≥ 1, got 2.0",
    ),
    "k=True": (lambda: Lookahead(base(), k=True), TypeError, "k must be an int ≥ 1, got True"),
    "k='5'": (
        lambda: Lookbehind(base(), Ball(), k="5"),
        TypeError,
        "k must be an int ≥ 1, got '5'",
    ),
    "k set": (lambda: setattr(SAM(base()), "k", 0), ValueError, "k must be an int ≥ 1, got 0"),
    # alpha
    **{
        f"alpha={alpha!r}": (
            lambda alpha=alpha: Lookbehind(base(), Ball(), alpha=alpha),
            error,
            r'alpha must be a finite number in \[0, 1\], or one per member, or "adaptive", or a '
            rf"callable.*; got {found}",
        )
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
    "alpha of 4 members": (
        lambda: Lookbehind(base(), Ball(), alpha=torch.full((4,), 0.5)),
        ValueError,
        r"alpha has shape \(4,\).*leading dimension 4; got one of shape \(3, 2\)",
    ),
    "alpha of Lookahead": (
        lambda: Lookahead(base(), alpha="adaptive"),
        ValueError,
        r"alpha must be a finite number in \[0, 1\].*got 'adaptive'",
    ),
    "alpha set": (
        lambda: setattr(Lookbehind(base(), Ball()), "alpha", 2),
        ValueError,
        "alpha must.*got 2",
    ),
    # rho and eta
    **{
        f"rho={rho!r} of {make.__name__}": (
            lambda rho=rho, make=make: make(rho),
            error,
            f"rho must be a finite number ≥ 0.*; got {found}",
        )
        for make in (Ball, AdaptiveBall)
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
    "rho of SAM": (lambda: SAM(base(), -1), ValueError, "rho must.*got -1"),
    "rho of ASAM": (lambda: ASAM(base(), NAN), ValueError, "rho must.*got nan"),
    "rho of 4 members": (
        lambda: SAM(base(), torch.ones(4)),
        ValueError,
        r"rho has shape \(4,\).*leading dimension 4; got one of shape \(3, 2\)",
    ),
    "eta=-1": (
        lambda: AdaptiveBall(0.1, -1),
        ValueError,
        "eta must be a finite number ≥ 0; got -1",
    ),
    "eta=nan": (lambda: ASAM(base(), 0.1, NAN), ValueError, "eta must.*got nan"),
    "eta=None": (lambda: AdaptiveBall(0.1, None), TypeError, "eta must.*got None"),
    "eta of members": (lambda: AdaptiveBall(0.1, torch.ones(3)), TypeError, "eta must be.*tensor"),
    # the optimizers inside
    "base a list": (
        lambda: SAM([torch.ones(2)]),
        TypeError,
        r"base must be a torch.optim.Optimizer, got \[tensor",
    ),
    "base a SAM": (
        lambda: Lookbehind(SAM(base()), Ball()),
        TypeError,
        "base must be a torch.optim",
    ),
    "inner a list": (lambda: Lookahead([]), TypeError, r"inner must be an optimizer.*got \[\]"),
    "no parameters": (lambda: SAM(empty()), ValueError, "base must hold parameters, got an empty"),
    "ball a number": (lambda: Lookbehind(base(), 0.1), TypeError, "ball must be a Ball.*got 0.1"),
    "gradient": (
        lambda: MultistepSAM(base(), Ball(), k=2, gradient="first"),
        ValueError,
        'gradient must be "last" or "mean", got \'first\'',
    ),
    # the closure
    "no closure": (lambda: stepped(SAM(base()), None), TypeError, "closure must be.*got None"),
    "closure a number": (lambda: stepped(SAM(base()), 3), TypeError, "closure must be.*got 3"),
    "closures of None": (lambda: stepped(SAM(base()), [None]), TypeError, "closure must be a func"),
    "too few closures": (
        lambda: stepped(Lookbehind(base(), Ball(), k=3), [lambda: 1.0] * 2),
        ValueError,
        "closure must be one, or a sequence of k = 3; got 2",
    ),
    "too many closures": (
        lambda: stepped(Lookahead(base(), k=1), [lambda: 1.0] * 2),
        ValueError,
        "closure must be one, or a sequence of k = 1; got 2",
    ),
    "no loss": (lambda: stepped(SAM(base()), lambda: None), TypeError, "return the loss, got None"),
    "no loss in Lookahead": (
        lambda: stepped(Lookahead(base()), lambda: None),
        TypeError,
        "return the loss, got None",
    ),
    "no backward": (lambda: stepped(SAM(base()), lambda: 1.0), ValueError, "must call backward"),
    "no backward in Lookahead": (
        lambda: stepped(Lookahead(base()), lambda: 1.0),
        ValueError,
        "must call backward",
    ),
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
    Lookbehind(base(), Ball(0), k=1, alpha=0)
    Lookbehind(base(), AdaptiveBall(0.0, 0), k=1, alpha=1)
    Lookbehind(base(), Ball(torch.tensor(0.1)), alpha=torch.tensor([0.0, 0.5, 1.0]))
