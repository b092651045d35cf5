"""How sharp a minimum is: measures of the loss around the weights of a network.

L(w) is everywhere the mean cross-entropy, in nats, over all images of `batches` together, with the
network in evaluation mode: BatchNorm normalizes by its stored statistics. w are all parameters
that require a gradient. The caller's network is never touched (see `Objective`), and no measure
draws from the global random stream.

The Hessian's measures need curvlinops and scipy: `pip install "lookbehind[notebooks]"`.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lookbehind.neighborhood import AdaptiveBall, Ball, check_bounded
from lookbehind.objective import Minibatch, Objective, Weights, moved, weights_of

BITS = range(2, 17)


def gradient(model: nn.Module, batches: Iterable[Minibatch]) -> Weights:
    """∇L(w), by parameter name."""
    return Objective(model, batches).gradient()[1]


# The worst point of a neighborhood


def worst_rise(
    model: nn.Module,
    batches: Iterable[Minibatch],
    ball: Ball | AdaptiveBall,
    *,
    steps: int = 1,
    per_batch: bool = False,
) -> float:
    """How far the loss rises in a neighborhood at worst: max over j of L(w + ε_j) − L(w), in nats.

        ε_j = argmax of ⟨∇L(w + ε_{j−1}), ε⟩ over ε in `ball`,    ε_0 = 0,    j = 1 … steps

    Each step goes to the worst point of the loss linearised where the last one ended. One step is
    the sharpness that SAM bounds, to first order (Foret et al. 2021, arXiv 2010.01412, eqs. 1 and
    2); in an `AdaptiveBall`, whose T stays that of w, ASAM's (Kwon et al. 2021, arXiv 2102.11600).
    To higher order it may come out below 0. More steps never give less, as the highest point met
    counts. Where L is convex each is higher than the last (the generalized power method, Journée
    et al. 2010, arXiv 0811.4724).

    `per_batch` gives every minibatch its own loss and its own worst point, and the mean of the
    rises over images: m-sharpness, with m images in a minibatch (Foret et al. 2021, sec. 4.1).

    Raises ValueError where `ball` has one radius per member, `batches` is empty or steps < 1.
    """
    return worst_rises(model, batches, [ball], steps=steps, per_batch=per_batch)[0]


def worst_rises(
    model: nn.Module,
    batches: Iterable[Minibatch],
    balls: Sequence[Ball | AdaptiveBall],
    *,
    steps: int = 1,
    per_batch: bool = False,
) -> tuple[float, ...]:
    """`worst_rise` in each of several neighborhoods, which share the gradient at w."""
    for ball in balls:
        if ball.members is not None:
            raise ValueError(f"ball must have one radius, got rho={ball.rho}")
    _check_count("steps", steps, 1)
    objective = Objective(model, batches)
    parts = list(objective.minibatches()) if per_batch else [objective]
    rises = np.array([_rises(part, balls, steps) for part in parts])
    shares = np.array([part.images / objective.images for part in parts])
    return tuple(float(rise) for rise in shares @ rises)


def _rises(objective: Objective, balls: Sequence[Ball | AdaptiveBall], steps: int) -> list[float]:
    loss, slope = objective.gradient()
    return [_highest(objective, ball, slope, steps) - loss for ball in balls]


def _highest(objective: Objective, ball: Ball | AdaptiveBall, slope: Weights, steps: int) -> float:
    """The highest loss at ε_1 … ε_steps; `slope` is ∇L(w)."""
    w, losses = objective.weights, []
    adaptive = ["weight" in name for name in w]  # as `param_groups`
    for left in reversed(range(steps)):
        worst = ball.worst([*w.values()], [*slope.values()], adaptive)
        there = moved(w, (1.0, dict(zip(w, worst, strict=True))))
        loss, slope = objective.gradient(there) if left else (objective.loss(there), slope)
        losses.append(loss)
    return max(losses)


# Random points around the weights


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


@dataclass(frozen=True)
class Noise:
    """Loss and accuracy (levels, draws) under noise of each of `levels` (levels,)."""

    levels: np.ndarray
    losses: np.ndarray
    accuracies: np.ndarray
    relative: bool

    @property
    def mean(self) -> np.ndarray:
        """Mean accuracy at each level."""
        return self.accuracies.mean(1)

    @property
    def std(self) -> np.ndarray:
        """Spread of the accuracy over the draws at each level: the sample's standard deviation."""
        return self.accuracies.std(1, ddof=1)


def average_rise(
    model: nn.Module,
    batches: Iterable[Minibatch],
    sigma: float,
    *,
    draws: int = 20,
    seed: int = 0,
    relative: bool = False,
) -> Estimate:
    """E L(w + σ ξ) − L(w) in nats, with ξ as in `weight_noise`.

    To second order in σ it is σ² tr(H) / 2, with H the Hessian. Raises ValueError where sigma is
    negative or not finite, or draws < 2.
    """
    check_bounded("sigma", sigma, also="")
    objective = Objective(model, batches)
    noise = _noise(objective, [sigma], draws, seed, relative)
    return Estimate.of(noise.losses[0] - objective.loss())


