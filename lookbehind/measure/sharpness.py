"""How sharp a minimum is: how far the loss rises around it, at worst, under noise, with few bits;
the largest eigenvalues of the Hessian H = ∇²L(w) and its trace, from products H u alone.

L(w) is everywhere the mean loss over all examples of `batches` together, with the network in
evaluation mode: BatchNorm normalizes by its stored statistics. It is the cross-entropy, in nats, or
what `losses`, loss= or batch_loss=, say (see `Objective`). w are all parameters that require a
gradient. No measure touches the caller's network or draws from the global random stream.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lookbehind.checks import check_bounded, whole
from lookbehind.measure.directions import normal, stream
from lookbehind.measure.objective import Objective
from lookbehind.optim import Ball
from lookbehind.scores import Minibatch
from lookbehind.weights import Weights, moved, weights_of


@dataclass(frozen=True)
class Estimate:
    """The mean of independent draws and its standard error; `values` (draws,) are the draws."""

    mean: float
    error: float
    values: np.ndarray

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        array = np.array([*values])
        return cls(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array)), array)


def gradient(model: nn.Module, batches: Iterable[Minibatch], **losses: Any) -> Weights:
    """∇L(w), by parameter name."""
    return Objective(model, batches, **losses).gradient()[1]


def worst_rise(
    model: nn.Module, batches: Iterable[Minibatch], ball: Ball, *, steps: int = 1, **losses: Any
) -> float:
    """How far the loss rises in a neighborhood at worst: max over j of L(w + ε_j) − L(w), in nats.

        ε_j = argmax of ⟨∇L(w + ε_{j−1}), ε⟩ over ε in `ball`,    ε_0 = 0,    j = 1 … steps

    Each step goes to the worst point of the loss linearised where the last one ended (the
    generalized power method, Journée et al. 2010, arXiv 0811.4724). One step is the sharpness that
    SAM bounds, to first order (Foret et al. 2021, arXiv 2010.01412, eqs. 1 and 2); in an
    `AdaptiveBall`, whose T stays that of w, ASAM's (Kwon et al. 2021, arXiv 2102.11600). It may
    come out below 0. Raises ValueError where `ball` has one radius per member, or steps < 1.
    """
    return worst_rises(model, batches, [ball], steps=steps, **losses)[0]


def worst_rises(
    model: nn.Module, batches: Iterable[Minibatch], balls: Sequence[Ball], *, steps: int = 1,
    **losses: Any,
) -> tuple[float, ...]:  # fmt: skip
    """`worst_rise` in each of several neighborhoods, which share the gradient at w."""
    for ball in balls:
        if ball.members is not None:
            raise ValueError(f"ball must have one radius, got rho={ball.rho}")
    whole("steps", steps, 1)
    objective = Objective(model, batches, **losses)
    loss, slope = objective.gradient()
    return tuple(_highest(objective, ball, slope, steps) - loss for ball in balls)


def _highest(objective: Objective, ball: Ball, slope: Weights, steps: int) -> float:
    """The highest loss at ε_1 … ε_steps; `slope` is ∇L(w)."""
    w, met = objective.weights, []
    adaptive = ["weight" in name for name in w]  # as `param_groups`
    for left in reversed(range(steps)):
        worst = ball.worst([*w.values()], [*slope.values()], adaptive)
        there = moved(w, (1.0, dict(zip(w, worst, strict=True))))
        loss, slope = objective.gradient(there) if left else (objective.loss(there), slope)
        met.append(loss)
    return max(met)


def average_rise(
    model: nn.Module, batches: Iterable[Minibatch], sigma: float, *, draws: int = 20, seed: int = 0,
    relative: bool = False, **losses: Any,
) -> Estimate:  # fmt: skip
    """E L(w + σ ξ) − L(w) in nats, with ξ and errors as of `weight_noise`.

    To second order in σ it is σ² tr(H) / 2, with H the Hessian.
    """
    check_bounded("sigma", sigma, also="")
    batches, options = [*batches], {**losses, "relative": relative, "draws": draws, "seed": seed}
    noise = weight_noise(model, batches, [sigma], **options)
    return Estimate.of(noise.losses[0] - Objective(model, batches, **losses).loss())


@dataclass(frozen=True)
class Noise:
    """Loss and accuracy (levels, draws) under noise of each of `levels` (levels,)."""

    levels: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean accuracy at each level."""
        return self.accuracies.mean(1)


