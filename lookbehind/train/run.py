"""A training under way: what it is told, its minibatches, its closure, its checkpoints."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext, suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lookbehind.checks import kept, one_of
from lookbehind.scores import Criterion, Minibatch, Record, changed, examples
from lookbehind.train import checkpoint, passes
from lookbehind.train.ranks import ALONE, Alone


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
    callbacks: Sequence[Callable[["Run"], None]] = ()
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


class Minibatches(Sized, Iterable[Minibatch], Protocol):
    """One epoch of minibatches each time it is iterated: `Split.batches`, a `DataLoader`."""


def set_epoch(batches: Minibatches, epoch: int) -> None:
    """The next iteration is this epoch, for what has `set_epoch` of itself or of its sampler."""
    for shuffler in (batches, getattr(batches, "sampler", None)):
        getattr(shuffler, "set_epoch", lambda epoch: None)(epoch)


class Stream:
    """Minibatches, epoch after epoch, and where they are: `taken` of epoch `epoch`."""

    def __init__(self, batches: Minibatches, ranks: Alone) -> None:
        if not isinstance(batches, Sized) or not len(batches):
            raise ValueError(f"batches must have a length ≥ 1 (minibatches an epoch): {batches!r}")
        self.batches, self.ranks, self.epoch, self.taken = batches, ranks, 0, 0
        self.rng = torch.get_rng_state()  # as the epoch began: a DataLoader draws its order from it
        self._left: Iterator[Minibatch] | None = None

    def __next__(self) -> Minibatch:
        if self._left is None:
            self.rng = self.ranks.once(torch.get_rng_state)
            torch.set_rng_state(self.rng)  # so that all draw the same minibatches
            set_epoch(self.batches, self.epoch)
            self._left = iter(self.batches)
        minibatch = next(self._left, None)
        if minibatch is None:
            must = f"batches must give {len(self.batches)} minibatches, its length, each time it is"
            raise ValueError(f"{must} iterated; it ended after {self.taken}")
        self.taken += 1
        if self.taken == len(self.batches):
            self.epoch, self.taken, self._left = self.epoch + 1, 0, None
        return minibatch

    def go_to(self, epoch: int, taken: int, rng: Tensor) -> None:
        self.epoch, self.taken, self._left = epoch, 0, None
        torch.set_rng_state(rng)
        for _ in range(taken):
            next(self)


@dataclass(eq=False)
class Run:
    """A training under way: what a callback receives after each step.

    `gradients`, `minibatches` and `images` are what was taken so far (an image counts once a step),
    `epoch` how often the data was seen, `share` what is spent of the budget, in [0, 1]. A callback
    may change the optimizer's settings and "initial_lr".
    """

    model: nn.Module
    optimizer: Any
    unit: str  # of the budget: "gradients" or "minibatches"
    budget: int
    setup: Setup
    stream: Stream
    network: nn.Module  # `model`, as all ranks go through it together
    criterion: Criterion
    splits: Mapping[str, Iterable[Minibatch]]
    plan: dict[str, Any]  # what a checkpoint must agree with
    gradients: int = 0
    images: int = 0
    scale: passes.LossScale | None = None
    records: list[Record] = field(default_factory=list)

    @property
    def minibatches(self) -> int:
        return self.stream.epoch * len(self.stream.batches) + self.stream.taken

    @property
    def epoch(self) -> float:
        return self.minibatches / len(self.stream.batches)

    @property
    def spent(self) -> int:
        return int(getattr(self, self.unit))

    @property
    def share(self) -> float:
        return min(1.0, self.spent / self.budget)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint that `fit` continues bit for bit; all ranks must call this."""
        self.setup.ranks.once(lambda: checkpoint.save_checkpoint(path, self.state()))

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; TypeError where the optimizer has what can't be kept."""
        stream, now = self.stream, {n: g.get_rng_state() for n, g in self._generators().items()}
        model = self.model.state_dict()
        kept("the model's state", model)
        state = {
            "model": model,
            "optimizer": kept("the optimizer's state", self.optimizer.state_dict()),
            "position": [stream.epoch, stream.taken, self.gradients, self.images],
            "records": [list(astuple(record)) for record in self.records],
            "rng": {"epoch": stream.rng, **now},
            "plan": self.plan,
        }
        return state if self.scale is None else {**state, "scale": list(astuple(self.scale))}

    def _generators(self) -> dict[str, Any]:
        kind = next(self.model.parameters()).device.type
        return {"now": torch} | ({"device": torch.get_device_module(kind)} if kind != "cpu" else {})

    def restore(self, path: str | Path) -> None:
        """Go on where the checkpoint was written; CheckpointError where it is another run's."""
        state = self.setup.ranks.once(lambda: checkpoint.read_checkpoint(path))
        checkpoint.check_fits(path, state, self.state())
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path} holds another optimizer: {error}") from error
        self.model.load_state_dict(state["model"])
        epoch, taken, self.gradients, self.images = state["position"]
        self.records = [Record(*values) for values in state["records"]]
        self.scale = self.scale and passes.LossScale(*state.get("scale", ()))
        self.stream.go_to(epoch, taken, state["rng"]["epoch"])
        for name, generator in self._generators().items():
            if name in state["rng"]:
                generator.set_rng_state(state["rng"][name])

    def step(self) -> None:
        """One step of the optimizer, on as many new minibatches as it takes."""
        count = getattr(self.optimizer, "minibatches", 1)
        minibatches = [next(self.stream) for _ in range(count)]
        labels = hasattr(self.model, "members")  # an ensemble may have (E, B), a minibatch a member
        self.images += sum(m[1].numel() if labels else examples(m) for m in minibatches)
        while True:
            closures = [self._closure(minibatch) for minibatch in minibatches]
            with suppress(passes.Overflow), passes.kept_buffers(self.model, self.optimizer):
                self.optimizer.step(closures if count > 1 else closures[0])
                break
        if self.scale is not None:
            self.scale.count()

    def _closure(self, minibatch: Minibatch) -> Callable[[], Tensor]:
        device, setup, ranks = next(self.model.parameters()).device, self.setup, self.setup.ranks
        count = examples(minibatch)
        minibatch, own = ranks.share(minibatch)
        minibatch = changed(minibatch, lambda t: t.to(device, non_blocking=True))
        at_slow = True  # the first gradient is taken at φ, the others elsewhere
        climbs = getattr(self.optimizer, "climber", None) is not None
        local = climbs and setup.perturbation == "local"

        def gradient() -> Tensor:
            nonlocal at_slow
            self.gradients += 1
            self.optimizer.zero_grad()
            moving = at_slow or setup.statistics == "every"
            still = nullcontext() if moving else passes.frozen_statistics(self.model)
            apart = ranks.apart(self.network) if local and at_slow else nullcontext()
            at_slow = False
            with apart:
                with still, passes.precision(device.type, setup.autocast):
                    loss = self.criterion.mean(self.network, minibatch)
                if self.scale is None:
                    return ranks.backward(loss, own / count)
                return self.scale.backward(loss, own / count, [*self.model.parameters()], ranks)

        return gradient

    def record(self) -> None:
        """Append a record of every split, or of none."""
        found, losses = [], {**vars(self.criterion), "plainly": True}
        precise, ranks = self.setup.autocast, self.setup.ranks
        for name, batches in self.splits.items():
            score = passes.evaluate(self.network, batches, autocast=precise, ranks=ranks, **losses)
            if not math.isfinite(score.loss):
                when = f"after {self.gradients} gradients"
                raise FloatingPointError(f"the loss on {name} is not finite {when}")
            found.append(Record(self.epoch, self.gradients, name, score.loss, score.accuracy))
        self.records += found
