"""E networks of one architecture trained as one: their parameters stacked along dimension 0.

E small networks, stacked take as many operations as one. `fit` trains an `Ensemble` as any network;
optimizers that work elementwise keep the members apart, and so does the family with `rho` of shape
(E,). Member e is what it would have become alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy, relu
from torch.optim import Optimizer

from lookbehind.checks import check_bounded, check_members
from lookbehind.scores import Minibatch, Score
from lookbehind.train import Minibatches, evaluate, set_epoch
from lookbehind.weights import PlainWeightNorm, copied, made_by_hooks, members_of, per_member


class Ensemble(nn.Module):
    """E `models` of one architecture as one module; it starts as a copy of them.

    Parameters and buffers have the names that they have in one network, and E as first dimension.
    Images (E, B, C, H, W), a minibatch for each member, or (B, C, H, W), the same for all, give
    logits (E, B, classes). Dropout draws for each member apart.

    Raises ValueError where `models` is empty, or where two differ in architecture, in what
    requires a gradient, or in mode (training or evaluation); TypeError for what is no `nn.Module`.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        _check_alike(models)
        params, buffers = stack_module_state(list(models))
        of = {name: nn.Parameter(p, p.requires_grad) for name, p in params.items()} | buffers
        one = dict(models[0].named_parameters()) | dict(models[0].named_buffers())
        network = copied(models[0], {t: of[name] for name, t in one.items()})
        self._network, self.members, self.training = (network,), len(models), network.training
        kinds = {type(module).__name__ for module in network.modules()}
        self._normed = "_WeightNorm" in kinds or any(made_by_hooks(network))
        # The parts of the stacked network are this module's own, under the same names.
        for part in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[part] = getattr(network, part)

    def train(self, mode: bool = True) -> "Ensemble":
        """As `nn.Module.train`."""
        self._network[0].train(mode)
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (E, B, classes)."""
        own = images.ndim == 5
        if images.ndim not in (4, 5) or (own and len(images) != self.members):
            allowed = f"(B, C, H, W), or (E, B, C, H, W) with E = {self.members}"
            raise ValueError(f"images must have shape {allowed}; got {tuple(images.shape)}")
        if not _is_mlp(self._network[0]):
            state = dict(self.named_parameters()) | dict(self.named_buffers())
            one = partial(functional_call, self._network[0])
            each = vmap(one, in_dims=(0, 0 if own else None), randomness="different")
            with PlainWeightNorm() if self._normed else nullcontext():
                return each(state, images)
        x = (images if own else images.expand(self.members, *images.shape)).flatten(2).mT
        for layer in list(self._modules.values())[1:]:
            x = _linear(layer, x) if isinstance(layer, nn.Linear) else relu(x)
        return x.mT

    def member(self, e: int) -> nn.Module:
        """Network e as a module of its own, a copy. Raises IndexError where there is none."""
        if not 0 <= e < self.members:
            raise IndexError(f"e must be from 0 to {self.members - 1}, got {e}")
        of: dict[Tensor, Tensor] = {b: b.detach()[e].clone() for b in self.buffers()}
        for p in self.parameters():
            of[p] = nn.Parameter(p.detach()[e].clone(), p.requires_grad)
        network = copied(self._network[0], of)
        for module, _, hook in made_by_hooks(network):
            hook(module, None)
        return network


def _is_mlp(network: nn.Module) -> bool:
    """Whether `network` is a `Sequential` of Flatten, then Linear and ReLU only."""
    first, *rest = network if type(network) is nn.Sequential and len(network) else [network]
    flat = type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1)
    known = all(type(layer) in (nn.Linear, nn.ReLU) for layer in rest)
    return flat and known and not any(made_by_hooks(network))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """W x + b of E layers, x (E, features, B): one wide product of matrices a member."""
    if layer.bias is None:
        return layer.weight @ x
    return torch.baddbmm(layer.bias.unsqueeze(2), layer.weight, x)


def _check_alike(models: Sequence[nn.Module]) -> None:
    if not len(models):
        raise ValueError("models must hold at least one network, got none")
    if strange := [model for model in models if not isinstance(model, nn.Module)]:
        raise TypeError(f"models must be networks (nn.Module), got {strange[0]!r}")
    first, *others = map(_description, models)
    for e, found in enumerate(others, 1):
        if different := found.items() ^ first.items():
            part = min(part for part, _ in different)
            told = f"differ in {part}: {first.get(part)}, and {found.get(part)}"
            raise ValueError(f"models must be alike; models[0] and models[{e}] {told}")


def _description(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        found[f"modules, {name or 'the network'}"] = type(module).__name__
        found[f"training mode, {name or 'the network'}"] = module.training
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        found[f"parameters and buffers, {name}"] = tuple(t.shape), t.dtype, t.requires_grad
    return found


def member_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy (nats) of each member, (E,), of `logits` (E, B, classes) and `labels`
    (E, B), or (B,) where all members see the same images."""
    labels = labels.expand(len(logits), -1)
    # Images are innermost in memory, see `_linear`.
    losses = cross_entropy(logits.mT, labels, reduction="none", label_smoothing=label_smoothing)
    return losses.mean(1)


