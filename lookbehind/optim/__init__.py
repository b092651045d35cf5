"""The method: neighborhoods, the optimizers that climb in them, and the methods by name."""

from lookbehind.optim.family import (
    ASAM,
    SAM,
    Alpha,
    Lookahead,
    Lookbehind,
    MultistepSAM,
    cosine_alpha,
)
from lookbehind.optim.methods import METHODS, Method, make_method, param_groups
from lookbehind.optim.neighborhood import AdaptiveBall, Ball
from lookbehind.optim.outer import Event, Observer

__all__ = [
    "ASAM", "METHODS", "SAM", "AdaptiveBall", "Alpha", "Ball", "Event", "Lookahead", "Lookbehind",
    "Method", "MultistepSAM", "Observer", "cosine_alpha", "make_method", "param_groups",
]  # fmt: skip
