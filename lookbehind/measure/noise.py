"""Weights that are not exact: under noise, and with few bits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lookbehind.checks import check_bounded, whole
from lookbehind.measure.directions import stream
from lookbehind.measure.objective import Objective
from lookbehind.scores import Minibatch
from lookbehind.weights import Weights, moved, weights_of


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
    model: nn.Module,
    batches: Iterable[Minibatch],
    levels: Sequence[float],
    *,
    relative: bool = True,
    draws: int = 10,
    seed: int = 0,
    **losses: Any,
) -> Noise:
    """Loss and accuracy at w + level · s ⊙ ξ, with ξ ~ N(0, 1) for every trained parameter.

    On all examples of `batches`; `losses` as in `Objective`.
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
        noise: Weights = {}
        for name, w in objective.weights.items():
            xi = torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            noise[name] = xi * w.square().mean().sqrt() if relative else xi
        for i, level in enumerate(levels):
            score = objective.score(moved(objective.weights, (level, noise)))
            found[i, draw], accuracies[i, draw] = score.loss, score.accuracy
    return Noise(np.array(levels, float), found, accuracies)


def quantized(model: nn.Module, bits: int) -> Weights:
    """Weights of `bits` bits: w → s · round(w / s) with s = max |w| / (2^(bits−1) − 1).

    One scale s per tensor, symmetric about 0: 2^bits − 1 values, the largest weight among them, and
    no weight moves by more than s / 2. Tensors of fewer than two dimensions (biases, BatchNorm)
    keep full precision, as is usual. Raises ValueError where `bits` is not in 2 … 16.
    """
    whole("bits", bits, 2, 16)
    weights = weights_of(model)
    for name, w in weights.items():
        scale = w.abs().max() / (2 ** (bits - 1) - 1) if w.ndim > 1 else w.new_tensor(0.0)
        weights[name] = torch.where(scale > 0, scale * torch.round(w / scale), w)
    return weights
