"""BatchNorm's running statistics, kept still while gradients are taken away from φ."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
