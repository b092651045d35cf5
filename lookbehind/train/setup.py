"""What `fit` is told beside the network and its data: the run's setup, and its session."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from lookbehind.train.ranks import ALONE, Alone


@dataclass(frozen=True)
class Setup:
    """How the gradient of a minibatch is made: in which precision, where, by which processes.

    `autocast`: torch.bfloat16 for mixed precision. `statistics` of BatchNorm are updated by a
    step's first gradient only, at φ ("slow"), or by each ("every", as in the official code).

    With `ranks` (see `lookbehind.train.ranks`) several processes train one network, each on its
    share of every minibatch: all call `fit` with the same arguments, and get the same weights and
    scores as one process would, but for rounding. `loss` must be a mean over images. A `stop` or
    Ctrl-C in one stops all; the main one writes the checkpoint, which any number of processes can
    continue. `perturbation` "global" climbs by the gradient of the whole minibatch. "local" takes
    the first ascent of a step by the gradient of each process's own share, ε_1 = ρ g_r / ‖g_r‖
    (Foret et al. 2021 train so, over n / world images each), so that k gradients are exchanged
    instead of k + 1; descents, and ascents 2..k, go by the average of the gradients at the
    processes' own points.

    Raises ValueError for another value of the first three.
    """

    autocast: torch.dtype | None = None
    statistics: str = "slow"
    perturbation: str = "global"
    ranks: Alone = ALONE

    def __post_init__(self) -> None:
        if self.autocast not in (None, torch.bfloat16):  # float16 would need its gradients scaled
            raise ValueError(f"autocast must be torch.bfloat16 or None, got {self.autocast!r}")
        for name, allowed in (("statistics", ("slow", "every")),
                              ("perturbation", ("global", "local"))):  # fmt: skip
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f'{name} must be "{allowed[0]}" or "{allowed[1]}", got {value!r}')


def never() -> bool:
    """No stop is asked for."""
    return False


@dataclass(frozen=True)
class Session:
    """How a run is left, gone on with, and watched.

    `stop` is asked before each step; after it, or after Ctrl-C, the step under way is finished and
    the history so far returned; a second Ctrl-C ends at once. `progress` shows a tqdm bar.

    `checkpoint` is written at the end of every epoch, and where the run ends or is stopped. With
    `resume`, a run whose file exists goes on from it, bit for bit; `config` (plain values) is
    stored with it, and a file of another config, budget, schedule, model or optimizer is refused
    before anything is changed. `batches` must then draw from its `set_epoch` or from torch's
    global generator only, and torch use as many threads as before.

    Raises ValueError for `resume` without `checkpoint`.
    """

    checkpoint: str | Path | None = None
    resume: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    stop: Callable[[], bool] = never
    progress: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise ValueError("checkpoint must name the file to resume from, got None")


def grouped(**options: Any) -> dict[str, Any]:
    """Arguments for `fit`: those that are a `Setup`'s or a `Session`'s are put into one."""
    for group, kind in (("setup", Setup), ("session", Session)):
        own = {f.name: options.pop(f.name) for f in fields(kind) if f.name in options}
        if own:
            options[group] = kind(**own)
    return options


def precision(device: str, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    """Inside, forward passes on a device of this kind are taken in mixed precision, or as ever."""
    return nullcontext() if autocast is None else torch.autocast(device, autocast)
