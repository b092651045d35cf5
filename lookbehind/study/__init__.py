"""Many runs at once (`grid`, `sweep`, `Ensemble`), and tasks in sequence (`lifelong`)."""

from lookbehind.study import lifelong
from lookbehind.study.block import Row, essence
from lookbehind.study.ensemble import (
    Ensemble,
    MemberBatches,
    evaluate_members,
    member_cross_entropy,
    scale_lr,
)
from lookbehind.study.sweeps import Rows, SweepError, grid, networks, sweep

__all__ = [
    "Ensemble", "MemberBatches", "Row", "Rows", "SweepError", "essence", "evaluate_members",
    "grid", "lifelong", "member_cross_entropy", "networks", "scale_lr", "sweep",
]  # fmt: skip
