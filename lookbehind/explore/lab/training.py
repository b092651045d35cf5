"""One run of the training lab: a thread that trains, and what the lab says to it meanwhile."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookbehind.explore.shared.panel import Work
from lookbehind.explore.shared.runs import first_images
from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS, Ball, Event, Lookahead
from lookbehind.scores import Record
from lookbehind.train import Hardware, Outcome, Recipe, Run
from lookbehind.train.data import Dataset

SECONDS_BETWEEN_UPDATES = 0.25
UPDATE_SHARE = 0.02  # of the time at most goes into drawing
SHARPNESS_RADIUS = 0.05
SHARPNESS_IMAGES = 500  # of the training split, at most
SHARPNESS_BATCH = 100
WINDOW = 10.0  # seconds over which the speed is measured
NICENESS = 5


class Training(Work):
    """A run of `recipe` in a thread of its own, with a checkpoint at `path` after every epoch.

    `wanted` is the recipe that the sliders say: its k, ρ, α and lr are given to the optimizer
    before the next step; `now` is what the optimizer has. `status` is "running", "paused", "done",
    "stopped" or "failed" (then `error` says why), `outcome` what `Recipe.run` returned.
    `sharpness` holds (epoch, rise) pairs, `alpha` the α of the latest step of each parameter, in
    the order of `names`, if any. The audience hears `say(training, text)`, and `show(training)`, at
    most every SECONDS_BETWEEN_UPDATES and once at the end.
    """

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        audience: Any,
        load: Callable[[Recipe], Dataset],
        hardware: Hardware,
        *,
        now: Recipe | None = None,
    ) -> None:
        super().__init__(audience)
        self.recipe, self.path = recipe, path
        self.now = self.wanted = now or recipe
        self.status, self.pausing = "running", False
        self.outcome: Outcome | None = None
        self.records: list[Record] = []
        self.sharpness: list[tuple[float, float]] = []
        self.names: list[str] = []
        self.epoch = self.share = self.seconds = self.seconds_drawing = 0.0
        self.steps = 0
        self._load, self._hardware, self._resume = load, hardware, now is not None
        self._dataset: Dataset | None = None
        self._optimizer: Any = None
        self._order: list[int] = []
        self._alphas: list[Any] = []
        self._seen: deque[tuple[float, int, float]] = deque()  # (time, images, share)
        self._due, self._woken = 0.0, threading.Event()
        self._copy_to: Path | None = None
        self._random: Tensor | None = torch.get_rng_state()

    @property
    def moved(self) -> bool:
        """Whether k, ρ, α or lr are no longer those that the run began with."""
        return self.now != self.recipe

    @property
    def alpha(self) -> list[float]:
        alphas = self._alphas  # one list, whatever the thread does
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
        super().stop()
        self._woken.set()

    def pause(self) -> None:
        """Hold after the step under way, with a checkpoint, until `go_on` or `stop`."""
        self.pausing = True

    def go_on(self) -> None:
        self.pausing = False
        self._woken.set()

    def save(self, path: Path) -> None:
        """Write a checkpoint of its own to `path`, after the step under way."""
        self._copy_to = path
        self._woken.set()

    def _compute(self) -> None:
        if sys.platform == "linux":  # what answers the reader goes first; niceness is a thread's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        start = time.monotonic()
        try:
            self._train()
        except Exception:
            self.status = "failed"
            raise
        finally:
            self._put_random_back()
            self.seconds += time.monotonic() - start
            self._audience.show(self)

    def _train(self) -> None:
        self._dataset = self._load(self.recipe)
        self._say("Scoring the network before the first step.")
        self.outcome = self.recipe.run(
            hardware=self._hardware, dataset=self._dataset, callbacks=[self._after_step],
            stop=self._stopped, checkpoint=self.path, resume=self._resume,
        )  # fmt: skip
        self.records = list(self.outcome.history.records)
        self.status = "stopped" if self.outcome.history.stopped else "done"

    def _say(self, text: str) -> None:
        self._audience.say(self, text)

    def _stopped(self) -> bool:
        self._put_random_back()
        return self.stopped

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
        self._seen.append((time.monotonic(), run.images, self.share))
        while len(self._seen) > 2 and self._seen[1][0] < self._seen[-1][0] - WINDOW:
            self._seen.popleft()
        self._show_if_due()
        self._save_if_asked(run)
        if self.pausing and not self.stopped:
            self._hold(run)
        if (wanted := self.wanted) != self.now:
            tune(self._optimizer, wanted)
            self.now = wanted
            self._say(f"Training: {wanted}")

    def _meet(self, run: Run) -> None:
        """The first look at the model and the optimizer: read the names, watch α."""
        self._optimizer = run.optimizer
        groups = run.optimizer.param_groups  # in the order in which an observer receives them
        params = [p for group in groups for p in group["params"] if p.requires_grad]
        place = {p: i for i, p in enumerate(params)}
        named = {name: place[p] for name, p in run.model.named_parameters() if p in place}
        self.names, self._order = [*named], [*named.values()]
        step = getattr(run.optimizer, "minibatches", 1)
        self.epoch = run.epoch * (1 - step / run.minibatches)  # before this step
        self._say(f"Training: {self.now}")
        if hasattr(run.optimizer, "observers"):
            run.optimizer.observers.append(self._observe)

    def _observe(self, event: Event) -> None:
        if event.kind == "slow" and event.i == 1 and event.alpha is not None:
            self._alphas = event.alpha

    def _measure(self, run: Run) -> None:
        assert self._dataset is not None
        some = first_images(self._dataset.train, SHARPNESS_IMAGES)
        rise = worst_rise(run.model, some.batches(SHARPNESS_BATCH), Ball(SHARPNESS_RADIUS))
        self.sharpness.append((run.epoch, rise))

    def _rate(self, column: int) -> float:
        first, last = (self._seen[0], self._seen[-1]) if self._seen else ((0.0, 0, 0.0),) * 2
        return (last[column] - first[column]) / max(1e-9, last[0] - first[0])

    def _show_if_due(self) -> None:
        start = time.monotonic()
        if start < self._due:
            return
        self._audience.show(self)
        spent = time.monotonic() - start
        self.seconds_drawing += spent
        self._due = start + max(SECONDS_BETWEEN_UPDATES, spent / UPDATE_SHARE)

    def _hold(self, run: Run) -> None:
        start, self.status = time.monotonic(), "paused"
        self._audience.show(self)
        self._say(f"Paused at epoch {run.epoch:.2f}, {_saved(run, self.path)}.")
        while self.pausing and not self.stopped:
            self._woken.wait()
            self._woken.clear()
            self._save_if_asked(run)
        self.status = "running"
        self._seen.clear()
        self.seconds -= time.monotonic() - start

    def _save_if_asked(self, run: Run) -> None:
        path, self._copy_to = self._copy_to, None
        if path is not None:
            kept = _saved(run, path)
            self._say(f"{kept[0].upper()}{kept[1:]}, epoch {run.epoch:.2f}.")


def tune(optimizer: Any, recipe: Recipe) -> None:
    """Give an optimizer made by `Recipe.make_optimizer` the k, ρ, α and lr of another recipe."""
    axes = METHODS[recipe.method].sliders
    for group in optimizer.param_groups:
        group["initial_lr"] = recipe.lr
    if "k" in axes:
        optimizer.k = recipe.k
    if "alpha" in axes:
        optimizer.alpha = recipe.alpha
    if "rho" in axes:
        climber = optimizer.inner if isinstance(optimizer, Lookahead) else optimizer
        climber.ball = replace(climber.ball, rho=recipe.rho)


def _saved(run: Run, path: Path) -> str:
    """Write a checkpoint; in words, how that went."""
    try:
        run.save(path)
    except OSError as error:
        return f"not saved: {error}"
    return f"saved as {path.name}"
