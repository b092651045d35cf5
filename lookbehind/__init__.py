"""Lookbehind-SAM: k steps back, one step forward. Optimizers that `torch` training code imports.

    from lookbehind import Ball, Lookbehind

    optimizer = Lookbehind(torch.optim.SGD(model.parameters(), lr=0.1), Ball(0.05), k=5, alpha=0.2)
    optimizer.step(closure)

The floor plan. Each room imports from those on its right, and from nowhere else:

    ground     ·
    optim      ← ground
    toy        ← ground
    train      ← ground, optim
    measure    ← ground, optim
    study      ← ground, optim, train, measure
    explore    ← ground, optim, toy, train, measure, study
    __main__   ← ground, optim, toy, train, measure, study, explore

ground (`checks`, `files`, `scores`, `weights`) are files of one concern each; a room is a folder,
and its `__init__` lists what it shows to the others. Within a room no file imports in a circle.

Where to read first: `optim/family.py`, the climb and the step of Lookbehind on one screen; then
`optim/neighborhood.py`, what a step of the climb is; `optim/outer.py`, what all optimizers share;
`optim/undo.py`, what becomes of a step that fails; `optim/methods.py`, the methods by name. Then
`toy/descend.py`, the same optimizers on two weights; `train/loop.py` and `train/run.py`, on a
network; `measure/sharpness.py`; `study/sweeps.py`.
"""

from lookbehind.optim import (
    ASAM,
    SAM,
    AdaptiveBall,
    Ball,
    Event,
    Lookahead,
    Lookbehind,
    MultistepSAM,
    param_groups,
)

__version__ = "0.2.0"

__all__ = [
    "ASAM", "SAM", "AdaptiveBall", "Ball", "Event", "Lookahead", "Lookbehind", "MultistepSAM",
    "param_groups",
]  # fmt: skip
