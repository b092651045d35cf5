"""Directions in the space of weights, their lengths; paths, and the planes that show them.

A direction is a dictionary from the names of the parameters to tensors, like weights. Any such
dictionary will do where one is asked for: a gradient or an eigenvector of the Hessian, too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lookbehind.checks import whole
from lookbehind.weights import Weights, moved, per_member, weights_of

Point = nn.Module | Mapping[str, Tensor]

# Added to seeds: torch fills a normal draw and the first weights of a network from the same random
# numbers, so that a direction with the network's own seed would point (cosine −0.35) at its start.
# Below 2³², as torch's generator leaves out the higher bits of a seed.
STREAMS = {"directions": 2**31, "noise": 3 * 2**30}


def gaussian_direction(model: nn.Module, *, seed: int = 0) -> Weights:
    """Independent N(0, 1), an isotropic direction, the same on every device: nothing in common with
    a network that was made with the seed. Torch's global generator is left alone."""
    return normal(weights_of(model), stream("directions", seed))


def stream(purpose: str, seed: int) -> torch.Generator:
    """A generator that has no number in common with a network of this seed, or another purpose."""
    return torch.Generator().manual_seed(STREAMS[purpose] + seed)


def normal(weights: Weights, generator: torch.Generator) -> Weights:
    """ξ ~ N(0, 1) for every weight, drawn on the CPU."""
    draw = partial(torch.randn, generator=generator)
    return {n: draw(w.shape, dtype=w.dtype).to(w.device) for n, w in weights.items()}


def filter_normalized(model: nn.Module, direction: Mapping[str, Tensor]) -> Weights:
    """`direction` with each filter rescaled to the norm of the network's filter (Li et al. 2018).

        dᵢ ← dᵢ ‖wᵢ‖ / ‖dᵢ‖

    so that two networks can be compared, whatever the scale of their weights (arXiv 1712.09913,
    section 4). Filters are the slices along dimension 0 of tensors of two dimensions or more; of
    the others, biases and BatchNorm's, it is 0. Raises ValueError where the direction isn't one of
    the model's (see `plane`).
    """
    weights = weights_of(model)
    found = checked("direction", direction, weights)
    for name, w in weights.items():
        theirs, ours = (t.flatten(1).norm(dim=1) if t.ndim > 1 else 0 * t for t in (w, found[name]))
        found[name] = found[name] * per_member(torch.where(ours > 0, theirs / ours, 0), w)
    return found


def difference(start: Point, end: Point) -> Weights:
    """end − start of two networks or weights: a = 0 is the one, a = 1 the other (Goodfellow et al.
    2015). Raises ValueError where they aren't of one architecture."""
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
    wrong = {"lacks": weights.keys() - found.keys(), "adds": found.keys() - weights.keys()}
    if faults := [f"{what} {sorted(names)}" for what, names in wrong.items() if names]:
        raise ValueError(f"{name} must have the network's parameters; it {' and '.join(faults)}")
    for n, w in weights.items():
        if found[n].shape != w.shape:
            shapes = f"{tuple(w.shape)}, got {tuple(found[n].shape)}"
            raise ValueError(f"{name} must have the network's shapes: at {n!r} {shapes}")


@dataclass(frozen=True, eq=False)
class Principal:
    """The directions in which a path spreads most, orthonormal, the widest first.

    `explained` are shares of the path's variance, Σ ‖wₜ − w̄‖² over its points, w̄ their mean: large
    for any smooth path, even a random walk (Antognini & Sohl-Dickstein 2018, arXiv 1806.08805).
    """

    directions: tuple[Weights, ...]
    explained: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Projection:
    """A path of T points, seen in a plane.

    coordinates  (T, 2)  the (a, b) of the nearest point of the plane, origin + a d₁ + b d₂
    off_plane    (T,)    the distance to it, in units of the weights
    explained            1 − Σ off_plane² / Σ ‖wₜ − origin‖², 1 where all distances are 0
    """

    coordinates: np.ndarray
    off_plane: np.ndarray
    explained: float


