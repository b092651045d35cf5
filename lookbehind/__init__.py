"""Lookbehind-SAM: k steps back, one step forward. Optimizers that `torch` training code imports."""

from lookbehind.neighborhood import AdaptiveBall, Ball, param_groups
from lookbehind.optim import ASAM, SAM, Event, Lookahead, Lookbehind, MultistepSAM

__all__ = [
    "ASAM",
    "SAM",
    "AdaptiveBall",
    "Ball",
    "Event",
    "Lookahead",
    "Lookbehind",
    "MultistepSAM",
    "param_groups",
]