def weight_noise(
    model: nn.Module, batches: Iterable[Minibatch], levels: Sequence[float], *,
    relative: bool = True, draws: int = 10, seed: int = 0, **losses: Any,
) -> Noise:  # fmt: skip
    """Loss and accuracy at w + level · s ⊙ ξ, with ξ ~ N(0, 1) for every trained parameter.

    `relative`: s is the root mean square of the parameter's tensor, whose noise then is `level` of
    its norm. Else s = 1. Biases and the scales of BatchNorm are noisy too; its statistics are not.
    The draws of ξ are the same for every level, every network of the same shapes and every device,
    and have nothing in common with the first weights of any network, nor with any direction.
    Raises ValueError where a level is negative or not finite, or draws < 2.
    """
    for level in levels:
        check_bounded("level", level, also="")
    whole("draws", draws, 2)
    objective = Objective(model, batches, **losses)
    generator = stream("noise", seed)
    found, accuracies = np.empty((2, len(levels), draws))
    for draw in range(draws):
        noise = normal(objective.weights, generator)
        if relative:
            noise = {n: xi * objective.weights[n].square().mean().sqrt() for n, xi in noise.items()}
        for i, level in enumerate(levels):
            score = objective.score(moved(objective.weights, (level, noise)))
            found[i, draw], accuracies[i, draw] = score.loss, score.accuracy
    return Noise(np.array(levels, float), found, accuracies)


def quantized(model: nn.Module, bits: int) -> Weights:
    """Weights of `bits` bits: w → s · round(w / s) with s = max |w| / (2^(bits−1) − 1).

    One scale s per tensor, symmetric about 0: 2^bits − 1 values. Tensors of fewer than two
    dimensions (biases, BatchNorm) keep full precision, as is usual. `bits` is from 2 to 16.
    """
    whole("bits", bits, 2, 16)
    weights = weights_of(model)
    for name, w in weights.items():
        scale = w.abs().max() / (2 ** (bits - 1) - 1) if w.ndim > 1 else w.new_tensor(0.0)
        weights[name] = torch.where(scale > 0, scale * torch.round(w / scale), w)
    return weights


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
    or ≤ 2 · count + 1) take all of H and its exact eigenpairs. Raises ValueError where `count` is
    not from 1 to the number of parameters.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import LinearOperator, eigsh

    objective = Objective(model, batches, **losses)
    w = _flat(objective.weights)
    n, kind = len(w), w.new_empty(0, device="cpu").numpy().dtype
    whole("count", count, 1, n)

    def product(u: np.ndarray) -> np.ndarray:
        return _product(objective, torch.as_tensor(u.reshape(-1)).to(w)).cpu().numpy()

    operator = LinearOperator((n, n), product, dtype=kind)
    if n <= max(20, 2 * count + 1):  # ARPACK's subspace would be the whole space
        matrix = (operator @ np.eye(n, dtype=kind)).astype(float)
        values, vectors = eigh((matrix + matrix.T) / 2, subset_by_index=(n - count, n - 1))
    else:
        start, tol = np.random.default_rng(0).standard_normal(n), torch.finfo(w.dtype).eps ** 0.5
        values, vectors = eigsh(operator, k=count, which="LA", v0=start, tol=tol)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    rows = torch.as_tensor((vectors * signs).T[::-1].copy()).to(w)
    return Eigenpairs(values[::-1].copy(), tuple(_named(row, objective.weights) for row in rows))


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
