"""The mean loss of a network on fixed images, as a function of its weights.

What the landscape draws and the measures of sharpness probe. The caller's network is copied once
and never touched: not its weights, its gradients, nor the mode of a layer.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from lookbehind.scores import Minibatch, Score
from lookbehind.weights import Weights, plain, weights_of

STATISTICS = ("stored", "reestimated")


class Objective:
    """L(w): the mean cross-entropy, in nats, over all images of `batches` together, at weights w.

    Weights are dictionaries from the names of the parameters that require a gradient to tensors;
    `weights` are the model's, `network` is a copy of it in evaluation mode. `statistics` says what
    its BatchNorm layers normalize by: "stored" are the model's running averages, whatever the
    weights; "reestimated" are made anew at every point, as the mean over the minibatches. These are
    kept, as `batches`, on the model's device: an iterator will do.

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
        self.network = copy.deepcopy(plain(model)).eval().requires_grad_(False)
        self.batches = [(_fast(x.to(self.device)), y.to(self.device)) for x, y in batches]
        self.statistics, self._layers = statistics, dict[str, Any]()
        for name, layer in self.network.named_modules() if statistics == "reestimated" else ():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                self._layers[name] = layer
                layer.momentum = None  # the mean over minibatches, where it is made anew
        self.images = sum(len(labels) for _, labels in self.batches)
        if not self.images:
            raise ValueError("batches must hold at least one image, got none")

    @torch.no_grad()
    def score(self, weights: Weights | None = None) -> Score:
        """The mean loss and the accuracy at `weights` (default: the model's)."""
        loss = hits = torch.zeros((), device=self.device)
        state = self._state(self.weights if weights is None else weights)
        for images, labels in self.batches:
            logits = functional_call(self.network, state, (images,))
            loss = loss + cross_entropy(logits, labels, reduction="sum")
            hits = hits + (logits.argmax(1) == labels).sum()
        return Score(float(loss) / self.images, float(hits) / self.images)

    def loss(self, weights: Weights | None = None) -> float:
        """The mean loss, as `score` has it."""
        return self.score(weights).loss

    def gradient(self, weights: Weights | None = None) -> tuple[float, Weights]:
        """The mean loss at `weights` (default: the model's) and its gradient there."""
        weights = self.weights if weights is None else weights
        at = {name: w.detach().requires_grad_() for name, w in weights.items()}
        state, total = self._state(at), torch.zeros((), device=self.device)
        with torch.enable_grad():
            for images, labels in self.batches:
                logits = functional_call(self.network, state, (images,))
                loss = cross_entropy(logits, labels, reduction="sum")
                loss.backward(inputs=[*at.values()])
                total = total + loss.detach()
        sums = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in at.items()}
        return float(total) / self.images, {n: g / self.images for n, g in sums.items()}

    @torch.no_grad()
    def _state(self, weights: Weights) -> dict[str, Tensor]:
        """What the network is called with: the weights, and statistics made anew."""
        if not self._layers:
            return weights
        fresh = {
            f"{name}.{key}": torch.zeros_like(buffer)
            for name, layer in self._layers.items()
            for key, buffer in layer.named_buffers(recurse=False)
        }
        state = {**weights, **fresh}
        try:
            for layer in self._layers.values():
                layer.train()
            for images, _ in self.batches:
                functional_call(self.network, state, (images,))
        finally:
            self.network.eval()
        return state


def _fast(tensor: Tensor) -> Tensor:
    """In the layout in which convolutions are fastest, channels last."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
