"""E networks of one architecture trained as one: their parameters stacked along dimension 0.

Small networks spend their time between operations rather than in them. Stacked, E of them take as
many operations as one. `fit` and the optimizers train an `Ensemble` as any network: with `rho` of
shape (E,) the family keeps the members apart, and so does every `torch.optim` optimizer that works
elementwise. Member e then is what it would have become alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import batch_norm, cross_entropy, pad, relu
from torch.optim import Optimizer

from lookbehind.train import Minibatches, set_epoch

# Images of all members together that `evaluate_members` takes at once.
EVALUATION_IMAGES = 2**14


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
        self._network = (_replaced(models[0], {one[name]: of[name] for name in one}),)
        self._share()
        self.members = len(models)

    def _share(self) -> None:
        """The parts of the stacked network are this module's own, under the same names."""
        network = self._network[0]
        self.training = network.training
        self._modules, self._parameters = network._modules, network._parameters
        self._buffers = network._buffers
        self._non_persistent_buffers_set = network._non_persistent_buffers_set

    def train(self, mode: bool = True) -> "Ensemble":
        """As `nn.Module.train`."""
        self._network[0].train(mode)
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (E, B, classes)."""
        own = images.ndim == 5
        if images.ndim not in (4, 5) or (own and len(images) != self.members):
            raise ValueError(
                f"images must have shape (B, C, H, W), or (E, B, C, H, W) with E = {self.members}; "
                f"got {tuple(images.shape)}"
            )
        layers = _layers(self._network[0])
        if layers is None:
            state = dict(self.named_parameters()) | dict(self.named_buffers())
            each = vmap(self._one, in_dims=(0, 0 if own else None), randomness="different")
            return each(state, images)
        x = (images if own else images.expand(self.members, *images.shape)).movedim(1, -1)
        for function, layer in layers:
            x = function(layer, x)
        return x.movedim(-1, 1)

    def _one(self, state: dict[str, Tensor], images: Tensor) -> Any:
        return functional_call(self._network[0], state, (images,))

    def member(self, e: int) -> nn.Module:
        """Network e as a module of its own, a copy. Raises IndexError where there is none."""
        if not 0 <= e < self.members:
            raise IndexError(f"e must be from 0 to {self.members - 1}, got {e}")
        state = [*self.named_parameters(), *self.named_buffers()]
        return _replaced(self._network[0], {t: _row(t, e) for _, t in state})


# Layers on the stacks of all members: x (E, C, H, W, B) or (E, C, B), the images of a minibatch
# innermost in memory. A layer of E networks then is E products of a weight matrix with a wide
# matrix, and a channel is one stretch. `vmap` would make a convolution with E groups of it.


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    if layer.bias is None:
        return layer.weight @ x
    return torch.baddbmm(layer.bias.unsqueeze(2), layer.weight, x)


def _conv2d(layer: Any, x: Tensor) -> Tensor:
    """W · columns(x): the windows under the kernel are the columns of one matrix a member."""
    weight, bias = layer.weight, layer.bias
    columns = _Columns.apply(x, layer.kernel_size, layer.stride, layer.padding)
    y = (weight.flatten(2) @ columns.flatten(4).flatten(1, 3)).unflatten(2, columns.shape[4:])
    return y if bias is None else y + bias.view(*bias.shape, 1, 1, 1)


def _batch_norm(layer: Any, x: Tensor) -> Tensor:
    """BatchNorm of E networks with C channels is that of one with E · C.

    By a minibatch's own statistics it is also GroupNorm with one group a channel: the same
    formula, and torch computes it faster on a CPU.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    flat = x.reshape(1, x.shape[0] * x.shape[1], -1).to(wide)
    stacks = layer.running_mean, layer.running_var, layer.weight, layer.bias
    rows: list[Any] = [stack if stack is None else stack.view(-1) for stack in stacks]
    mean, var, weight, bias = rows
    if not layer.training and mean is not None:
        return batch_norm(flat, mean, var, weight, bias, eps=layer.eps).view(x.shape)
    channels, count = flat.shape[1:]
    sizes = 1, channels, count, channels  # one "image", and as many groups as channels
    y, found, scale = torch.native_group_norm(flat, weight, bias, *sizes, layer.eps)
    if layer.training and layer.track_running_stats:
        layer.num_batches_tracked.add_(1)
        mean.lerp_(found.detach()[0], layer.momentum)
        unbiased = (scale.detach()[0] ** -2 - layer.eps) * (count / (count - 1))
        var.lerp_(unbiased, layer.momentum)
    return y.view(x.shape)


