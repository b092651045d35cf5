"""One run of the training lab: a thread that trains, and what the lab says to it meanwhile."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lookbehind.measure import worst_rise
from lookbehind.optim import Ball, Event, Lookahead
from lookbehind.scores import Record
from lookbehind.train import CheckpointError, Hardware, Outcome, Recipe, Run, uses
from lookbehind.train.data import Dataset

SECONDS_BETWEEN_UPDATES = 0.25
UPDATE_SHARE = 0.02  # of the time at most goes into drawing
SHARPNESS_RADIUS = 0.05
SHARPNESS_IMAGES = 500  # of the training split, at most
SHARPNESS_BATCH = 100
WINDOW = 10.0  # seconds over which the speed is measured
NICENESS = 5


class Audience(Protocol):
    """Who watches a training; called from its thread."""

    def say(self, training: "Training", text: str) -> None: ...

    def show(self, training: "Training") -> None:
        """Draw; at most every SECONDS_BETWEEN_UPDATES, and once at the end."""

    def ended(self, training: "Training") -> None: ...


class Training:
    """A run of `recipe` in a thread of its own, with a checkpoint at `path` after every epoch.

    `wanted` is the recipe that the sliders say: its k, ρ, α and lr are given to the optimizer
    before the next step; `now` is what the optimizer has. `status` is "running", "paused", "done",
    "stopped" or "failed" (then `error` says why), `outcome` what `Recipe.run` returned.
    `sharpness` holds (epoch, rise) pairs, `alpha` the α of the latest step of each parameter, in
    the order of `names`, or nothing where the method has none.
    """

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        audience: Audience,
        load: Callable[[Recipe], Dataset],
        hardware: Hardware,
        *,
        now: Recipe | None = None,
        resume: bool = False,
    ) -> None:
        self.recipe, self.path, self.resume = recipe, path, resume
        self.now = self.wanted = now or recipe
        self.status, self.error = "running", ""
        self.outcome: Outcome | None = None
        self.records: list[Record] = []
        self.sharpness: list[tuple[float, float]] = []
        self.names: list[str] = []
        self.epoch = self.share = self.seconds = self.seconds_drawing = 0.0
        self.steps = 0
        self._audience, self._load, self._hardware = audience, load, hardware
        self._dataset: Dataset | None = None
        self._optimizer: Any = None
        self._order: list[int] = []
        self._alphas: list[Any] = []
        self._seen: deque[tuple[float, int, float]] = deque()  # (time, images, share)
        self._due = 0.0
        self._stop, self._pause, self._woken = (threading.Event() for _ in range(3))
        self._copy_to: Path | None = None
        self._random: Tensor | None = torch.get_rng_state()
        self.thread = threading.Thread(target=self._train, daemon=True)

    @property
    def moved(self) -> bool:
        """Whether k, ρ, α or lr are no longer those that the run began with."""
        return self.now != self.recipe

    @property
    def alpha(self) -> list[float]:
        alphas = self._alphas
        return [float(alphas[i]) for i in self._order] if alphas else []

    @property
    def images_per_second(self) -> float:
        """Training images, over the last seconds; 0 where nothing is known yet."""
        return self._rate(1)

    @property
    def seconds_left(self) -> float | None:
        rate = self._rate(2)
        return (1 - self.share) / rate if rate > 0 else None

    def stop(self) -> None:
        """End after the step under way; the checkpoint is written."""
        self._stop.set()
        self._woken.set()

    def pause(self) -> None:
        """Hold after the step under way, with a checkpoint, until `go_on` or `stop`."""
        self._pause.set()

    def go_on(self) -> None:
        self._pause.clear()
        self._woken.set()

    @property
    def pausing(self) -> bool:
        return self._pause.is_set()

    def save(self, path: Path) -> None:
        """Write a checkpoint of its own to `path`, after the step under way."""
        self._copy_to = path
        self._woken.set()

    def _train(self) -> None:
        """The body of the thread."""
        _give_way()
        start = time.monotonic()
        try:
            self._dataset = self._load(self.recipe)
            self._audience.say(self, "Scoring the network before the first step.")
            self.outcome = self.recipe.run(
                hardware=self._hardware, dataset=self._dataset, callbacks=[self._after_step],
                stop=self._stopped, checkpoint=self.path, resume=self.resume,
            )  # fmt: skip
            self.records = list(self.outcome.history.records)
            self.status = "stopped" if self.outcome.history.stopped else "done"
        except Exception as error:
            self.status, self.error = "failed", f"{type(error).__name__}: {error}"
        self._put_random_back()
        self.seconds += time.monotonic() - start
        self._audience.show(self)
        self._audience.ended(self)

    def _stopped(self) -> bool:
        self._put_random_back()
        return self._stop.is_set()

    def _put_random_back(self) -> None:
        """Once: a run that is resumed sets torch's global generator, which is the notebook's."""
        state, self._random = self._random, None
        if state is not None:
            torch.set_rng_state(state)

    def _after_step(self, run: Run) -> None:
        if self._optimizer is None:
            self._meet(run)
        self.records, self.share, self.steps = run.records, run.share, self.steps + 1
        if int(run.epoch) > int(self.epoch):
            self._measure(run)
        self.epoch = run.epoch
        self._clock(run.images)
        self._show_if_due()
        self._serve(run)
        self._tune()

    def _meet(self, run: Run) -> None:
        """The first look at the model and the optimizer: read the names, watch α."""
        self._optimizer = run.optimizer
        named = list(run.model.named_parameters())
        place = {id(p): i for i, p in enumerate(_params(run.optimizer))}
        self.names = [name for name, p in named if id(p) in place]
        self._order = [place[id(p)] for _, p in named if id(p) in place]
        step = getattr(run.optimizer, "minibatches", 1)
        self.epoch = run.epoch * (1 - step / run.minibatches)  # before this step
        self._audience.say(self, f"Training: {self.now}")
        if hasattr(run.optimizer, "observers"):
            run.optimizer.observers.append(self._observe)

    def _observe(self, event: Event) -> None:
        if event.kind == "slow" and event.i == 1 and event.alpha is not None:
            self._alphas = event.alpha

    def _measure(self, run: Run) -> None:
        assert self._dataset is not None
        train = self._dataset.train
        count = SHARPNESS_IMAGES  # the rows are in random order already
        some = replace(train, images=train.images[:count], labels=train.labels[:count])
        rise = worst_rise(run.model, some.batches(SHARPNESS_BATCH), Ball(SHARPNESS_RADIUS))
        self.sharpness.append((run.epoch, rise))

    def _clock(self, images: int) -> None:
        now = time.monotonic()
        self._seen.append((now, images, self.share))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()

    def _rate(self, column: int) -> float:
        if len(self._seen) < 2:
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        return (last[column] - first[column]) / max(1e-9, last[0] - first[0])

    def _show_if_due(self) -> None:
        start = time.monotonic()
        if start < self._due:
            return
        self._audience.show(self)
        spent = time.monotonic() - start
        self.seconds_drawing += spent
        self._due = start + max(SECONDS_BETWEEN_UPDATES, spent / UPDATE_SHARE)

    def _serve(self, run: Run) -> None:
        """Save where it was asked for, and hold while the run is paused."""
        self._save_if_asked(run)
        if not self._pause.is_set() or self._stop.is_set():
            return
        start, self.status = time.monotonic(), "paused"
        self._audience.show(self)
        kept = self._saved(run, self.path)
        self._audience.say(self, f"Paused at epoch {run.epoch:.2f}, {kept}.")
        while self._pause.is_set() and not self._stop.is_set():
            self._woken.wait()
            self._woken.clear()
            self._save_if_asked(run)
        self.status = "running"
        self._seen.clear()
        self.seconds -= time.monotonic() - start

    def _save_if_asked(self, run: Run) -> None:
        path, self._copy_to = self._copy_to, None
        if path is None:
            return
        kept = self._saved(run, path)
        self._audience.say(self, f"{kept[0].upper()}{kept[1:]}, epoch {run.epoch:.2f}.")

    def _saved(self, run: Run, path: Path) -> str:
        """Write a checkpoint; in words, how that went. The run itself needs no disk."""
        try:
            run.save(path)
        except OSError as error:
            return f"not saved: {error}"
        return f"saved as {path.name}"

    def _tune(self) -> None:
        """Give the optimizer what the sliders say."""
        wanted = self.wanted
        if wanted == self.now:
            return
        tune(self._optimizer, wanted)
        self.now = wanted
        self._audience.say(self, f"Training: {wanted}")


def tune(optimizer: Any, recipe: Recipe) -> None:
    """Give an optimizer made by `Recipe.make_optimizer` the k, ρ, α and lr of another recipe."""
    used = uses(recipe.method)
    for group in optimizer.param_groups:
        group["initial_lr"] = recipe.lr
    if "k" in used:
        optimizer.k = recipe.k
    if "alpha" in used:
        optimizer.alpha = recipe.alpha
    if "rho" in used:
        climber = optimizer.inner if isinstance(optimizer, Lookahead) else optimizer
        climber.ball = replace(climber.ball, rho=recipe.rho)


def recipes_in(path: Path, state: dict[str, Any]) -> tuple[Recipe, Recipe]:
    """The recipe that a checkpoint's run began with, and the one it had when it was saved.

    Raises CheckpointError where the checkpoint was not written by a run of a recipe.
    """
    try:
        began = Recipe(**state["plan"]["config"])
        part = state["optimizer"]
        settings: dict[str, Any] = {}
        while "inner" in part:  # Lookahead's k, not that of the SAM inside
            settings = part["settings"] | settings
            part = part["inner"]
        group = part["param_groups"][0]
        settings |= {"lr": group.get("initial_lr", group["lr"])}  # not set before the first step
        settings |= settings.pop("ball", {})
        names = {*uses(began.method), "lr"}
        return began, replace(began, **{name: settings[name] for name in names})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} was not written by a run of a recipe: {error}") from error


def _params(optimizer: Any) -> list[Any]:
    """In the order in which an observer receives them."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _give_way() -> None:
    """Let what answers the reader go first. On Linux niceness is a thread's, and of its helpers."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
