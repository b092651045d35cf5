"""Paths in the space of weights, and the planes that show them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lookbehind.checks import whole
from lookbehind.measure.directions import Point, checked, dot, exact, points_of
from lookbehind.weights import Weights, moved


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
    explained            1 − Σ off_plane² / Σ ‖wₜ − origin‖²: the share of the squared distances
                         from the origin that lies in the plane; 1 where all of them are 0
    """

    coordinates: np.ndarray
    off_plane: np.ndarray
    explained: float


def principal_directions(path: Sequence[Mapping[str, Tensor]], count: int = 2) -> Principal:
    """The first `count` principal components of a path: T weights of one network.

    With the centered weights X (T, P) and the eigenvectors of X Xᵀ = U Λ Uᵀ, the directions are
    the rows of Λ^(-½) Uᵀ X: T × T numbers and never P × P. Each points from the path's start to its
    end. In float64; about 2 T² P operations.

    Raises ValueError where the path has fewer than `count` + 1 points or spreads in fewer
    dimensions, or its points don't have the same parameters.
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
    path: Sequence[Mapping[str, Tensor]],
    origin: Point,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
) -> Projection:
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
    away = (moved(point, (-1.0, start)) for point in points)
    found = np.array([in_plane(offset, directions, gram) for offset in away])
    off, distances = found[:, 2], found[:, 3]
    total = float(distances @ distances)
    explained = 1 - float(off @ off) / total if total else 1.0
    return Projection(found[:, :2], off, explained)


def in_plane(
    offset: Weights, directions: Sequence[Weights], gram: np.ndarray
) -> tuple[float, float, float, float]:
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
