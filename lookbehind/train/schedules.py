"""Schedules: factors of the learning rate by the share of the budget spent."""

import math
from collections.abc import Callable
from dataclasses import dataclass


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to 0 along half a cosine: (1 + cos(π progress)) / 2."""
    return (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class MultiStep:
    """The learning rate is multiplied by `factor` at each milestone, a share of the budget.

    The default is the official script's: x 0.1 at epochs 50, 100 and 150 of 200.
    """

    milestones: tuple[float, ...] = (0.25, 0.5, 0.75)
    factor: float = 0.1

    def __call__(self, progress: float) -> float:
        return self.factor ** sum(progress >= milestone for milestone in self.milestones)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": cosine,
    "multistep": MultiStep(),
    "constant": constant,
}
