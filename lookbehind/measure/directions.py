"""Directions in the space of weights: random ones, those between networks, and their lengths.

A direction is a dictionary from the names of the parameters to tensors, like weights. Any such
dictionary will do where one is asked for: a gradient or an eigenvector of the Hessian, too.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lookbehind.weights import Weights, moved, per_member, weights_of

Point = nn.Module | Mapping[str, Tensor]

# Added to seeds, a number a purpose: torch fills a normal draw and the first weights of a network
# from the same random numbers, so that a direction with the network's own seed would point (cosine
# −0.35) at its start. Below 2³², as torch's generator leaves out the higher bits of a seed.
STREAMS = {"directions": 2**31, "noise": 3 * 2**30}


def gaussian_direction(model: nn.Module, *, seed: int = 0) -> Weights:
    """A direction of independent N(0, 1), which is isotropic, drawn on the model's device.

    The same seed gives another draw on another kind of device, and nothing in common with the
    weights of a network that was made with it. torch's global generator is left alone.
    """
    weights = weights_of(model)
    device = next(iter(weights.values())).device
    generator = stream("directions", seed, device)
    return {
        name: torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device)
        for name, w in weights.items()
    }


def stream(purpose: str, seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator that has no number in common with a network of this seed, or another purpose."""
    return torch.Generator(device).manual_seed(STREAMS[purpose] + seed)


def filter_normalized(model: nn.Module, direction: Mapping[str, Tensor]) -> Weights:
    """`direction` with each filter rescaled to the norm of the network's filter (Li et al. 2018).

        dᵢ ← dᵢ ‖wᵢ‖ / ‖dᵢ‖

    so that a step of 1 is as long as the weights, whatever their scale, and two networks can be
    compared (arXiv 1712.09913, section 4). Filters are the slices along dimension 0 of tensors of
    two dimensions or more. Of the others, biases and BatchNorm's, the direction is 0.

    Raises ValueError where the direction isn't one of the model's (see `plane`).
    """
    weights = weights_of(model)
    found = checked("direction", direction, weights)
    for name, w in weights.items():
        theirs, ours = (t.flatten(1).norm(dim=1) if t.ndim > 1 else 0 * t for t in (w, found[name]))
        found[name] = found[name] * per_member(torch.where(ours > 0, theirs / ours, 0), w)
    return found


def difference(start: Point, end: Point) -> Weights:
    """end − start: a = 0 is the one network, a = 1 the other (Goodfellow et al. 2015).

    Each is a network or its weights. Raises ValueError where they aren't of one architecture.
    """
    origin, target = points_of(start, end, "end")
    return {name: target[name] - w for name, w in origin.items()}


def solution_plane(origin: Point, first: Point, second: Point) -> tuple[Weights, Weights]:
    """Two orthogonal directions of one length, whose plane holds three networks.

        u = first − origin        v ∝ (second − origin) − ⟨second − origin, u⟩ / ‖u‖² u

    with ‖v‖ = ‖u‖ (Garipov et al. 2018, arXiv 1802.10026). From `origin`, (0, 0), `first` lies at
    (1, 0), and `second` where `project` says. Raises ValueError where the three lie on a line.
    """
    u, w = difference(origin, first), difference(origin, second)
    squared = dot(u, u)
    v = moved(w, (-dot(w, u) / (squared or 1.0), u))
    rest = dot(v, v)
    if not squared or rest <= 1e-10 * dot(w, w):
        raise ValueError("origin, first and second must not lie on one line")
    return u, {name: d * math.sqrt(squared / rest) for name, d in v.items()}


def unit(direction: Mapping[str, Tensor]) -> Weights:
    """d / ‖d‖, the norm over all parameters together. Raises ValueError where it is 0."""
    norm = math.sqrt(dot(direction, direction))
    if not 0 < norm < math.inf:
        raise ValueError(f"direction must have a finite norm > 0, got {norm}")
    return {name: d / norm for name, d in direction.items()}


def dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """⟨one, other⟩ over all parameters, summed in float64 (float32 on MPS, which has no other)."""
    products = [(exact(w) * exact(other[name])).sum() for name, w in one.items()]
    return float(torch.stack(products).sum())


def exact(tensor: Tensor) -> Tensor:
    """The tensor in the widest type of its device."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def checked(name: str, direction: Mapping[str, Tensor], weights: Weights) -> Weights:
    """The direction in the order, type, device and layout of the weights."""
    _check_names(name, direction, weights)
    # Sums of tensors of one layout are several times faster.
    found = {n: torch.empty_like(w).copy_(direction[n].detach()) for n, w in weights.items()}
    for n, d in found.items():
        if not d.isfinite().all():
            raise ValueError(f"{name} must be finite, at {n!r} it is not")
    if not any(d.any() for d in found.values()):
        raise ValueError(f"{name} must not be all zero")
    return found


def points_of(start: Point, end: Point, name: str) -> tuple[Weights, Weights]:
    """Two points with the same parameters, the second (called `name`) placed where the first is."""
    first, second = (weights_of(p) if isinstance(p, nn.Module) else p for p in (start, end))
    _check_names(name, second, first)
    origin = {n: w.detach() for n, w in first.items()}
    return origin, {n: second[n].detach().to(w) for n, w in origin.items()}


def _check_names(name: str, found: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    lacks, more = sorted(weights.keys() - found.keys()), sorted(found.keys() - weights.keys())
    if lacks or more:
        faults = [f"{what} {names}" for what, names in (("lacks", lacks), ("adds", more)) if names]
        raise ValueError(f"{name} must have the network's parameters; it {' and '.join(faults)}")
    for n, w in weights.items():
        if found[n].shape != w.shape:
            shapes = f"{tuple(w.shape)}, got {tuple(found[n].shape)}"
            raise ValueError(f"{name} must have the network's shapes: at {n!r} {shapes}")
