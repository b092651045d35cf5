"""Weights as one point in their space, whether a list of tensors or a dictionary by name.

Nothing above asks for members, half precision or shards but by the functions of this file. Of a
DTensor, as FSDP's `fully_shard` makes, the shard that is here is worked on, a plain tensor; a norm
over all shards is one exchange.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

HALF = (torch.float16, torch.bfloat16)


def is_sharded(tensor: Any) -> bool:
    """Whether other processes hold the rest of it."""
    return type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "to_local")


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds of each: a view, of complex numbers as pairs; sparse ones dense."""
    return [_local(t) for t in tensors]


def _local(tensor: Any) -> Tensor:
    if is_sharded(tensor):
        return tensor.to_local()
    if tensor.is_complex():
        return torch.view_as_real(tensor.detach().resolve_conj())
    return tensor.to_dense() if tensor.is_sparse else tensor.detach()


def prompt(tensor: Tensor) -> bool:
    """Whether its value is there for the asking, and no process waits for this one."""
    group = torch.distributed
    others = group.is_available() and group.is_initialized() and group.get_world_size() > 1
    return tensor.device.type == "cpu" and not others


def over_shards(sums: Tensor, of: Tensor) -> Tensor:
    """`sums` over what is held here, completed over all processes that share the tensor `of`."""
    if not is_sharded(of):
        return sums
    from torch.distributed.tensor import DTensor, Partial, Replicate

    assert isinstance(of, DTensor)
    places = [Partial() if place.is_shard() else Replicate() for place in of.placements]
    return DTensor.from_local(sums, of.device_mesh, places).full_tensor()


def norm(
    tensors: Sequence[Tensor], members: int | None = None, of: Sequence[Tensor] | None = None
) -> Tensor:
    """‖·‖₂ over all tensors together: a scalar, or one a member, (E,). Half precision is summed in
    float32. `of` are the parameters of the tensors where these are shards already."""
    of, tensors = of or tensors, local(tensors)
    dtypes = {torch.float32 if t.dtype in HALF else t.dtype for t in tensors}
    dtype = reduce(torch.promote_types, dtypes)
    if members is None:
        found = list(torch._foreach_norm(tensors, 2, dtype=dtype))
    else:
        rows = [t.reshape(members, -1) for t in tensors]
        found = [torch.linalg.vector_norm(row, dim=1, dtype=dtype) for row in rows]
    sharded = [i for i, t in enumerate(of) if is_sharded(t)]
    if sharded:
        squares = torch.stack([found[i] for i in sharded]).square()
        completed = over_shards(squares, of[sharded[0]]).sqrt()
        found = [n for i, n in enumerate(found) if i not in sharded] + [*completed]
    if len({n.device for n in found}) > 1:
        found = [n.to(found[0].device) for n in found]
    return torch.linalg.vector_norm(torch.stack(found), dim=0) if len(found) > 1 else found[0]


def cosine(one: Tensor, other: Tensor, members: int | None, of: Tensor) -> Tensor:
    """cos ∠(one, other), 0 where one of them is 0: a scalar, or (E,). `of`: as for `norm`."""
    a, b = (t.reshape(members or 1, -1) for t in (one, other))
    sums = torch.stack([(a * b).sum(1), a.square().sum(1), b.square().sum(1)])
    dot, first, second = over_shards(sums, of)
    found = dot / (first.sqrt() * second.sqrt()).clamp_min(torch.finfo(a.dtype).tiny)
    return found.clamp(-1, 1) if members else found[0].clamp(-1, 1)


def members_of(value: object) -> int | None:
    """E where `value` is a tensor of shape (E,), one value a member, else None."""
    return value.shape[0] if isinstance(value, Tensor) and value.ndim == 1 else None


def per_member(values: Any, like: Tensor) -> Any:
    """`values` of shape (E,) viewed so that they broadcast over `like` of shape (E, …)."""
    if not isinstance(values, Tensor) or not values.ndim:
        return values
    return values.view(-1, *(1,) * (like.ndim - 1))