@dataclass(eq=False)
class MemberBatches:
    """Minibatches of an ensemble, for `fit`: images (E, B, …) and labels (E, B). Member e gets what
    streams[of[e]] gives; all are of the same lengths and shapes."""

    streams: Sequence[Minibatches]
    of: Sequence[int]

    def __len__(self) -> int:
        return len(self.streams[0])

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, counted from 0."""
        for stream in self.streams:
            set_epoch(stream, epoch)

    def __iter__(self) -> Iterator[Minibatch]:
        for minibatches in zip(*self.streams, strict=True):
            images, labels = zip(*(minibatches[i] for i in self.of), strict=True)
            yield torch.stack(images), torch.stack(labels)


def scale_lr(optimizer: Optimizer, factors: Tensor) -> None:
    """From now on member e learns at group["lr"] · factors[e]; `factors` (E,), finite and ≥ 0.

    After each step of `optimizer` (of `torch.optim`; of the family its `base`) the displacement of
    member e is multiplied by factors[e]: right where it is proportional to the learning rate, as
    with SGD, Adam, AdamW, RMSprop and most others; not Rprop, ASGD, LBFGS. Called twice, factors
    multiply. Raises TypeError or ValueError for other factors or parameters.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    if members_of(check_bounded("factors", factors, also=", one per member")) is None:
        raise ValueError(f"factors must be a tensor of shape (E,), got {factors!r}")
    check_members("factors", len(factors), optimizer.param_groups)
    params = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]
    before: list[Tensor] = []

    def remember(*_: Any) -> None:
        before[:] = [p.detach().clone() for p in params]

    def rescale(*_: Any) -> None:
        for p, old in zip(params, before, strict=True):
            torch.lerp(old, p.detach(), per_member(factors.to(p), p), out=p.data)  # exact for 1
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(rescale)


def evaluate_members(ensemble: Ensemble, batches: Iterable[Minibatch], **options: Any) -> Score:
    """The score of all members, tensors (E,), on images (B, …) that all see, or (E, B, …), with
    labels (B,) or (E, B); `options` and errors as of `evaluate`."""
    sums: list[tuple[Tensor, Tensor, int]] = []

    def note(network: nn.Module, minibatch: Minibatch) -> Tensor:
        logits, labels = network(minibatch[0]), minibatch[1]
        losses, count = member_cross_entropy(logits, labels), labels.shape[-1]
        sums.append((losses * count, (logits.argmax(2) == labels).sum(1), count))
        return losses.mean()

    evaluate(ensemble, batches, batch_loss=note, **options)
    losses, hits, counts = zip(*sums, strict=True)
    if not (count := sum(counts)):
        raise ValueError("batches must hold at least one image, got none")
    return Score(*(torch.stack(some).sum(0) / count for some in (losses, hits)))
