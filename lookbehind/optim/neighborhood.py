"""The neighborhoods of sharpness-aware minimization, and the worst perturbation in each.

One notion serves the optimizers, which climb by it, and the measures of sharpness, which
report how high it leads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lookbehind.checks import check_bounded, members_of
from lookbehind.weights import is_sharded, norm_of, norms, per_member

# Added to the norm, as the official implementation does: a zero gradient then moves nothing.
NORM_FLOOR = 1e-16


# What is made for all parameters at once is made in batches: of a quarter of all values (so that
# it takes little memory), but not of fewer values than this (so that it takes few operations).
SMALLEST_BATCH = 2**12


Lists = tuple[list[Tensor], list[Tensor], list[bool]]


class Neighborhood(Protocol):
    """What an optimizer needs of a neighborhood: the worst perturbation of a linearised loss."""

    @property
    def members(self) -> int | None:
        """E where `rho` has shape (E,), else None."""

    def norm(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], adaptive: Sequence[bool]
    ) -> Tensor:
        """The dual norm: by ρ times it the linearised loss rises to its worst."""

    def worst(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool],
        norm: Tensor,
    ) -> list[Tensor]:
        """The ε in the neighborhood that maximizes Σ ⟨grad, ε⟩. The lists may be a batch of the
        parameters; `norm` is that of all."""


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

    def norm(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
    ) -> Tensor:
        """‖g‖₂: a scalar, or shape (E,); `adaptive` has no meaning here."""
        return norm_of(norms(grads, self.members))

    def worst(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
        norm: Tensor | None = None,
    ) -> list[Tensor]:
        """ε = ρ g / ‖g‖₂, one tensor per parameter. `norm`: ‖g‖₂, where it is known."""
        if norm is None:
            norm = self.norm(params, grads)
        return _times(grads, self.rho / (norm + NORM_FLOOR))


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
            raise TypeError(f"eta must be a finite number ≥ 0, got {self.eta!r}")
        check_bounded("eta", self.eta, also="")

    @property
    def members(self) -> int | None:
        return members_of(self.rho)

    def norm(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
    ) -> Tensor:
        """‖T g‖₂: a scalar, or shape (E,); `adaptive[j]` False makes T_j = 1."""
        parts: list[Tensor] = []
        flags = [True] * len(grads) if adaptive is None else list(adaptive)
        for some in batches(list(params), list(grads), flags, self.members):
            parts += norms(self._stretched(*some), self.members)
        return norm_of(parts)

    def worst(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        adaptive: Sequence[bool] | None = None,
        norm: Tensor | None = None,
    ) -> list[Tensor]:
        """ε = ρ T² g / ‖T g‖₂, one tensor per parameter. `norm`: ‖T g‖₂, where it is known."""
        flags = [True] * len(grads) if adaptive is None else adaptive
        if norm is None:
            norm = self.norm(params, grads, flags)
        stretched = self._stretched(params, self._stretched(params, grads, flags), flags)
        return _times(stretched, self.rho / (norm + NORM_FLOOR))

    def _stretched(
        self, params: Sequence[Tensor], tensors: Sequence[Tensor], adaptive: Sequence[bool]
    ) -> list[Tensor]:
        """T t for each tensor t; t itself where T = 1."""
        weights = [w.detach() for w, flag in zip(params, adaptive, strict=True) if flag]
        if not weights:
            return list(tensors)
        products = torch._foreach_abs(weights)
        torch._foreach_add_(products, self.eta)
        torch._foreach_mul_(
            products, [t for t, flag in zip(tensors, adaptive, strict=True) if flag]
        )
        product = iter(products)
        return [next(product) if flag else t for t, flag in zip(tensors, adaptive, strict=True)]


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


def batches(
    params: list[Tensor], grads: list[Tensor], adaptive: list[bool], members: int | None = None
) -> Iterator[Lists]:
    """The three lists in batches, large tensors in several views. A member is never cut off."""
    total = sum(p.numel() for p in params)
    limit = max(SMALLEST_BATCH, total // 4)
    if total <= limit:
        yield params, grads, adaptive
        return
    weights: list[Tensor] = []
    slopes: list[Tensor] = []
    flags: list[bool] = []
    for p, grad, flag in zip(params, grads, adaptive, strict=True):
        for w, g in zip(_cut(p, limit, members), _cut(grad, limit, members), strict=True):
            if weights and sum(v.numel() for v in weights) + w.numel() > limit:
                yield weights, slopes, flags
                weights, slopes, flags = [], [], []
            weights.append(w)
            slopes.append(g)
            flags.append(flag)
    yield weights, slopes, flags


def _cut(tensor: Tensor, limit: int, members: int | None) -> Sequence[Tensor]:
    """Views of at most `limit` values, along the longest dimension that isn't the members'."""
    free = range(0 if members is None else 1, tensor.ndim)
    if tensor.numel() <= limit or not free or is_sharded(tensor):
        return [tensor]
    longest = max(free, key=lambda dim: tensor.shape[dim])
    return tensor.split(max(1, limit * tensor.shape[longest] // tensor.numel()), longest)


def _times(tensors: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
    if scale.ndim:
        return [t * per_member(scale, t) for t in tensors]
    return list(torch._foreach_mul(list(tensors), scale))