def weight_noise(
    model: nn.Module,
    batches: Iterable[Minibatch],
    levels: Sequence[float],
    *,
    relative: bool = True,
    draws: int = 10,
    seed: int = 0,
) -> Noise:
    """Loss and accuracy at w + level · s ⊙ ξ, with ξ ~ N(0, 1) for every trained parameter.

    `relative`: s is the root mean square of the tensor that the parameter belongs to, so a
    tensor's noise is `level` of its norm, and a tensor that is 0 stays so. Else s = 1. Biases and
    the scales of BatchNorm are noisy too; its statistics are not.

    The draws of ξ are the same for every level (and every network of the same shapes), so levels
    are compared under the same noise; they are made on the CPU, so every device gets the same.
    `seed` should not be the one that the network was made with: torch draws its first weights from
    the same stream of random numbers, so the first draw of the noise would be correlated with them.

    Raises ValueError where a level is negative or not finite, or draws < 2.
    """
    for level in levels:
        check_bounded("level", level, also="")
    return _noise(Objective(model, batches), levels, draws, seed, relative)


def _noise(
    objective: Objective, levels: Sequence[float], draws: int, seed: int, relative: bool
) -> Noise:
    _check_count("draws", draws, 2)
    generator = torch.Generator().manual_seed(seed)
    losses, accuracies = np.empty((2, len(levels), draws))
    for draw in range(draws):
        noise = {
            name: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            * (w.square().mean().sqrt() if relative else 1.0)
            for name, w in objective.weights.items()
        }
        for i, level in enumerate(levels):
            score = objective.score(moved(objective.weights, (level, noise)))
            losses[i, draw], accuracies[i, draw] = score.loss, score.accuracy
    return Noise(np.array(levels, float), losses, accuracies, relative)


# Few bits


@dataclass(frozen=True)
class Quantization:
    """Loss and accuracy, both (N,), with weights of each of `bits` (N,)."""

    bits: tuple[int, ...]
    losses: np.ndarray
    accuracies: np.ndarray


def quantized(model: nn.Module, bits: int) -> Weights:
    """Weights of `bits` bits: w → s · round(w / s) with s = max |w| / (2^(bits−1) − 1).

    One scale s per tensor, symmetric about 0: 2^bits − 1 values, the largest weight among them, and
    no weight moves by more than s / 2. Tensors of fewer than two dimensions (biases, BatchNorm)
    keep full precision, as is usual. Raises ValueError where `bits` is not in 2 … 16.
    """
    if bits not in BITS:
        raise ValueError(f"bits must be an integer from {BITS[0]} to {BITS[-1]}, got {bits!r}")
    return {n: _rounded(w, bits) if w.ndim > 1 else w for n, w in weights_of(model).items()}


def _rounded(weight: Tensor, bits: int) -> Tensor:
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, scale * torch.round(weight / scale), weight)


def quantization(
    model: nn.Module, batches: Iterable[Minibatch], bits: Sequence[int]
) -> Quantization:
    """Loss and accuracy of the network `quantized` to each number of bits."""
    objective = Objective(model, batches)
    scores = [objective.score(quantized(model, b)) for b in bits]
    losses = np.array([score.loss for score in scores])
    return Quantization(tuple(bits), losses, np.array([score.accuracy for score in scores]))


