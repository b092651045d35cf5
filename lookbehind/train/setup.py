"""What `fit` is told beside the network and its data: schedule, setup and session."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from lookbehind.checks import kept, one_of
from lookbehind.train.ranks import ALONE, Alone


def constant(progress: float) -> float:
    """The learning rate stays as it is."""
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to 0 along half a cosine: (1 + cos(π progress)) / 2."""
    return (1 + math.cos(math.pi * progress)) / 2


def multistep(progress: float) -> float:
    """The official script's: x 0.1 at 1/4, 1/2 and 3/4 (epochs 50, 100 and 150 of 200)."""
    return 0.1 ** sum(progress >= milestone for milestone in (0.25, 0.5, 0.75))


Schedule = Callable[[float], float]  # share of the budget spent -> factor of the learning rate
SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "multistep": multistep, "constant": constant}


@dataclass(frozen=True)
class Setup:
    """How the gradient of a minibatch is made: in which precision, where, by which processes.

    `autocast`: torch.bfloat16 or torch.float16 for mixed precision; in float16 the loss is scaled
    (see `LossScale`). `statistics` of BatchNorm are updated by a step's first gradient only, at φ
    ("slow"), or by each ("every", as in the official code).

    With `ranks` several processes train one network: all call `fit` with the same arguments, and
    get the same weights and scores. `loss` must be a mean over images. A `stop` or Ctrl-C in one
    stops all; the main one writes the checkpoint, which any number of processes can continue.
    `perturbation` "global" climbs by the gradient of the whole minibatch; "local" takes a step's
    first ascent by that of each process's own share, ε_1 = ρ g_r / ‖g_r‖ (as Foret et al. 2021), so
    that k gradients are exchanged instead of k + 1: all others are averaged, at the processes' own
    points.

    Raises ValueError for another value of the first three.
    """

    autocast: torch.dtype | None = None
    statistics: str = "slow"
    perturbation: str = "global"
    ranks: Alone = ALONE

    def __post_init__(self) -> None:
        one_of("autocast", self.autocast, torch.bfloat16, torch.float16, None)
        one_of("statistics", self.statistics, "slow", "every")
        one_of("perturbation", self.perturbation, "global", "local")


@dataclass(frozen=True)
class Session:
    """How a run is watched, left, and gone on with.

    `callbacks` get the `Run` after each step. `progress` shows a tqdm bar. `stop` is asked before
    each step; after it, or after Ctrl-C, the step under way is finished and the history so far
    returned; a second Ctrl-C ends at once.

    `checkpoint` is written at the end of every epoch, and where the run ends or is stopped. With
    `resume`, a run whose file exists goes on from it, bit for bit, if `batches` draws from its
    `set_epoch` or torch's global generator only, and torch uses as many threads as before.
    `config` (plain values) is stored with it, and a file of another config, budget, schedule,
    model or optimizer is refused before anything is changed.

    Raises ValueError for `resume` without `checkpoint`, TypeError for a `config` that isn't plain.
    """

    checkpoint: str | Path | None = None
    resume: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callable[[Any], None]] = ()
    stop: Callable[[], bool] = bool  # never
    progress: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise ValueError("checkpoint must name the file to resume from, got None")
        object.__setattr__(self, "config", kept("config", self.config))


def grouped(**options: Any) -> dict[str, Any]:
    """Arguments for `fit`: those that are a `Setup`'s or a `Session`'s are put into one."""
    for group, kind in (("setup", Setup), ("session", Session)):
        own = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
        if own:
            options[group] = kind(**own)
    return options
