"""How a network is gone through: its score, its precision, its buffers and their statistics."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lookbehind.scores import Criterion, Minibatch, Score, changed, examples
from lookbehind.train.ranks import ALONE, Alone
from lookbehind.weights import copied, local, norm, per_member


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[Minibatch], *, autocast: torch.dtype | None = None,
    ranks: Alone = ALONE, **losses: Any,
) -> Score:  # fmt: skip
    """Mean loss and accuracy over all examples, in evaluation mode; the mode is put back.

    `losses`: loss= or batch_loss= of a `Criterion`. Each of several `ranks` scores its share and
    gets the score of all. Raises ValueError for no examples, or some that don't fit the loss.
    """
    device, training = next(model.parameters()).device, model.training
    criterion = Criterion(**losses)
    model.eval()
    sums, count = [], 0
    try:
        for minibatch in batches:
            count += examples(minibatch)
            mine, own = ranks.share(minibatch)
            mine = changed(mine, lambda t: t.to(device, non_blocking=True))
            with precision(device.type, autocast):
                sums.append(criterion.sums(model, mine, own))
    finally:
        model.train(training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    loss, hit = (ranks.total(torch.stack(some).sum()) for some in zip(*sums, strict=True))
    return Score(float(loss) / count, float(hit) / count)


def check_last(model: nn.Module, batches: Any, criterion: Criterion) -> None:
    """Raises ValueError where an epoch ends with one example that BatchNorm can't normalize, as a
    copy of the network shows."""
    if not _ends_with_one(batches) or not _normalizing(model):
        return
    device = next(model.parameters()).device
    there = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(there, device_type=device.type), torch.no_grad():
        first = changed(next(iter(batches)), lambda t: t[:1].to(device))
        try:
            criterion.mean(copied(model).train(), first)
        except ValueError as error:
            must = "batches must not end with a minibatch of one example: take another size, or"
            raise ValueError(f"{must} drop_last, as BatchNorm can't take it ({error})") from error


def _ends_with_one(batches: Any) -> bool:
    if isinstance(batches, list | tuple):
        return examples(batches[-1]) == 1
    rows = getattr(batches, "sampler", getattr(batches, "split", None))
    size = getattr(batches, "batch_size", getattr(batches, "size", None))
    if not isinstance(rows, Sized) or not size or getattr(batches, "drop_last", False):
        return False
    return (len(rows) - 1) % size == 0


@contextmanager
def kept_buffers(model: nn.Module, optimizer: Any) -> Iterator[None]:
    """The buffers go back where a step fails: statistics met what was not finite. So do those of a
    member whose step the optimizer undid."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    except BaseException:
        for buffer, old in before:
            buffer.copy_(old)
        raise
    undone = getattr(optimizer, "rolled_back", None)
    if undone is None or (undone.device.type == "cpu" and not undone.any()):
        return
    for buffer, old in before:
        if buffer.shape[:1] == undone.shape:
            buffer.copy_(torch.where(per_member(undone, buffer), old, buffer))


class Overflow(FloatingPointError):
    """A gradient is not finite, though the loss is; its scale is lower now, for another try."""


@dataclass
class LossScale:
    """What a loss is multiplied by before its backward pass, and its gradients are divided by: else
    small ones are 0 in float16.

    Halved where a gradient overflows, and the step tried again; doubled after 2000 steps without
    (as `torch.amp.GradScaler`; Micikevicius et al. 2018, arXiv 1710.03740).
    """

    factor: float = 2.0**16
    good: int = 0

    def backward(self, loss: Tensor, share: float, params: list[Tensor], ranks: Alone) -> Tensor:
        """As `ranks.backward`, through the scaled loss. Raises FloatingPointError, or Overflow."""
        found = ranks.backward(loss.float() * self.factor, share) / self.factor
        grads = local([p.grad for p in params if p.grad is not None])
        torch._foreach_div_(grads, self.factor)
        flags = torch.stack([found.detach().isfinite().all(), norm(grads).isfinite()])
        finite, small = (not ranks.any(not flag) for flag in flags.tolist())
        if not finite:
            raise FloatingPointError("the loss is not finite")
        if not small:
            words = f"the gradient is not finite in float16 at a loss scale of {self.factor:g}"
            raise Overflow(words) if self.lower() else FloatingPointError(words)
        return found

    def lower(self) -> bool:
        """Halve; whether there is room."""
        self.factor, self.good = self.factor / 2, 0
        return self.factor >= 1

    def count(self) -> None:
        """One more good step."""
        self.good += 1
        if self.good == 2000:
            self.factor, self.good = self.factor * 2, 0


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the minibatch, but its running statistics stay as they are. For an
    optimizer's `around`: λ i: frozen_statistics(model) if i else nullcontext()."""
    layers = [layer for layer in _normalizing(model) if layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _normalizing(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def precision(device: str, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    """Inside, forward passes on a device of this kind are taken in mixed precision, or as ever."""
    return nullcontext() if autocast is None else torch.autocast(device, autocast)
