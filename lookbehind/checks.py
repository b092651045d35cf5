"""Checks of arguments: errors that name the argument, its value and what is allowed."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


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


def whole(name: str, value: object, least: int, most: float = math.inf) -> int:
    """`value`; TypeError or ValueError unless it is an int in [least, most]."""
    bounds = f"≥ {least}" if most == math.inf else f"in [{least}, {most}]"
    allowed = f"{name} must be an int {bounds}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(allowed)
    if not least <= value <= most:
        raise ValueError(allowed)
    return value


def check_members(name: str, value: object, params: Iterable[Tensor]) -> None:
    """Raises ValueError where `value` is one a member, (E,), and a parameter isn't stacked so."""
    if not isinstance(value, Tensor) or value.ndim != 1:
        return
    for p in params:
        if p.shape[:1] != value.shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, one value a member, so every parameter "
                f"must have leading dimension {len(value)}; got one of shape {tuple(p.shape)}"
            )


def plain(value: Any) -> Any:
    """A number of NumPy, or a tensor of one, as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def kept(name: str, value: Any) -> Any:
    """`value` as a checkpoint keeps it: what NumPy made becomes Python's and torch's own.

    Raises TypeError unless it is plain (numbers, strings, None) or a tensor, or such in
    dictionaries, lists and tuples.
    """
    if isinstance(value, Mapping):
        return {plain(key): kept(f"{name}[{key!r}]", part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [kept(f"{name}[{i}]", part) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, np.generic | np.ndarray):
        value = value.item() if value.ndim == 0 else torch.as_tensor(value)
    if type(value) in (str, int, float, bool, type(None)) or isinstance(
        value, Tensor | torch.dtype
    ):
        return value
    kind = type(value).__name__
    raise TypeError(f"{name} must be plain, to be kept in a checkpoint; got {kind}: {value!r}")
