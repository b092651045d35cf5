"""One run of the training lab: a thread that trains, and what is said to it meanwhile.

A run belongs to the kernel, not to a cell: `KERNEL` holds what is under way, and tells every lab.
"""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch

from lookbehind.explore.shared.work import Work
from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS, Ball, Event
from lookbehind.scores import Record
from lookbehind.train import Hardware, Outcome, Recipe, Run
from lookbehind.train.data import Dataset

SECONDS_BETWEEN_UPDATES = 0.25
UPDATE_SHARE = 0.015  # of the time at most goes into drawing
SHARPNESS_RADIUS = 0.05
SHARPNESS_IMAGES = 500  # of the training split, at most
SHARPNESS_BATCH = 100
ONE_MOVE = 2.0  # seconds: changes of a number in quick succession are one
NICENESS = 5
IMAGES = ("dataset", "train", "validation", "test", "label_noise", "seed")  # decide on these
MOVABLE = ("k", "rho", "alpha", "lr")  # while it trains


class Kernel:
    """The runs under way in this process, the labs that hear of them, and one lock around all."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: list[Any] = []  # of `Training`
        self.labs: WeakSet[Any] = WeakSet()
        self._listening = False

    def ended(self, training: "Training") -> None:
        with self.lock:
            self.runs.remove(training)
            self.tell("ended", training)

    def tell(self, what: str, training: "Training", *words: str) -> None:
        """Call a method of every lab."""
        with self.lock:
            for lab in list(self.labs):
                getattr(lab, what)(training, *words)

    def listen(self) -> None:
        """From now on an interrupt of the kernel, or Ctrl-C, also pauses the runs under way.

        Between two messages ipykernel ignores the signal, and puts its `saved_sigint_handler` back
        after each; within a cell it raises KeyboardInterrupt, which IPython reports.
        """
        if self._listening or threading.current_thread() is not threading.main_thread():
            return
        self._listening = True
        shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        kernel = getattr(shell, "kernel", None)
        before = getattr(kernel, "saved_sigint_handler", signal.getsignal(signal.SIGINT))

        def interrupted(*what: Any) -> None:
            self._pause()
            if callable(before):
                before(*what)

        if kernel is None:
            signal.signal(signal.SIGINT, interrupted)
        else:
            kernel.saved_sigint_handler = interrupted
            shell.events.register("post_run_cell", self._cell_ended)

    def _cell_ended(self, result: Any) -> None:
        if isinstance(getattr(result, "error_in_exec", None), KeyboardInterrupt):
            self._pause()

    def _pause(self) -> None:
        for run in list(self.runs):
            run.pausing = "Interrupted. Paused"


KERNEL = Kernel()


class Training(Work):
    """A run of `recipe` in a thread of its own, with a checkpoint at `path` after every epoch.

    Told to it: `wanted`, the recipe whose k, ρ, α and lr the optimizer gets before the next step;
    `pausing`, in words why it is held after the step under way until this is "" again or `stop`;
    `copy_to`, a path for a checkpoint of its own.

    Told by it: `now`, the recipe that the optimizer has; `status`, "running", "done", "stopped",
    "diverged" or "failed" (then `error` says why); `outcome`, what `Recipe.run` returned;
    `sharpness`, (epoch, rise) pairs; `ticks`, the moves: epoch, name, old and new value, time;
    `seconds` of its steps with scores and checkpoints. With `before`, the same run until it was
    left, these three go on.
    """

    def __init__(
        self, recipe: Recipe, path: Path, hardware: Hardware, *, now: Recipe | None = None,
        before: "Training | None" = None,
    ) -> None:  # fmt: skip
        super().__init__(KERNEL)
        self.recipe, self.path = recipe, path
        self.now = self.wanted = now or recipe
        self.status, self.pausing = "running", ""
        self.copy_to: Path | None = None
        self.outcome: Outcome | None = None
        self.dataset: Dataset | None = None
        self.records: list[Record] = []
        self.sharpness: list[tuple[float, float]] = before.sharpness if before else []
        self.ticks: list[tuple[float, str, Any, Any, float]] = before.ticks if before else []
        self.flatness: dict[str, float] = {}
        self.epoch = self.share = self.seconds_drawing = 0.0
        self.seconds: float = before.seconds if before else 0.0
        self.steps = self.images = 0
        self._hardware, self._resume = hardware, now is not None
        self._alphas: dict[str, Any] = {}
        self._due, self._began = 0.0, 0.0
        self._random: torch.Tensor | None = torch.get_rng_state()

    @property
    def state(self) -> str:
        return "paused" if self.pausing and self.status == "running" else self.status

    @property
    def alpha(self) -> dict[str, float]:
        """The α of the latest step of each parameter, first to last layer, if any."""
        return {name: float(alpha) for name, alpha in self._alphas.items()}

    def _compute(self) -> None:
        try:
            images = {name: getattr(self.recipe, name) for name in IMAGES}
            self.dataset = loaded(self._hardware.device, **images)
            self._say("Scoring the network before the first step.")
            self.outcome = self.recipe.run(
                hardware=self._hardware, dataset=self.dataset, callbacks=[self._after_step],
                stop=self._stopped, checkpoint=self.path, resume=self._resume,
            )  # fmt: skip
            self.records = list(self.outcome.history.records)
            self.status = "stopped" if self.outcome.history.stopped else "done"
        except Exception as error:
            self.status = "diverged" if isinstance(error, FloatingPointError) else "failed"
            raise
        finally:
            self._put_random_back()

    def _say(self, text: str) -> None:
        KERNEL.tell("hear", self, text)

    def _stopped(self) -> bool:
        """Asked before each step."""
        self._put_random_back()
        self._began = time.monotonic()
        return self.stopped

    def _put_random_back(self) -> None:
        """Once: a run that is resumed sets torch's global generator, which is the notebook's."""
        state, self._random = self._random, None
        if state is not None:
            torch.set_rng_state(state)

    def _after_step(self, run: Run) -> None:
        self.seconds += time.monotonic() - self._began
        if not self.steps:
            self._meet(run)
        self.records, self.share, self.steps = run.records, run.share, self.steps + 1
        self.images, self.epoch = run.images, run.epoch
        if int(run.epoch) > (self.sharpness[-1][0] if self.sharpness else 0):
            self._measure(run)
        self._show_if_due()
        self._save_if_asked(run)
        if self.pausing and not self.stopped:
            self._hold(run)
        if (wanted := self.wanted) != self.now:
            tune(run.optimizer, wanted)
            for name in MOVABLE:
                self._mark(name, getattr(self.now, name), getattr(wanted, name))
            self.now = wanted
            self._say(f"Training: {wanted}")

    def _mark(self, name: str, old: Any, new: Any) -> None:
        epoch, now = self.epoch, time.monotonic()
        if self.ticks and self.ticks[-1][1] == name and now - self.ticks[-1][4] < ONE_MOVE:
            epoch, _, old, _, _ = self.ticks.pop()
        if old != new:
            self.ticks.append((epoch, name, old, new, now))

    def _meet(self, run: Run) -> None:
        """The first look at the model and the optimizer: watch α."""
        if sys.platform == "linux":  # what answers the reader goes first; niceness is a thread's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        self._say(f"Training: {self.now}")
        names = {p: name for name, p in run.model.named_parameters()}

        def observe(event: Event) -> None:
            if event.kind == "slow" and event.i == 1 and event.alpha is not None:
                alphas = dict(zip(event.params, event.alpha, strict=True))
                self._alphas = {name: alphas[p] for p, name in names.items() if p in alphas}

        if hasattr(run.optimizer, "observers"):
            run.optimizer.observers.append(observe)

    def _measure(self, run: Run) -> None:
        assert self.dataset is not None
        some = self.dataset.train.take(slice(SHARPNESS_IMAGES))
        rise = worst_rise(run.model, some.batches(SHARPNESS_BATCH), Ball(SHARPNESS_RADIUS))
        self.sharpness.append((run.epoch, rise))

    def _show_if_due(self) -> None:
        if time.monotonic() < self._due:
            return
        start = time.thread_time()  # this thread's own, not what it waited for
        KERNEL.tell("show", self)
        spent = time.thread_time() - start
        self.seconds_drawing += spent
        self._due = time.monotonic() + max(SECONDS_BETWEEN_UPDATES, spent / UPDATE_SHARE)

    def _hold(self, run: Run) -> None:
        KERNEL.tell("show", self)
        self._say(f"{self.pausing or 'Paused'} at epoch {run.epoch:.2f}, {_saved(run, self.path)}.")
        while self.pausing and not self.stopped:
            time.sleep(0.005)
            self._save_if_asked(run)

    def _save_if_asked(self, run: Run) -> None:
        path, self.copy_to = self.copy_to, None
        if path is not None:
            kept = _saved(run, path)
            self._say(f"{kept[0].upper()}{kept[1:]}, epoch {run.epoch:.2f}.")


@lru_cache(maxsize=1)
def loaded(device: torch.device, **images: Any) -> Dataset:
    """The dataset of recipes that agree in `IMAGES`, kept for the next run."""
    return Recipe(epochs=1, gradients=None, **images).load(device=device)


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
        optimizer.climber.ball = replace(optimizer.climber.ball, rho=recipe.rho)


def _saved(run: Run, path: Path) -> str:
    """Write a checkpoint; in words, how that went."""
    try:
        run.save(path)
    except OSError as error:
        return f"not saved: {error}"
    return f"saved as {path.name}"