class _Columns(torch.autograd.Function):
    """(E, C, kernel, H', W', B): the windows of images (E, C, H, W, B) padded with zeros.

    Its own backward pass, as torch's for `unfold` takes several times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Any, stride: Any, padding: Any) -> Tensor:
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        x = pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0]))
        x = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
        return x.permute(0, 1, 5, 6, 2, 3, 4).contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Every value of a window is added up where it came from."""
        members, channels, height, width, images = ctx.shape
        (up, left), (down, right), (*kernel, high, wide) = ctx.padding, ctx.stride, grad.shape[2:6]
        total = grad.new_zeros(members, channels, height + 2 * up, width + 2 * left, images)
        for i, j in product(*map(range, kernel)):
            rows, some = slice(i, i + down * high, down), slice(j, j + right * wide, right)
            total[:, :, rows, some] += grad[:, :, i, j]
        return total[:, :, up : up + height, left : left + width], None, None, None


_LAYERS: dict[type[nn.Module], Callable[[Any, Tensor], Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda layer, x: relu(x),
    nn.Flatten: lambda layer, x: x.flatten(1, -2),
    nn.AdaptiveAvgPool2d: lambda layer, x: x.mean((2, 3), keepdim=True),
}


_OPTIONS: dict[type[nn.Module], dict[str, Any]] = {
    nn.Conv2d: {"groups": 1, "dilation": (1, 1), "padding_mode": "zeros"},
    nn.Flatten: {"start_dim": 1, "end_dim": -1},
    nn.AdaptiveAvgPool2d: {"output_size": 1},
}


def _layers(network: nn.Module) -> list[tuple[Callable[[Any, Tensor], Tensor], nn.Module]] | None:
    """What `network` does on stacks, layer by layer; None where only `vmap` can tell."""
    if type(network) is not nn.Sequential:
        return None
    known = all(
        type(layer) in _LAYERS
        and all(getattr(layer, n) == v for n, v in _OPTIONS.get(type(layer), {}).items())
        and not isinstance(getattr(layer, "padding", None), str)
        for layer in network
    )
    return [(_LAYERS[type(layer)], layer) for layer in network] if known else None


def _row(stack: Tensor, e: int) -> Tensor:
    row = stack.detach()[e].clone()
    return nn.Parameter(row, stack.requires_grad) if isinstance(stack, nn.Parameter) else row


def _replaced(network: nn.Module, tensors: dict[Tensor, Tensor]) -> nn.Module:
    """A copy of the network that holds the values of `tensors` in the place of their keys."""
    return copy.deepcopy(network, {id(old): new for old, new in tensors.items()})


def _check_alike(models: Sequence[nn.Module]) -> None:
    if not len(models):
        raise ValueError("models must hold at least one network, got none")
    for e, model in enumerate(models):
        if not isinstance(model, nn.Module):
            raise TypeError(f"models must be networks (nn.Module), models[{e}] is {model!r}")
        for what, one, other in zip(
            ("modules", "parameters and buffers", "training mode"),
            _description(models[0]),
            _description(model),
            strict=True,
        ):
            if one != other:
                raise ValueError(
                    f"models must be alike; models[0] and models[{e}] differ in {what}: "
                    f"{_difference(one, other)}"
                )


def _description(model: nn.Module) -> tuple[Any, Any, Any]:
    modules = {name or "the network": type(m).__name__ for name, m in model.named_modules()}
    state = [*model.named_parameters(), *model.named_buffers()]
    tensors = {name: (tuple(t.shape), t.dtype, t.requires_grad) for name, t in state}
    modes = {name or "the network": m.training for name, m in model.named_modules()}
    return modules, tensors, modes


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    name = next(n for n in {**one, **other} if one.get(n) != other.get(n))
    return f"{name} is {one.get(name)}, and {other.get(name)}"


def member_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy (nats) of each member, shape (E,).

    `logits` (E, B, classes); `labels` (E, B), or (B,) where all members see the same images.
    """
    labels = labels.expand(len(logits), -1)
    losses = cross_entropy(
        logits.mT, labels, reduction="none", label_smoothing=label_smoothing
    )  # images are innermost in memory, see `_linear`
    return losses.mean(1)


class MemberBatches:
    """Minibatches of an ensemble, for `fit`: images (E, B, …) and labels (E, B).

    Member e gets those of streams[of[e]]; without `of`, each member a stream of its own. An epoch
    reads every stream once, however many members share it.

    Raises ValueError where there is no stream, where their lengths differ, or where `of` names one
    that isn't there; while iterating, where the shapes of their minibatches differ.
    """

    def __init__(self, streams: Sequence[Minibatches], of: Sequence[int] | None = None) -> None:
        lengths = {len(stream) for stream in streams}
        if len(lengths) != 1:
            found = f"lengths {sorted(lengths)}" if lengths else "none"
            raise ValueError(f"streams must be minibatches of one length, got {found}")
        self.streams = list(streams)
        self.of = list(range(len(self.streams)) if of is None else of)
        if not self.of or not set(self.of) <= set(range(len(self.streams))):
            raise ValueError(
                f"of must hold, for each member, a number from 0 to {len(self.streams) - 1}; "
                f"got {self.of}"
            )

    def __len__(self) -> int:
        return len(self.streams[0])

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, counted from 0: passed on to every stream."""
        for stream in self.streams:
            set_epoch(stream, epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for minibatches in zip(*self.streams, strict=True):
            images, labels = zip(*minibatches, strict=True)
            yield self._gather(images), self._gather(labels)

    def _gather(self, tensors: Sequence[Tensor]) -> Tensor:
        shapes = {tuple(t.shape) for t in tensors}
        if len(shapes) > 1:
            raise ValueError(f"streams must give minibatches of one shape, got {sorted(shapes)}")
        stack = torch.stack(list(tensors))
        if self.of == list(range(len(stack))):
            return stack
        return stack.index_select(0, torch.tensor(self.of, device=stack.device))


def scale_lr(optimizer: Optimizer, factors: Tensor) -> None:
    """From now on member e learns at group["lr"] · factors[e]; `factors` (E,), finite and ≥ 0.

    After each step of `optimizer` the displacement of member e is multiplied by factors[e]. That
    is its learning rate wherever the displacement is proportional to it: SGD with momentum,
    Nesterov and weight decay, Adam, AdamW, RMSprop and most others; not Rprop, ASGD, LBFGS.
    `optimizer` is one of `torch.optim`, of the family its `base`. Called twice, factors multiply.

    Raises TypeError or ValueError for other factors, and where a parameter that requires a
    gradient doesn't have E as first dimension.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    params = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]
    _check_factors(factors, params)
    before: list[Tensor] = []

    def remember(*_: Any) -> None:
        before[:] = [p.detach().clone() for p in params]

    def rescale(*_: Any) -> None:
        for p, old in zip(params, before, strict=True):
            scale = factors.to(p).view(-1, *(1,) * (p.ndim - 1))
            torch.lerp(old, p.detach(), scale, out=p.data)  # a factor 1 changes no bit
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(rescale)


def _check_factors(factors: Tensor, params: Sequence[Tensor]) -> None:
    allowed = "factors must be a tensor of shape (E,) of finite numbers ≥ 0"
    if not isinstance(factors, Tensor) or not factors.is_floating_point():
        raise TypeError(f"{allowed}, got {factors!r}")
    if factors.ndim != 1 or not bool(((factors >= 0) & factors.isfinite()).all()):
        raise ValueError(f"{allowed}, got {factors}")
    for p in params:
        if p.shape[:1] != factors.shape:
            raise ValueError(
                f"factors has shape {tuple(factors.shape)}, one a member, so every parameter must "
                f"have leading dimension {len(factors)}; got one of shape {tuple(p.shape)}"
            )


@dataclass(frozen=True)
class MemberScores:
    """Mean cross-entropy `loss` (nats) and `accuracy` (a share in [0, 1]) of each member, (E,)."""

    loss: Tensor
    accuracy: Tensor


@torch.no_grad()
def evaluate_members(ensemble: Ensemble, batches: Iterable[tuple[Tensor, Tensor]]) -> MemberScores:
    """The scores of all members in evaluation mode; the mode is put back.

    `batches`: images (B, …) that all members see, or (E, B, …), and labels (B,) or (E, B).
    Raises ValueError where `batches` holds no image.
    """
    training = ensemble.training
    losses, hits, count = [], [], 0
    try:
        ensemble.eval()
        for images, labels in _parts(ensemble, batches):
            logits = ensemble(images)
            count += labels.shape[-1]
            losses.append(member_cross_entropy(logits, labels) * labels.shape[-1])
            hits.append((logits.argmax(2) == labels).sum(1))
    finally:
        ensemble.train(training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    return MemberScores(torch.stack(losses).sum(0) / count, torch.stack(hits).sum(0) / count)


def _parts(
    ensemble: Ensemble, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches on the ensemble's device, cut so that their activations stay small."""
    device = next(ensemble.parameters()).device
    size = max(1, EVALUATION_IMAGES // ensemble.members)
    for images, labels in batches:
        parts = zip(images.split(size, -4), labels.split(size, -1), strict=True)
        for some, theirs in parts:
            if theirs.numel():
                yield some.to(device), theirs.to(device)
