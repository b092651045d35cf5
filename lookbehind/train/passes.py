"""How a network is gone through: its score, its precision, BatchNorm's statistics kept still."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind.scores import Minibatch, Score
from lookbehind.train.ranks import ALONE, Alone


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Minibatch],
    *,
    autocast: torch.dtype | None = None,
    ranks: Alone = ALONE,
) -> Score:
    """Mean cross-entropy and accuracy over all images, in evaluation mode; the mode is put back.

    Each of several `ranks` scores its share of every minibatch, and gets the score of all.

    Raises ValueError where `batches` is empty.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    losses, hits, count = [], [], 0
    try:
        for minibatch in batches:
            count += len(minibatch[1])
            mine, own = ranks.share(minibatch)
            images, labels = (tensor.to(device, non_blocking=True) for tensor in mine)
            with precision(device.type, autocast):
                logits = model(images)
            logits, labels = logits[:own], labels[:own]
            losses.append(cross_entropy(logits, labels, reduction="sum"))
            hits.append((logits.argmax(1) == labels).sum())
    finally:
        model.train(training)
    if not count:
        raise ValueError("batches must hold at least one image, got none")
    loss, hit = (ranks.total(torch.stack(sums).sum()) for sums in (losses, hits))
    return Score(float(loss) / count, int(hit) / count)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the minibatch, but its running statistics stay as they are.

    For an optimizer's `around`: λ i: frozen_statistics(model) if i else nullcontext().
    """
    kind = nn.modules.batchnorm._BatchNorm
    layers = [m for m in model.modules() if isinstance(m, kind) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def precision(device: str, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    """Inside, forward passes on a device of this kind are taken in mixed precision, or as ever."""
    return nullcontext() if autocast is None else torch.autocast(device, autocast)
