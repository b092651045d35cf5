"""The neighborhoods of sharpness-aware minimization, and the worst perturbation in each.

One notion serves the optimizers, which climb by it, and the measures of sharpness, which
report how high it leads.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

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


def norms(tensors: Sequence[Tensor], members: int | None = None) -> list[Tensor]:
    """‖·‖₂ of each tensor: a scalar, or shape (E,). Half precision is summed in float32."""
    half = any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors)
    dtype = torch.float32 if half else None
    if members is None:
        return [over_shards(norm) for norm in torch._foreach_norm(list(tensors), 2, dtype=dtype)]
    rows = [t.reshape(members, -1) for t in tensors]
    return [torch.linalg.vector_norm(row, dim=1, dtype=dtype) for row in rows]


def norm_of(parts: Sequence[Tensor]) -> Tensor:
    """The norm of a whole from the norms of its parts."""
    return (
        parts[0] if len(parts) == 1 else torch.linalg.vector_norm(torch.stack(list(parts)), dim=0)
    )


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of it: a DTensor, as FSDP's `fully_shard` makes."""
    return hasattr(tensor, "full_tensor")


def over_shards(value: Any) -> Any:
    """A norm or sum of a sharded tensor, completed over all shards; others as they are."""
    return value.full_tensor() if is_sharded(value) else value


def _times(tensors: Sequence[Tensor], scale: Tensor) -> list[Tensor]:
    if scale.ndim:
        return [t * per_member(scale, t) for t in tensors]
    return list(torch._foreach_mul(list(tensors), scale))


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """`values` of shape (E,) viewed so that they broadcast over `like` of shape (E, …)."""
    return values.view(-1, *(1,) * (like.ndim - 1)) if values.ndim else values


def check_bounded(
    name: str, value: object, most: float = math.inf, also: str = ", or one per member"
) -> None:
    """Raises unless `value` is in [0, most] and finite: a number, or a tensor of shape () or (E,).

    `also` is what else the caller allows, for the message.
    """
    bounds = "≥ 0" if most == math.inf else f"in [0, {most}]"
    allowed = f"{name} must be a finite number {bounds}{also}"
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
    return value.shape[0] if isinstance(value, Tensor) and value.ndim == 1 else None
