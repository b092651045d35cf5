"""The methods that the notebooks compare, by name: all that is known of each stands here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lookbehind.optim.family import ASAM, SAM, Alpha, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim.neighborhood import AdaptiveBall, Ball


@dataclass(frozen=True)
class Method:
    """`axes` are the settings that it has. `make(base, ball, **settings)` takes its neighborhood,
    of `rho` and `eta`, and the other settings.

    `cost(k)` says how many gradients it takes a minibatch, `adaptive` whether α may be "adaptive".
    """

    axes: tuple[str, ...]
    make: Callable[..., Any]
    cost: Callable[[int], int] = lambda k: k + 1
    adaptive: bool = False

    @property
    def sliders(self) -> tuple[str, ...]:
        """Which of "k", "rho", "alpha" it has, and "adaptive" where that is one more value of α."""
        found = tuple(axis for axis in self.axes if axis in ("k", "rho", "alpha"))
        return (*found, "adaptive") if self.adaptive else found


METHODS: dict[str, Method] = {
    "SGD": Method((), lambda base, ball: base, lambda k: 1),
    "SAM": Method(("rho",), lambda base, ball: SAM(base, ball.rho), lambda k: 2),
    "ASAM": Method(("rho", "eta"), lambda base, ball: ASAM(base, ball.rho, ball.eta), lambda k: 2),
    "Multistep-SAM": Method(("k", "rho", "gradient"), MultistepSAM),
    "Lookahead-SAM": Method(
        ("k", "rho", "alpha"),
        lambda base, ball, **settings: Lookahead(SAM(base, ball.rho), **settings),
        lambda k: 2,
    ),
    "Lookbehind-SAM": Method(("k", "rho", "alpha"), Lookbehind, adaptive=True),
    "Lookbehind-ASAM": Method(("k", "rho", "alpha", "eta"), Lookbehind, adaptive=True),
}


def make_method(
    name: str, base: Optimizer, *, rho: Any, k: int, alpha: Alpha, eta: float = 0.01,
    gradient: str = "last",
) -> Any:  # fmt: skip
    """The optimizer called `name` around `base`; what a method doesn't have is ignored.

    `eta` is that of ASAM and Lookbehind-ASAM, `gradient` ("last" or "mean") that of Multistep-SAM.
    Raises ValueError for a name that isn't one of `METHODS`.
    """
    if name not in METHODS:
        raise ValueError(f"name must be one of {', '.join(METHODS)}, got {name!r}")
    method, given = METHODS[name], {"k": k, "alpha": alpha, "gradient": gradient}
    ball = AdaptiveBall(rho, eta) if "eta" in method.axes else Ball(rho)
    return method.make(base, ball, **{n: v for n, v in given.items() if n in method.axes})


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The two parameter groups by which the official ASAM scales, for any `torch.optim` optimizer.

    Parameters whose name contains "weight" are scaled by T = |w| + η; the rest carry
    `"adaptive": False` and keep T = 1. Add learning rates or weight decay to the groups as usual.
    Raises ValueError where the model has no parameters.
    """
    named = list(model.named_parameters())
    if not named:
        raise ValueError(f"model must have parameters, got {type(model).__name__} with none")
    weights = [p for name, p in named if "weight" in name]
    rest = [p for name, p in named if "weight" not in name]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": rest, "adaptive": False}]
    return [group for group in groups if group["params"]]
