"""The largest eigenvalues of the Hessian H = ∇²L(w), and its trace.

Neither needs H, only products H u, a few gradients' time each (see `Objective.curvature`, and its
errors). L(w), `losses` and what is left alone are as in `sharpness`. Eigenpairs need scipy.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lookbehind.checks import whole
from lookbehind.measure.objective import Objective
from lookbehind.measure.sharpness import Estimate
from lookbehind.scores import Minibatch
from lookbehind.weights import Weights


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues (count,), largest first, and their eigenvectors, of length 1."""

    values: np.ndarray
    vectors: tuple[Weights, ...]


def hessian_eigenpairs(
    model: nn.Module, batches: Iterable[Minibatch], count: int = 1, **losses: Any
) -> Eigenpairs:
    """The `count` largest eigenvalues λ of the Hessian H = ∇²L(w), and the v with H v = λ v.

    Lanczos iterations (ARPACK) from a fixed start. The tolerance of √(machine precision) is that of
    H v − λ v; the error of λ is its square. v's largest entry is positive. Few parameters (≤ 20,
    or ≤ 2 · count + 1) take all of H and its exact eigenpairs.

    Raises ValueError where `count` is not from 1 to the number of parameters.
    """
    objective = Objective(model, batches, **losses)
    start = _flat(objective.weights)
    whole("count", count, 1, len(start))
    values, vectors = _top(lambda u: _product(objective, u), start, count)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    rows = torch.as_tensor((vectors * signs).T[::-1].copy()).to(start)
    found = tuple(_named(row, objective.weights) for row in rows)
    return Eigenpairs(values[::-1].copy(), found)


def _top(product: Callable[[Tensor], Tensor], like: Tensor, count: int) -> tuple[Any, Any]:
    """The `count` largest eigenvalues in ascending order, and eigenvectors (n, count)."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, eigsh

    def of_array(u: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(u.reshape(-1)).to(like)).cpu().numpy()

    n, kind = len(like), like.new_empty(0, device="cpu").numpy().dtype
    operator = LinearOperator((n, n), of_array, dtype=kind)
    if n <= max(20, 2 * count + 1):  # ARPACK's subspace would be the whole space
        matrix = (operator @ np.eye(n, dtype=kind)).astype(float)
        return eigh((matrix + matrix.T) / 2, subset_by_index=(n - count, n - 1))
    start = np.random.default_rng(0).standard_normal(n)
    tolerance = math.sqrt(torch.finfo(like.dtype).eps)
    return eigsh(operator, k=count, which="LA", v0=start, tol=tolerance)


def hessian_trace(
    model: nn.Module, batches: Iterable[Minibatch], *, draws: int = 30, seed: int = 0, **losses: Any
) -> Estimate:
    """tr(H) of the Hessian H = ∇²L(w), by Hutchinson's estimate: the mean of vᵀ H v.

    v has independent entries ±1, so E[v vᵀ] = I and E[vᵀ H v] = tr(H); a diagonal H has no error.
    One product with H for each of `draws`, the same on every device. Raises ValueError where
    draws < 2.
    """
    whole("draws", draws, 2)
    objective, generator = Objective(model, batches, **losses), torch.Generator().manual_seed(seed)
    w, found = _flat(objective.weights), []
    for _ in range(draws):
        v = (2 * torch.randint(2, w.shape, generator=generator) - 1).to(w)
        found.append(float(v @ _product(objective, v)))
    return Estimate.of(found)


def _product(objective: Objective, u: Tensor) -> Tensor:
    """H u of a flat vector u (n,), in the weights' order."""
    return _flat(objective.curvature(_named(u, objective.weights))).to(u)


def _flat(weights: Weights) -> Tensor:
    return torch.cat([w.flatten() for w in weights.values()])


def _named(flat: Tensor, weights: Weights) -> Weights:
    parts = flat.split([w.numel() for w in weights.values()])
    return {n: part.view_as(w) for (n, w), part in zip(weights.items(), parts, strict=True)}
