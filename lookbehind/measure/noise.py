"""How well a network bears weights that are not exact: under noise, and with few bits.

Both measure loss and accuracy at other weights, on all examples of `batches`, as `Objective` does;
`losses`, loss= or batch_loss=, are its options. Accuracy is NaN where it makes no sense.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from lookbehind.checks import check_bounded, whole
from lookbehind.measure.objective import Objective
from lookbehind.scores import Losses, Minibatch
from lookbehind.weights import Weights, moved, weights_of

BITS = range(2, 17)


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


def weight_noise(
    model: nn.Module,
    batches: Iterable[Minibatch],
    levels: Sequence[float],
    *,
    relative: bool = True,
    draws: int = 10,
    seed: int = 0,
    **losses: Unpack[Losses],
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
    whole("draws", draws, 2)
    objective = Objective(model, batches, **losses)
    generator = torch.Generator().manual_seed(seed)
    found, accuracies = np.empty((2, len(levels), draws))
    for draw in range(draws):
        noise = {
            name: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            * (w.square().mean().sqrt() if relative else 1.0)
            for name, w in objective.weights.items()
        }
        for i, level in enumerate(levels):
            score = objective.score(moved(objective.weights, (level, noise)))
            found[i, draw], accuracies[i, draw] = score.loss, score.accuracy
    return Noise(np.array(levels, float), found, accuracies, relative)


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
    model: nn.Module,
    batches: Iterable[Minibatch],
    bits: Sequence[int],
    **losses: Unpack[Losses],
) -> Quantization:
    """Loss and accuracy of the network `quantized` to each number of bits."""
    objective = Objective(model, batches, **losses)
    scores = [objective.score(quantized(model, b)) for b in bits]
    found, shares = (np.array([getattr(s, n) for s in scores]) for n in ("loss", "accuracy"))
    return Quantization(tuple(bits), found, shares)