def times(tensors: list[Tensor], scale: Tensor, spare: Sequence[Tensor]) -> list[Tensor]:
    """`scale` times each, a scalar in place, but for tensors that are among `spare`."""
    if scale.ndim or len({t.device for t in tensors}) > 1:
        return [t * per_member(scale.to(t.device), t) for t in tensors]
    fresh = [t for t, kept in zip(tensors, spare, strict=True) if t is not kept]
    if not fresh:
        return list(torch._foreach_mul(tensors, scale))
    torch._foreach_mul_(fresh, scale)
    return [t * scale if t is kept else t for t, kept in zip(tensors, spare, strict=True)]


def clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.clone() for t in local(tensors)]


def add_(targets: Sequence[Tensor], steps: Sequence[Tensor]) -> None:
    """targets ← targets + steps, in place; the steps are of what this process holds."""
    torch._foreach_add_(local(targets), list(steps))


def copy_(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """targets ← values, in place."""
    torch._foreach_copy_(local(targets), list(values))


@contextmanager
def swapped(params: Sequence[Tensor], others: list[Tensor]) -> Iterator[None]:
    """Inside, `params` hold the values of `others`; what is done to them is done to `others`."""
    _exchange(params, others)
    try:
        yield
    finally:
        _exchange(params, others)


def _exchange(params: Sequence[Tensor], others: list[Tensor]) -> None:
    """Of pointers: the closure always sees the parameters' own storage. A shard hides its own."""
    for i, p in enumerate(params):
        if is_sharded(p):
            value = local([p])[0].clone()
            local([p])[0].copy_(others[i])
            others[i].copy_(value)
        elif p.is_complex():
            p.data, others[i] = torch.view_as_complex(others[i]), torch.view_as_real(p.data)
        else:
            p.data, others[i] = others[i], p.data


def interpolate_(params: Sequence[Tensor], slow: Sequence[Tensor], alphas: Sequence[Any]) -> None:
    """params ← slow + α (params − slow), an α a parameter; what didn't move keeps its last bit."""
    for p, s, alpha in zip(local(params), slow, alphas, strict=True):
        weight = per_member(alpha, p)
        p.lerp_(s, 1 - (weight.to(p) if isinstance(weight, Tensor) else weight))


Weights = dict[str, Tensor]  # a tensor a parameter, by its name: a point, or a direction


def weights_of(model: nn.Module) -> Weights:
    """A copy of the parameters that are trained, by name: a point in the space of weights."""
    named = plain(model).named_parameters()
    found = {name: p.detach().clone() for name, p in named if p.requires_grad}
    if not found:
        raise ValueError(f"model must have parameters that require a gradient: {type(model)}")
    for name, w in found.items():
        if w.is_complex():
            raise ValueError(f"model must have real parameters, {name!r} is {w.dtype}")
    return found


def copied(model: nn.Module, tensors: Mapping[Tensor, Tensor] | None = None) -> nn.Module:
    """A copy of a network that holds the values of `tensors` in the place of their keys. What hooks
    make before a forward pass (see `made_by_hooks`) can't be copied, and is empty until then."""
    network, memo = plain(model), {id(old): new for old, new in (tensors or {}).items()}
    for module, name, _ in made_by_hooks(network):
        memo[id(getattr(module, name))] = torch.empty(0)
    return copy.deepcopy(network, memo)


def made_by_hooks(network: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """(module, name of the tensor, hook), of pruned layers and of the old `weight_norm`."""
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            name = str(getattr(hook, "_tensor_name", getattr(hook, "name", "")))
            if isinstance(vars(module).get(name), Tensor):
                yield module, name, hook


class PlainWeightNorm(TorchFunctionMode):
    """Inside, weight norm is its formula, g v / ‖v‖: torch's own kernel has no rule for `vmap`, and
    a wrong second derivative, which takes ‖v‖ for a constant (torch 2.14)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch._weight_norm:
            return func(*args, **(kwargs or {}))
        v, g, dim = (*args, 0)[:3]
        others = [d for d in range(v.ndim) if d != dim or dim == -1]
        return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))


def moved(weights: Weights, *steps: tuple[float, Weights]) -> Weights:
    """w + Σ a d over the pairs (a, d) of `steps`, in a new dictionary."""
    sums = list(weights.values())
    for length, direction in steps:
        sums = list(torch._foreach_add(sums, [direction[n] for n in weights], alpha=length))
    return dict(zip(weights, sums, strict=True))


def plain(model: nn.Module) -> nn.Module:
    """The network inside a compiled one: the same parameters by their own names."""
    return getattr(model, "_orig_mod", model)
