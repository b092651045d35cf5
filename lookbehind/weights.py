"""Weights as lists and dictionaries of tensors: copies, norms, members and shards."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


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


def per_member(values: Tensor, like: Tensor) -> Tensor:
    """`values` of shape (E,) viewed so that they broadcast over `like` of shape (E, …)."""
    return values.view(-1, *(1,) * (like.ndim - 1)) if values.ndim else values


Weights = dict[str, Tensor]  # a tensor a parameter, by its name: a point, or a direction


def weights_of(model: nn.Module) -> Weights:
    """A copy of the parameters that are trained, by name: a point in the space of weights."""
    named = plain(model).named_parameters()
    found = {name: p.detach().clone() for name, p in named if p.requires_grad}
    if not found:
        raise ValueError(f"model must have parameters that require a gradient: {type(model)}")
    return found


def moved(weights: Weights, *steps: tuple[float, Weights]) -> Weights:
    """w + Σ a d over the pairs (a, d) of `steps`, in a new dictionary."""
    sums = list(weights.values())
    for length, direction in steps:
        sums = list(torch._foreach_add(sums, [direction[n] for n in weights], alpha=length))
    return dict(zip(weights, sums, strict=True))


def plain(model: nn.Module) -> nn.Module:
    """The network inside a compiled one: the same parameters by their own names."""
    return getattr(model, "_orig_mod", model)
