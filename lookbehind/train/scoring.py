"""The score of a network on minibatches: mean cross-entropy and accuracy over all images."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind.scores import Minibatch, Score
from lookbehind.train.ranks import ALONE, Alone
from lookbehind.train.setup import precision


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
    device, training = device_of(model), model.training
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


def device_of(model: nn.Module) -> torch.device:
    """Where its first parameter lies."""
    return next(model.parameters()).device
