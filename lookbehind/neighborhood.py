"""The neighborhoods of sharpness-aware minimization, and the worst perturbation in each.

One notion serves the optimizers, which climb by it, and the measures of sharpness, which
report how high it leads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# Added to the norm, as the official implementation does: a zero gradient then moves nothing.
NORM_FLOOR = 1e-16
# AdaptiveBall makes T = |w| + η for about this many values at a time, to save memory.
BLOCK = 2**16


class Neighborhood(Protocol):
    """What an optimizer needs of a neighborhood: the worst perturbation of a linearised loss."""

    @property
    def members(self) -> int | None:
        """E where `rho` has shape (E,), else None."""

    def worst(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], adaptive: Sequence[bool]
    ) -> list[Tensor]:
        """The ε in the neighborhood that maximizes Σ ⟨grad, ε⟩."""


@dataclass(frozen=True)
class Ball:
    """SAM's neighborhood ‖ε‖₂ ≤ ρ, the norm taken over all parameters together.

    The worst perturbation of the linearised loss is ε = ρ g / ‖g‖₂ (Foret et al. 2021,
    arXiv 2010.01412, eq. 2).

    `rho` is a radius ≥ 0 in units of the weights. A tensor of shape (E,) takes the parameters
    as E stacked copies (leading dimension E): one radius and one norm per member.
    Raises ValueError or TypeError where `rho` is negative, not finite, or not a number.
    """

    rho: float | Tensor = 0.05

    def __post_init__(self) -> None:
        check_bounded("rho", self.rho)

    @property
    def members(self) -> int | None:
        return members_of(self.rho)

    def worst(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
    ) -> list[Tensor]:
        """ε = ρ g / ‖g‖₂, one tensor per parameter; `adaptive` has no meaning here."""
        scale = self.rho / (global_norm(grads, self.members) + NORM_FLOOR)
        if scale.ndim:
            return [g * per_member(scale, g) for g in grads]
        return list(torch._foreach_mul(list(grads), scale))


@dataclass(frozen=True)
class AdaptiveBall:
    """ASAM's neighborhood ‖T⁻¹ε‖₂ ≤ ρ with T = |w| + η, elementwise.

    The worst perturbation of the linearised loss is ε = ρ T² g / ‖T g‖₂ (Kwon et al. 2021,
    arXiv 2102.11600, eq. 8). It doesn't change when layers are rescaled without changing the
    function. T = 1 for a parameter whose `adaptive` flag is False (see `param_groups`).

    `rho` is a radius ≥ 0 relative to the weights, or one per member (see `Ball`); `eta` ≥ 0 is in
    units of the weights. Raises ValueError or TypeError as `Ball` does.
    """

    rho: float | Tensor = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        check_bounded("rho", self.rho)
        if isinstance(self.eta, Tensor):
            raise TypeError(f"eta must be a number ≥ 0, got {self.eta!r}")
        check_bounded("eta", self.eta)

    @property
    def members(self) -> int | None:
        return members_of(self.rho)

    def worst(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
    ) -> list[Tensor]:
        """ε = ρ T² g / ‖T g‖₂, one tensor per parameter; `adaptive[j]` False makes T_j = 1."""
        flags = [True] * len(grads) if adaptive is None else adaptive
        scaled = [g.clone() for g in grads]
        stretched = [(t, w) for t, w, flag in zip(scaled, params, flags, strict=True) if flag]
        for t, w in stretched:
            self._stretch_(t, w)
        scale = self.rho / (global_norm(scaled, self.members) + NORM_FLOOR)
        for t, w in stretched:
            self._stretch_(t, w)
        for t in scaled:
            t.mul_(per_member(scale, t))
        return scaled

    def _stretch_(self, tensor: Tensor, w: Tensor) -> None:
        """tensor ← T · tensor, a block of rows at a time: T is never held whole."""
        tensor, w = torch.atleast_1d(tensor), torch.atleast_1d(w.detach())
        rows = max(1, BLOCK * len(w) // max(1, w.numel()))
        for t, some in zip(tensor.split(rows), w.split(rows), strict=True):
            t.mul_(some.abs().add_(self.eta))


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


def global_norm(tensors: Sequence[Tensor], members: int | None = None) -> Tensor:
    """‖·‖₂ over all tensors together: a scalar, or shape (E,) where there are E `members`.

    Half-precision tensors are summed in float32.
    """
    if members is not None:
        rows = [torch.linalg.vector_norm(t.reshape(members, -1), dim=1) for t in tensors]
        return rows[0] if len(rows) == 1 else torch.linalg.vector_norm(torch.stack(rows), dim=0)
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors)
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float32 if half else None)
    return torch.linalg.vector_norm(torch.stack(norms))


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """`values` of shape (E,) viewed so that they broadcast over `like` of shape (E, …)."""
    return values.view(-1, *(1,) * (like.ndim - 1)) if values.ndim else values


def check_bounded(name: str, value: object, most: float = math.inf, also: str = "") -> None:
    """Raises unless `value` is in [0, most] and finite: a number, or a tensor of shape () or (E,).

    `also` is what else the caller allows, for the message.
    """
    bounds = "≥ 0" if most == math.inf else f"in [0, {most}]"
    allowed = f"{name} must be a finite number {bounds}, or one per member{also}"
    if isinstance(value, Tensor):
        if value.ndim > 1 or not value.is_floating_point() or value.numel() == 0:
            shape = tuple(value.shape)
            raise ValueError(
                f"{allowed}; got a {value.dtype} tensor of shape {shape}, not () or (E,)"
            )
        if not bool(((value >= 0) & (value <= most) & value.isfinite()).all()):
            raise ValueError(f"{allowed}; got {value}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f"{allowed}; got {value!r}")
    elif not (0 <= value <= most and math.isfinite(value)):
        raise ValueError(f"{allowed}; got {value!r}")


def members_of(value: object) -> int | None:
    """E where `value` is a tensor of shape (E,), else None."""
    return len(value) if isinstance(value, Tensor) and value.ndim == 1 else None
