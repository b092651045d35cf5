"""Checks of arguments: errors that name the argument, its value and what is allowed."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lookbehind.scores import changed


def plain_numbers(value: Any) -> Any:
    """`value` with NumPy's numbers and arrays as Python's, in dictionaries and lists too: a
    checkpoint keeps these, and is refused by `torch.load(weights_only=True)` with the others."""
    return changed(value, lambda number: number.tolist(), (np.generic, np.ndarray))


def check_bounded(
    name: str, value: Any, most: float = math.inf, also: str = ", or one per member"
) -> Any:
    """`value` as a checkpoint can keep it; raises unless it is in [0, most] and finite: a number,
    or a tensor of shape () or (E,). `also` is what else the caller allows, for the message."""
    bounds = "≥ 0" if most == math.inf else f"in [0, {most}]"
    allowed = f"{name} must be a finite number {bounds}{also}"
    if isinstance(value, Tensor):
        if value.ndim > 1 or not value.is_floating_point() or value.numel() == 0:
            found = f"a {value.dtype} tensor of shape {tuple(value.shape)}, not () or (E,)"
            raise ValueError(f"{allowed}; got {found}")
        if not bool(((value >= 0) & (value <= most) & value.isfinite()).all()):
            raise ValueError(f"{allowed}; got {value}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f"{allowed}; got {value!r}")
    elif not (0 <= value <= most and math.isfinite(value)):
        raise ValueError(f"{allowed}; got {value!r}")
    return value.detach() if isinstance(value, Tensor) else plain_numbers(value)


def whole(name: str, value: object, least: int, most: float = math.inf) -> int:
    """`value`; TypeError or ValueError unless it is an int in [least, most]."""
    bounds = f"≥ {least}" if most == math.inf else f"in [{least}, {most}]"
    allowed = f"{name} must be an int {bounds}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(allowed)
    if not least <= value <= most:
        raise ValueError(allowed)
    return value


def one_of(name: str, value: Any, *allowed: Any) -> Any:
    """`value`; ValueError unless it is one of `allowed`, and of its type."""
    if not any(type(value) is type(each) and value == each for each in allowed):
        choices = " or ".join(repr(each).replace("'", '"') for each in allowed)
        raise ValueError(f"{name} must be {choices}, got {value!r}")
    return value


CLOSURE = """

    def closure():
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
"""


def closures_of(closure: Any, k: int) -> Sequence[Callable[[], Any]]:
    """One closure k times, or the k of them; TypeError or ValueError where it is something else,
    or where Accelerate would skip some of the steps."""
    accelerate = sys.modules.get("accelerate.state")
    count = accelerate.GradientState().num_steps if accelerate else 1
    if count > 1:
        raise ValueError(
            f"gradient_accumulation_steps must be 1, got {count}: Accelerate would skip steps with "
            "their minibatches. Accumulate in the closure: several backward passes before it "
            "returns the loss"
        )
    found = [closure] * k if callable(closure) else closure
    if not isinstance(found, Sequence) or not all(map(callable, found)):
        allowed = "closure must be a function that takes a gradient, or a sequence of k of them"
        raise TypeError(f"{allowed}; got {closure!r}. A step needs it at several points:{CLOSURE}")
    if len(found) != k:
        raise ValueError(f"closure must be one, or a sequence of k = {k}; got {len(found)}")
    return found


def check_not_scaled(caller: FrameType) -> bool:
    """False; TypeError where `caller` is the step of a GradScaler, which would leave the gradients
    that a closure makes scaled."""
    if caller.f_globals.get("__name__") == "torch.amp.grad_scaler":
        raise TypeError(
            "scaler.step(optimizer, closure) must be optimizer.step(closure), with the gradient "
            "scaled and unscaled in the closure"
        )
    return False


def outline(state: Any) -> Any:
    """Of a state its names and lengths only, whatever the values."""
    if isinstance(state, dict):
        return {name: outline(part) for name, part in state.items()}
    return [outline(part) for part in state] if isinstance(state, list) else None


def check_members(name: str, members: int | None, groups: Iterable[dict[str, Any]]) -> None:
    """Raises ValueError where there are members, and a parameter isn't a stack of so many."""
    if members is None:
        return
    for p in (p for group in groups for p in group["params"] if p.requires_grad):
        if p.shape[:1] != (members,):
            raise ValueError(
                f"{name} has shape ({members},), one value a member, so every parameter must have "
                f"leading dimension {members}; got one of shape {tuple(p.shape)}"
            )


def plain(value: Any) -> Any:
    """A number of NumPy, or a tensor of one, as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def kept(name: str, value: Any) -> Any:
    """`value` as a checkpoint keeps it, what NumPy made as Python's own; TypeError unless it is
    plain (numbers, strings, None) or a tensor, or such in dictionaries, lists and tuples."""
    value = plain_numbers(value)
    if isinstance(value, Mapping):
        return {key: kept(f"{name}[{key!r}]", part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [kept(f"{name}[{i}]", part) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if type(value) in (str, int, float, bool, type(None), torch.dtype) or isinstance(value, Tensor):
        return value
    kind = type(value).__name__
    raise TypeError(f"{name} must be plain, to be kept in a checkpoint; got {kind}: {value!r}")
