"""The method: neighborhoods, the optimizers that climb in them, and the methods by name."""

from lookbehind.optim.family import ASAM, SAM, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim.methods import METHODS, make_method, param_groups
from lookbehind.optim.neighborhood import AdaptiveBall, Ball
from lookbehind.optim.outer import Event

__all__ = [
    "ASAM", "METHODS", "SAM", "AdaptiveBall", "Ball", "Event", "Lookahead", "Lookbehind",
    "MultistepSAM", "make_method", "param_groups",
]  # fmt: skip
