"""Checks of arguments: errors that name the argument, its value and what is allowed."""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def plain_numbers(value: Any) -> Any:
    """`value` with NumPy's numbers and arrays as Python's, in dictionaries and lists too: a
    checkpoint keeps these, and is refused by `torch.load(weights_only=True)` with the others."""
    if isinstance(value, dict):
        return {plain_numbers(name): plain_numbers(inside) for name, inside in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def check_bounded(
    name: str, value: Any, most: float = math.inf, also: str = ", or one per member"
) -> Any:
    """`value` as a checkpoint can keep it; raises unless it is in [0, most] and finite: a number,
    or a tensor of shape () or (E,).

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
    """One closure k times, or the k of them; TypeError or ValueError where it is something else."""
    found = [closure] * k if callable(closure) else closure
    if not isinstance(found, Sequence) or not all(map(callable, found)):
        allowed = "closure must be a function that takes a gradient, or a sequence of k of them"
        raise TypeError(f"{allowed}; got {closure!r}. A step needs it at several points:{CLOSURE}")
    if len(found) != k:
        raise ValueError(f"closure must be one, or a sequence of k = {k}; got {len(found)}")
    return found


def check_wrappers() -> None:
    """Raises ValueError where Accelerate lets `step` through at some minibatches only."""
    accelerate = sys.modules.get("accelerate.state")
    count = accelerate.GradientState().num_steps if accelerate else 1
    if count > 1:
        raise ValueError(
            f"gradient_accumulation_steps must be 1, got {count}: Accelerate would skip the step, "
            "with its minibatch, but every so often. Accumulate in the closure: several backward "
            "passes before it returns the loss"
        )


def check_members(name: str, value: object, groups: Iterable[dict[str, Any]]) -> None:
    """Raises ValueError where `value` is one a member, (E,), and a parameter isn't stacked so."""
    if not isinstance(value, Tensor) or value.ndim != 1:
        return
    for p in (p for group in groups for p in group["params"] if p.requires_grad):
        if p.shape[:1] != value.shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, one value a member, so every parameter "
                f"must have leading dimension {len(value)}; got one of shape {tuple(p.shape)}"
            )
