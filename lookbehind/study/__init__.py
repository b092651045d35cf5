"""Many runs at once, and tasks in sequence."""

from lookbehind.study.axes import essence, grid
from lookbehind.study.ensemble import (
    Ensemble,
    MemberBatches,
    evaluate_members,
    member_cross_entropy,
    scale_lr,
)
from lookbehind.study.rows import SweepError
from lookbehind.study.sweeps import networks, on_train, sweep

__all__ = [
    "Ensemble",
    "MemberBatches",
    "SweepError",
    "essence",
    "evaluate_members",
    "grid",
    "member_cross_entropy",
    "networks",
    "on_train",
    "scale_lr",
    "sweep",
]