# The Hessian


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues (count,), largest first, and their eigenvectors, of length 1."""

    values: np.ndarray
    vectors: tuple[Weights, ...]


@dataclass(frozen=True)
class Density:
    """A distribution of eigenvalues: nodes (N,) with weights (N,) that sum to 1."""

    nodes: np.ndarray
    weights: np.ndarray

    def at(self, grid: np.ndarray, width: float) -> np.ndarray:
        """The density at each point of `grid` (G,), every node a Gaussian of that `width`."""
        z = (np.asarray(grid, float)[:, None] - self.nodes) / width
        return np.exp(-(z**2) / 2) @ self.weights / (width * math.sqrt(2 * math.pi))


def hessian_eigenpairs(
    model: nn.Module, batches: Iterable[Minibatch], count: int = 1
) -> Eigenpairs:
    """The `count` largest eigenvalues λ of the Hessian H = ∇²L(w), and the v with H v = λ v.

    Lanczos iterations (ARPACK) on products H u, from a fixed start. The tolerance of √(machine
    precision) is that of H v − λ v; the error of λ is its square. v's largest entry is positive.
    Few parameters (≤ 20, or ≤ 2 · count + 1) take all of H and its exact eigenpairs.

    Raises ValueError where `count` is not from 1 to the number of parameters.
    """
    objective = Objective(model, batches)
    hessian = _hessian(objective)
    n = hessian.shape[0]
    _check_count("count", count, 1)
    if count > n:
        raise ValueError(f"count must be at most the number of parameters, {n}; got {count}")
    values, vectors = _top(hessian, count)
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    columns = torch.as_tensor((vectors * signs).T[::-1].copy(), dtype=hessian.dtype)
    found = tuple(_unflattened(v.to(objective.device), objective.weights) for v in columns)
    return Eigenpairs(values[::-1].copy(), found)


def _top(hessian: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues in ascending order, and eigenvectors (n, count)."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    n = hessian.shape[0]
    if n <= max(20, 2 * count + 1):  # ARPACK's subspace would be the whole space
        identity = torch.eye(n, dtype=hessian.dtype, device=hessian.device)
        matrix = (hessian @ identity).double().cpu().numpy()
        return eigh((matrix + matrix.T) / 2, subset_by_index=(n - count, n - 1))
    start = np.random.default_rng(0).standard_normal(n)
    tolerance = math.sqrt(torch.finfo(hessian.dtype).eps)
    return eigsh(hessian.to_scipy(), k=count, which="LA", v0=start, tol=tolerance)


def hessian_trace(
    model: nn.Module, batches: Iterable[Minibatch], *, draws: int = 30, seed: int = 0
) -> Estimate:
    """tr(H) of the Hessian H = ∇²L(w), by Hutchinson's estimate: the mean of vᵀ H v.

    v has independent entries ±1, so E[v vᵀ] = I and E[vᵀ H v] = tr(H); a diagonal H has no error.
    One product with H, a few gradients' time, for each of `draws`.
    Raises ValueError where draws < 2.
    """
    _check_count("draws", draws, 2)
    hessian = _hessian(Objective(model, batches))
    return Estimate.of(float(v @ (hessian @ v)) for v in _signs(hessian, draws, seed))


def spectral_density(
    model: nn.Module,
    batches: Iterable[Minibatch],
    *,
    steps: int = 40,
    draws: int = 4,
    seed: int = 0,
) -> Density:
    """The distribution of the eigenvalues of H = ∇²L(w), by stochastic Lanczos quadrature.

    For v with entries ±1 and n parameters, vᵀ f(H) v / n has the expectation Σ f(λ_i) / n. `steps`
    of Lanczos from v turn H into a tridiagonal matrix with the eigenpairs (θ_j, y_j), and
    Σ_j y_j1² f(θ_j) is vᵀ f(H) v / n, exactly for polynomials f of degree < 2 · steps. So the θ_j
    are the nodes and y_j1² / draws their weights (Ghorbani et al. 2019, arXiv 1901.10159, sec. 2).

    Its mean is tr(H) / n, as `hessian_trace` with the same draws and seed has it. It takes
    steps · draws products with H, and memory for `steps` copies of the weights.
    Raises ValueError where steps or draws < 1.
    """
    _check_count("steps", steps, 1)
    _check_count("draws", draws, 1)
    hessian = _hessian(Objective(model, batches))
    found = [np.linalg.eigh(_lanczos(hessian, v, steps)) for v in _signs(hessian, draws, seed)]
    nodes = np.concatenate([theta for theta, _ in found])
    return Density(nodes, np.concatenate([y[0] ** 2 for _, y in found]) / draws)


def _lanczos(hessian: Any, start: Tensor, steps: int) -> np.ndarray:
    """The tridiagonal matrix of H in the Krylov space of `start`.

    Every vector is made orthogonal to all before it, twice: without that, rounding errors bring
    eigenvalues back as copies. Ends early where the Krylov space is exhausted.
    """
    basis = (start / start.norm())[None]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        v = hessian @ basis[-1]
        diagonal.append(float(v @ basis[-1]))
        for _ in range(2):
            v = v - (basis @ v) @ basis
        length = float(v.norm())
        rounding = torch.finfo(v.dtype).eps * math.sqrt(len(v)) * max(map(abs, diagonal + beside))
        if len(diagonal) == min(steps, len(v)) or length <= rounding:
            return np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        beside.append(length)
        basis = torch.cat([basis, v[None] / length])


def _hessian(objective: Objective) -> Any:
    """H as a linear operator on flat vectors, in the order of the weights."""
    with warnings.catch_warnings():
        # curvlinops, and torch at its first jvp, load parts that use the deprecated torch.jit.
        warnings.simplefilter("ignore", FutureWarning)
        from curvlinops import HessianLinearOperator

        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))
    # Not channels last: vmap, which curvlinops multiplies by, is slow there and warns of it.
    network = objective.network.to(memory_format=torch.contiguous_format)
    named = dict(network.named_parameters())
    return HessianLinearOperator(
        network,
        nn.CrossEntropyLoss(),
        [named[name] for name in objective.weights],
        [(images.contiguous(), labels) for images, labels in objective.batches],
        check_deterministic=False,  # the check draws from the global random stream
        num_data=objective.images,
    )


def _signs(hessian: Any, draws: int, seed: int) -> Iterator[Tensor]:
    """Vectors of independent ±1, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        bits = torch.randint(2, (hessian.shape[0],), generator=generator)
        yield (2 * bits - 1).to(hessian.device, hessian.dtype)


def _unflattened(vector: Tensor, like: Weights) -> Weights:
    parts = vector.split([w.numel() for w in like.values()])
    return {n: part.reshape(w.shape) for (n, w), part in zip(like.items(), parts, strict=True)}


def _check_count(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
