"""The neighborhoods of sharpness-aware minimization, and the worst perturbation in each.

Both are one formula, ε = ρ T² g / ‖T g‖₂ in ‖T⁻¹ε‖₂ ≤ ρ: a neighborhood says T only. One notion
serves the optimizers, which climb by it, and the measures of sharpness.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lookbehind.checks import check_bounded
from lookbehind.weights import local, members_of, norm, times

# Added to the norm, as the official implementation does: a zero gradient then moves nothing.
NORM_FLOOR = 1e-16
Tensors = Sequence[Tensor]
Flags = Sequence[bool] | None


@dataclass(frozen=True)
class Ball:
    """SAM's neighborhood ‖ε‖₂ ≤ ρ, the norm taken over all parameters together.

    The worst perturbation of the linearised loss is ε = ρ g / ‖g‖₂ (Foret et al. 2021,
    arXiv 2010.01412, eq. 2).

    `rho` ≥ 0 is a radius in units of the weights; of shape (E,), it takes the parameters as E
    stacked copies, each with a radius and a norm of its own. ValueError or TypeError otherwise.
    """

    rho: float | Tensor = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", check_bounded("rho", self.rho))

    asdict = asdict

    @property
    def members(self) -> int | None:
        """E where `rho` has shape (E,), else None."""
        return members_of(self.rho)

    def norm(self, params: Tensors, grads: Tensors, adaptive: Flags = None) -> Tensor:
        """‖T g‖₂, by ρ times which the linearised loss rises at worst: a scalar, or shape (E,)."""
        return norm(self._stretched(params, local(grads), adaptive, 1), self.members, of=grads)

    def worst(
        self, params: Tensors, grads: Tensors, adaptive: Flags = None, norm: Tensor | None = None
    ) -> list[Tensor]:
        """ε = ρ T² g / ‖T g‖₂, a fresh tensor a parameter: one copy of the weights.

        `adaptive[j]` False makes T_j = 1. `norm` is ‖T g‖₂, where it is known.
        """
        norm = self.norm(params, grads, adaptive) if norm is None else norm
        grads = local(grads)
        found = self._stretched(params, grads, adaptive, 2)
        return times(found, self.rho / (norm + NORM_FLOOR), spare=grads)

    def _stretched(self, params: Tensors, grads: Tensors, adaptive: Flags, power: int) -> Any:
        """T g, or T² g: of what this process holds, in fresh tensors where T ≠ 1."""
        return list(grads)


@dataclass(frozen=True)
class AdaptiveBall(Ball):
    """ASAM's neighborhood ‖T⁻¹ε‖₂ ≤ ρ with T = |w| + η, elementwise.

    The worst perturbation of the linearised loss is ε = ρ T² g / ‖T g‖₂ (Kwon et al. 2021,
    arXiv 2102.11600, eq. 8). It doesn't change when layers are rescaled without changing the
    function. T = 1 for a parameter whose `adaptive` flag is False (see `param_groups`).

    `rho` ≥ 0 is relative to the weights, `eta` ≥ 0 in their units. Members and errors as of `Ball`.
    """

    rho: float | Tensor = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.eta, Tensor):
            raise TypeError(f"eta must be a finite number ≥ 0, got {self.eta!r}")
        object.__setattr__(self, "eta", check_bounded("eta", self.eta, also=""))

    def _stretched(self, params: Tensors, grads: Tensors, adaptive: Flags, power: int) -> Any:
        scaled = [j for j in range(len(grads)) if adaptive is None or adaptive[j]]
        if not scaled:
            return list(grads)
        t = list(torch._foreach_abs(local([params[j] for j in scaled])))
        torch._foreach_add_(t, self.eta)
        if power == 2:
            torch._foreach_mul_(t, t)
        torch._foreach_mul_(t, [grads[j] for j in scaled])
        stretched = dict(zip(scaled, t, strict=True))
        return [stretched.get(j, g) for j, g in enumerate(grads)]
