"""BatchNorm's running statistics, kept still while gradients are taken away from φ."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn

Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the minibatch, but its running statistics stay as they are.

    For an optimizer's `around`: λ i: frozen_statistics(model) if i else nullcontext().
    """
    with _frozen(_tracking(model)):
        yield


def _tracking(model: nn.Module) -> list[Any]:
    """The BatchNorm layers that keep running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kind) and m.track_running_stats]


@contextmanager
def _frozen(layers: Sequence[Any]) -> Iterator[None]:
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _elsewhere(model: nn.Module, statistics: str) -> Context:
    layers = _tracking(model) if statistics == "slow" else []
    return partial(_frozen, layers) if layers else nullcontext
