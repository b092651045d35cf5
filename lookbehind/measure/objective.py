"""The mean loss of a network on fixed images, as a function of its weights.

What the landscape draws and the measures of sharpness probe. The caller's network is copied once
and never touched: not its weights, its gradients, nor the mode of a layer.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lookbehind.scores import Minibatch, Score
from lookbehind.weights import Weights, _plain, weights_of

STATISTICS = ("stored", "reestimated")


class Objective:
    """L(w): the mean cross-entropy, in nats, over all images of `batches` together, at weights w.

    Weights are dictionaries from the names of the parameters that require a gradient to tensors;
    `weights` are the model's, `network` is a copy of it in evaluation mode. `statistics` says what
    its BatchNorm layers normalize by: "stored" are the model's running averages, whatever the
    weights; "reestimated" are made anew at every point, from the images of `batches`, as the mean
    over its minibatches. They differ wherever weights are moved, and so do the pictures.

    The minibatches are kept, as `batches`, on the model's device: an iterator will do.

    Raises ValueError where `batches` is empty, the model has no such parameters, or `statistics`
    is unknown.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Minibatch], *, statistics: str = "stored"
    ) -> None:
        if statistics not in STATISTICS:
            raise ValueError(f"statistics must be one of {STATISTICS}, got {statistics!r}")
        self.weights = {name: _fast(w) for name, w in weights_of(model).items()}
        self.device = next(iter(self.weights.values())).device
        self.network = copy.deepcopy(_plain(model)).eval().requires_grad_(False)
        self.batches = [self._placed(minibatch) for minibatch in batches]
        self._layers = _normalizing(self.network) if statistics == "reestimated" else []
        self.images = sum(len(labels) for _, labels in self.batches)
        if not self.images:
            raise ValueError("batches must hold at least one image, got none")

    def minibatches(self) -> Iterator["Objective"]:
        """The objective on each minibatch alone."""
        for minibatch in self.batches:
            alone = copy.copy(self)
            alone.batches, alone.images = [minibatch], len(minibatch[1])
            yield alone

    @torch.no_grad()
    def score(self, weights: Weights | None = None) -> Score:
        """The mean loss and the accuracy at `weights` (default: the model's)."""
        loss = hits = torch.zeros((), device=self.device)
        state = self._state(weights)
        for images, labels in self.batches:
            logits = functional_call(self.network, state, (images,))
            loss = loss + cross_entropy(logits, labels, reduction="sum")
            hits = hits + (logits.argmax(1) == labels).sum()
        return Score(float(loss) / self.images, float(hits) / self.images)

    def loss(self, weights: Weights | None = None) -> float:
        """The mean loss at `weights` (default: the model's)."""
        return self.score(weights).loss

    def gradient(self, weights: Weights | None = None) -> tuple[float, Weights]:
        """The mean loss at `weights` (default: the model's) and its gradient there."""
        at = {name: w.detach().requires_grad_() for name, w in (weights or self.weights).items()}
        state = self._state(at)
        sums = [torch.zeros_like(w) for w in at.values()]
        total = torch.zeros((), device=self.device)
        with torch.enable_grad():
            for images, labels in self.batches:
                logits = functional_call(self.network, state, (images,))
                loss = cross_entropy(logits, labels, reduction="sum")
                parts = torch.autograd.grad(
                    loss, list(at.values()), allow_unused=True, materialize_grads=True
                )
                torch._foreach_add_(sums, list(parts))
                total = total + loss.detach()
        torch._foreach_div_(sums, self.images)
        return float(total) / self.images, dict(zip(at, sums, strict=True))

    @torch.no_grad()
    def _state(self, weights: Weights | None) -> dict[str, Tensor]:
        """What the network is called with: the weights, and statistics made anew."""
        weights = self.weights if weights is None else weights
        if not self._layers:
            return weights
        fresh = {
            f"{name}.{key}": torch.zeros_like(buffer)
            for name, layer in self._layers
            for key, buffer in layer.named_buffers(recurse=False)
        }
        state = {**weights, **fresh}
        with _averaging([layer for _, layer in self._layers]):
            for images, _ in self.batches:
                functional_call(self.network, state, (images,))
        return state

    def _placed(self, minibatch: Minibatch) -> Minibatch:
        images, labels = (tensor.to(self.device) for tensor in minibatch)
        return _fast(images), labels


def _fast(tensor: Tensor) -> Tensor:
    """In the layout in which convolutions are fastest, channels last."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _normalizing(model: nn.Module) -> list[tuple[str, Any]]:
    """The BatchNorm layers that keep running statistics, with their names."""
    kind = nn.modules.batchnorm._BatchNorm
    named = model.named_modules()
    return [(n, m) for n, m in named if isinstance(m, kind) and m.running_mean is not None]


@contextmanager
def _averaging(layers: list[Any]) -> Iterator[None]:
    """Layers that normalize by the minibatch and average its statistics with equal weights."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