def principal_directions(path: Sequence[Mapping[str, Tensor]], count: int = 2) -> Principal:
    """The first `count` principal components of a path: T weights of one network.

    With the centered weights X (T, P) and the eigenvectors of X Xᵀ = U Λ Uᵀ, the directions are
    the rows of Λ^(-½) Uᵀ X: T × T numbers and never P × P. Each points from the path's start to its
    end. In float64. Raises ValueError where the path has fewer than `count` + 1 points or spreads
    in fewer dimensions, or its points don't have the same parameters.
    """
    points = _path(path, path[0] if len(path) else {})
    if whole("count", count, 1) >= len(points):
        raise ValueError(f"count must be below the {len(points)} points of path, got {count}")
    parts = (_centered(points, name) for name in points[0])
    gram = torch.stack([x @ x.T for x in parts]).sum(0).cpu()
    if not gram.isfinite().all():
        raise ValueError("path must be finite, a point of it is not")
    values, vectors = (t.flip(-1) for t in torch.linalg.eigh(gram))
    if not values[count - 1] > 1e-12 * values[0]:
        raise ValueError(f"path must spread in at least {count} dimensions")
    u = vectors[:, :count] / values[:count].sqrt()
    u = u * torch.where(u[-1] < u[0], -1.0, 1.0)
    directions: tuple[Weights, ...] = tuple({} for _ in range(count))
    for name, w in points[0].items():
        x = _centered(points, name)
        for direction, row in zip(directions, (u.T.to(x) @ x).to(w), strict=True):
            direction[name] = row.view(w.shape)
    shares = values[:count] / values.clamp(min=0).sum()
    return Principal(directions, tuple(shares.tolist()))


def _centered(points: Sequence[Weights], name: str) -> Tensor:
    """One parameter of all points less their mean: (T, its size)."""
    x = torch.stack([exact(point[name]).flatten() for point in points])
    return x - x.mean(0)


def project(
    path: Sequence[Mapping[str, Tensor]], origin: Point, first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
) -> Projection:  # fmt: skip
    """Where the points of a path lie in the plane origin + a d₁ + b d₂, and how far off it.

    Orthogonal projection: (a, b) minimizes ‖w − origin − a d₁ − b d₂‖, the directions need not be
    orthogonal. Raises ValueError where they are parallel or the parameters differ.
    """
    points = _path(path, origin)
    start = points_of(origin, points[0], "path")[0]
    directions = [checked("first", first, start), checked("second", second, start)]
    gram = np.array([[dot(d, e) for e in directions] for d in directions])
    if np.linalg.det(gram) <= 1e-10 * gram[0, 0] * gram[1, 1]:
        raise ValueError("first and second must not be parallel")
    found = np.array([in_plane(moved(p, (-1.0, start)), directions, gram) for p in points])
    off, total = found[:, 2], found[:, 3] @ found[:, 3]
    return Projection(found[:, :2], off, 1 - float(off @ off / total) if total else 1.0)


def in_plane(offset: Weights, directions: Sequence[Weights], gram: np.ndarray) -> tuple[float, ...]:
    """(a, b, ‖offset − a d₁ − b d₂‖, ‖offset‖) with (a, b) that make the third least.

    `gram` (2, 2) holds the inner products of the two `directions`: G (a, b)ᵀ = ⟨offset, d⟩.
    """
    a, b = map(float, np.linalg.solve(gram, [dot(offset, d) for d in directions]))
    rest = moved(offset, (-a, directions[0]), (-b, directions[1]))
    return a, b, math.sqrt(dot(rest, rest)), math.sqrt(dot(offset, offset))


def _path(path: Sequence[Mapping[str, Tensor]], origin: Point) -> list[Weights]:
    if not len(path):
        raise ValueError("path must hold at least one point, got none")
    return [points_of(origin, point, "path")[1] for point in path]
