"""The largest eigenvalues of the Hessian H = ∇²L(w), and its trace.

Neither needs H, only products H u, a few gradients' time each: the gradient of ⟨∇L, u⟩
(Pearlmutter 1994), so each layer needs a second derivative in torch. L(w), `losses` and what is
left alone are as in `sharpness`. Weights that aren't finite raise ValueError, products that aren't
FloatingPointError. Eigenpairs need scipy.
"""

import math
from collections.abc import Iterable
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


class _Hessian:
    """H as a linear operator on flat vectors (n,), in the weights' order."""

    def __init__(self, objective: Objective) -> None:
        self.objective, like = objective, next(iter(objective.weights.values()))
        n = sum(w.numel() for w in objective.weights.values())
        self.shape, self.dtype, self.device = (n, n), like.dtype, like.device
        for name, w in objective.weights.items():
            if not w.isfinite().all():
                raise ValueError(f"model must have finite weights, those of {name!r} are not")

    def __matmul__(self, u: Tensor) -> Tensor:
        product = self.objective.curvature(self.named(u))
        found = torch.cat([p.flatten().to(u) for p in product.values()])
        if not found.isfinite().all():
            raise FloatingPointError("the second derivatives of the loss are not finite at w")
        return found

    def named(self, u: Tensor) -> Weights:
        weights = self.objective.weights
        parts = u.split([w.numel() for w in weights.values()])
        return {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}

    def matvec(self, u: np.ndarray) -> np.ndarray:
        product = self @ torch.as_tensor(u.reshape(-1)).to(self.device, self.dtype)
        return product.cpu().numpy()


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
    hessian = _Hessian(objective)
    whole("count", count, 1, hessian.shape[0])
    values, vectors = _top(hessian, count)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    rows = torch.as_tensor((vectors * signs).T[::-1].copy(), dtype=hessian.dtype)
    found = tuple(map(hessian.named, rows.to(objective.device)))
    return Eigenpairs(values[::-1].copy(), found)


def _top(hessian: _Hessian, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues in ascending order, and eigenvectors (n, count)."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, eigsh

    n = hessian.shape[0]
    kind = torch.empty(0, dtype=hessian.dtype).numpy().dtype
    operator = LinearOperator(hessian.shape, hessian.matvec, dtype=kind)
    if n <= max(20, 2 * count + 1):  # ARPACK's subspace would be the whole space
        matrix = (operator @ np.eye(n, dtype=kind)).astype(float)
        return eigh((matrix + matrix.T) / 2, subset_by_index=(n - count, n - 1))
    start = np.random.default_rng(0).standard_normal(n)
    tolerance = math.sqrt(torch.finfo(hessian.dtype).eps)
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
    hessian = _Hessian(Objective(model, batches, **losses))
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        bits = torch.randint(2, (hessian.shape[0],), generator=generator)
        v = (2 * bits - 1).to(hessian.device, hessian.dtype)
        found.append(float(v @ (hessian @ v)))
    return Estimate.of(found)
