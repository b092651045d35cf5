"""The mean loss of a network on fixed images, as a function of its weights.

What the landscape draws and the measures of sharpness probe. The caller's network is copied once
and never touched: not its weights, its gradients, nor the mode of a layer.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from lookbehind.checks import one_of
from lookbehind.scores import Criterion, Minibatch, Score, changed, examples
from lookbehind.weights import PlainWeightNorm, Weights, copied, weights_of

STATISTICS = ("stored", "reestimated")


class Objective:
    """L(w): the mean loss over all examples of `batches` together, at weights w.

    It is the cross-entropy, in nats, of logits (B, classes) and labels (B,), or what `loss` or
    `batch_loss` say: see `lookbehind.scores.Criterion`, of accuracy, too.

    Weights are dictionaries from the names of the parameters that require a gradient to tensors;
    `weights` are the model's, `network` is a copy of it in evaluation mode. `statistics` says what
    its BatchNorm layers normalize by: "stored" are the model's running averages, whatever the
    weights; "reestimated" are made anew at every point, as the mean over the minibatches. These are
    kept, as `batches`, on the model's device: an iterator will do.

    Raises ValueError where `batches` is empty, the model has no such parameters or complex ones, or
    `statistics` is unknown; later, where the default loss can't be taken of outputs and targets.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Minibatch], *, statistics: str = "stored",
        **losses: Any,
    ) -> None:  # fmt: skip
        one_of("statistics", statistics, *STATISTICS)
        self.weights = {name: _fast(w) for name, w in weights_of(model).items()}
        self.device = next(iter(self.weights.values())).device
        self.network = copied(model).eval().requires_grad_(False)
        self._scored = _Scored(self.network, Criterion(**losses))
        self.batches = [changed(one, lambda t: _fast(t.to(self.device))) for one in batches]
        self.statistics, self._layers = statistics, dict[str, Any]()
        for name, layer in self._scored.named_modules():
            if getattr(layer, "sparse", False) is True:  # of an embedding: its gradient
                setattr(layer, "sparse", False)  # noqa: B010
            again = statistics == "reestimated" and isinstance(layer, _BatchNorm)
            if again and layer.running_mean is not None:
                self._layers[name] = layer
                layer.momentum = None  # the mean over minibatches, where it is made anew
        self.images = sum(map(examples, self.batches))
        if not self.images:
            raise ValueError("batches must hold at least one image, got none")

    @torch.no_grad()
    def score(self, weights: Weights | None = None) -> Score:
        """Mean loss (inf where not finite) and accuracy at `weights` (default: the model's)."""
        pairs = self._each(self._state(self.weights if weights is None else weights))
        loss, hits = (float(torch.stack(sums).sum()) for sums in zip(*pairs, strict=True))
        loss = loss / self.images if math.isfinite(loss) else math.inf
        return Score(loss, hits / self.images)

    def loss(self, weights: Weights | None = None) -> float:
        """The mean loss, as `score` has it."""
        return self.score(weights).loss

    def gradient(self, weights: Weights | None = None) -> tuple[float, Weights]:
        """The mean loss at `weights` (default: the model's) and its gradient there."""
        at = self._leaves(self.weights if weights is None else weights)
        state, total = self._state(at), torch.zeros((), device=self.device)
        with differentiable(self.network):
            for loss, _ in self._each(state):
                loss.backward(inputs=[*at.values()])
                total = total + loss.detach()
        sums = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in at.items()}
        return float(total) / self.images, {n: g / self.images for n, g in sums.items()}

    def curvature(self, direction: Weights) -> Weights:
        """H u, H = ∇²L(w) at the model's weights: the gradient of ⟨∇L(w), u⟩ (Pearlmutter 1994).

        Reverse over reverse, as forward mode is missing for many layers. Statistics of BatchNorm
        count as constants. Raises ValueError for weights that aren't finite, FloatingPointError
        where H u isn't.
        """
        for name, w in self.weights.items():
            if not w.isfinite().all():
                raise ValueError(f"model must have finite weights, those of {name!r} are not")
        at = self._leaves(self.weights)
        state, leaves = self._state(at), [*at.values()]
        u = [direction[name] / self.images for name in at]
        sums = [torch.zeros_like(w) for w in leaves]
        with differentiable(self.network, twice=True):
            for loss, _ in self._each(state):
                slope = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
                along = torch.stack([(g * d).sum() for g, d in zip(slope, u, strict=True)]).sum()
                if along.requires_grad:  # else the loss is linear in w
                    found = torch.autograd.grad(along, leaves, materialize_grads=True)
                    torch._foreach_add_(sums, found)
        if not all(total.isfinite().all() for total in sums):
            raise FloatingPointError("the second derivatives of the loss are not finite at w")
        return dict(zip(at, sums, strict=True))

    def _each(self, state: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The summed loss and hits of every minibatch."""
        for minibatch in self.batches:
            yield functional_call(self._scored, state, (minibatch,))

    def _leaves(self, weights: Weights) -> Weights:
        return {name: w.detach().requires_grad_() for name, w in weights.items()}

    @torch.no_grad()
    def _state(self, weights: Weights) -> dict[str, Tensor]:
        """What the network is called with: the weights, and statistics made anew."""
        state = {f"network.{name}": w for name, w in weights.items()}
        for name, layer in self._layers.items():
            for key, buffer in layer.named_buffers(recurse=False):
                state[f"{name}.{key}"] = torch.zeros_like(buffer)
            layer.train()
        if self._layers:
            try:
                list(self._each(state))
            finally:
                self.network.eval()
        return state


class _Scored(nn.Module):
    """The summed loss and hits of a minibatch, as a function of the network's parameters."""

    def __init__(self, network: nn.Module, criterion: Criterion) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion

    def forward(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        return self.criterion.sums(self.network, minibatch, examples(minibatch))


@contextmanager
def differentiable(network: nn.Module, twice: bool = False) -> Iterator[None]:
    """Inside, gradients are recorded, by kernels that have them in evaluation mode: the recurrent
    layers of cuDNN have none there, and of attention only the plain one has a second one."""
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in network.modules())
    with (
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext(),
        sdpa_kernel(SDPBackend.MATH) if twice else nullcontext(),
        PlainWeightNorm() if twice else nullcontext(),
    ):
        yield


def _fast(tensor: Tensor) -> Tensor:
    """In the layout in which convolutions are fastest, channels last."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
