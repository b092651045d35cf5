"""Tasks one after the other: what a network forgets, and what it keeps."""

from lookbehind.study.lifelong.sequence import (
    Learned,
    Replay,
    Reservoir,
    average_accuracy,
    average_forgetting,
    backward_transfer,
    forgetting,
    learn,
)
from lookbehind.study.lifelong.tasks import Task, permuted, rotated, split_classes

__all__ = [
    "Learned",
    "Replay",
    "Reservoir",
    "Task",
    "average_accuracy",
    "average_forgetting",
    "backward_transfer",
    "forgetting",
    "learn",
    "permuted",
    "rotated",
    "split_classes",
]
