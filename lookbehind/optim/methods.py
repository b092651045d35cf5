"""The methods that the notebooks compare, by name."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from lookbehind.optim.family import ASAM, SAM, Alpha, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim.neighborhood import AdaptiveBall, Ball

METHODS: dict[str, Callable[..., Any]] = {
    "SGD": lambda base, **_: base,
    "SAM": lambda base, rho, **_: SAM(base, rho),
    "ASAM": lambda base, rho, eta, **_: ASAM(base, rho, eta),
    "Multistep-SAM": lambda base, rho, k, gradient, **_: MultistepSAM(
        base, Ball(rho), k=k, gradient=gradient
    ),
    "Lookahead-SAM": lambda base, rho, k, alpha, **_: Lookahead(SAM(base, rho), k=k, alpha=alpha),
    "Lookbehind-SAM": lambda base, rho, k, alpha, **_: Lookbehind(
        base, Ball(rho), k=k, alpha=alpha
    ),
    "Lookbehind-ASAM": lambda base, rho, eta, k, alpha, **_: Lookbehind(
        base, AdaptiveBall(rho, eta), k=k, alpha=alpha
    ),
}


# Which settings a method has; "adaptive" is one more value of α.
AXES: dict[str, tuple[str, ...]] = {
    "SGD": (),
    "SAM": ("rho",),
    "ASAM": ("rho",),
    "Multistep-SAM": ("k", "rho"),
    "Lookahead-SAM": ("k", "rho", "alpha"),
    "Lookbehind-SAM": ("k", "rho", "alpha", "adaptive"),
    "Lookbehind-ASAM": ("k", "rho", "alpha", "adaptive"),
}


def make_method(
    name: str,
    base: Optimizer,
    *,
    rho: Any,
    k: int,
    alpha: Alpha,
    eta: float = 0.01,
    gradient: str = "last",
) -> Any:
    """The optimizer called `name` around `base`; what a method doesn't have is ignored.

    `eta` is that of ASAM and Lookbehind-ASAM, `gradient` ("last" or "mean") that of Multistep-SAM.
    Raises ValueError for a name that isn't one of `METHODS`.
    """
    if name not in METHODS:
        raise ValueError(f"name must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name](base, rho=rho, k=k, alpha=alpha, eta=eta, gradient=gradient)
