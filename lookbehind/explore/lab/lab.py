"""The training lab: train a network while the sliders for k, ρ, α and lr are moved."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lookbehind.explore.lab import view
from lookbehind.explore.lab.controls import Controls
from lookbehind.explore.lab.training import Training
from lookbehind.explore.shared.panel import RED, numbered, row
from lookbehind.explore.shared.runs import recipes_in
from lookbehind.train import Hardware, Outcome, Recipe, choose_hardware, read_checkpoint
from lookbehind.train.data import Dataset

OPENING = Recipe(epochs=100, gradients=None, label_noise=0.4)
INVITATION = "Move the sliders, then press Start."
NO_CHECKPOINT = "no checkpoint yet"
DATASETS = ("digits", "cifar10", "cifar100")
MOVABLE = ("k", "rho", "alpha", "lr")  # while it trains


class TrainingLab(Controls):
    """Sliders, buttons, live curves of every run, and a table of the finished ones.

    The lab opens with `recipe`, whose budget is in epochs; `recipe` is afterwards what the controls
    say now. `datasets` (names, or paths of folders of images) are what the dropdown offers. A
    dataset other than the first recipe's is taken whole: the numbers of images, and `augment` for
    digits, are not carried over. `hardware` is where it trains (default: `choose_hardware()`).

    A run trains in a thread, also where the page is closed, to the last bit as `Recipe.run` does; a
    move of k, ρ, α or lr changes it at its next step. After every epoch, where it is paused, and
    where it is stopped, it leaves a checkpoint in `folder`, a file of its own, from which Resume
    goes on, also in another kernel; the sliders then stand where they stood.

    Sharpness is `lookbehind.measure.worst_rise` in a ball of radius 0.05, on the first 500
    training images, after every epoch. `outcome` is that of the last run that ended, `table` holds
    a dict for each finished run, `message` is the line above the curves, or an error in words.

    Raises ValueError where the recipe's budget is not in epochs.
    """

    def __init__(
        self,
        recipe: Recipe = OPENING,
        *,
        datasets: Sequence[str] = DATASETS,
        hardware: Hardware | None = None,
        folder: str | Path = "lab-runs",
    ) -> None:
        if recipe.epochs is None:
            raise ValueError(
                "recipe must have its budget in epochs: Recipe(…, epochs=100, gradients=None), "
                f"got gradients={recipe.gradients}"
            )
        super().__init__(recipe, datasets, "start", "pause", "stop", "reset", "save", "resume")
        self._opening, self._hardware, self._folder = recipe, hardware, Path(folder)
        self._loaded: tuple[Recipe, Dataset] | None = None
        self._rows: dict[Path, dict[str, Any]] = {}
        self._sharpness: dict[Path, list[tuple[float, float]]] = {}  # no checkpoint holds it
        self._ending: set[Path] = set()  # of runs that a reset has stopped
        self.outcome: Outcome | None = None
        self._lay_out()
        self._list_checkpoints()
        self._lock(False)

    @property
    def table(self) -> list[dict[str, Any]]:
        """The finished runs, in their order: settings, scores, seconds, status."""
        return list(self._rows.values())

    @property
    def running(self) -> bool:
        """Whether a run is under way, be it paused."""
        return self._under_way is not None

    @property
    def _under_way(self) -> Training | None:
        """Read once by whoever uses it: JupyterLab may press two buttons in two threads."""
        work: Training | None = self._work
        return work if work is not None and work.status in ("running", "paused") else None

    def start(self) -> None:
        """Start a run in a thread; what the Start button does."""
        if not self.running:
            recipe, when = self.recipe, time.strftime("%Y%m%d-%H%M%S")
            name = view.dataset_name(recipe)
            self._say(f"Loading {name}.")
            self._launch(recipe, self._new("-".join([when, name, recipe.model, recipe.method])))

    def pause(self) -> None:
        """Hold the run under way after its step, or let it go on."""
        training = self._under_way
        if training is None:
            return
        if training.pausing:
            training.go_on()
            self.pause_button.description = "Pause"
            self._say(f"Training: {training.wanted}")
        else:
            training.pause()
            self.pause_button.description = "Continue"
            self._say("Pausing after the step under way.")

    def stop(self) -> None:
        """End the run under way after its step; its curves, weights and a checkpoint stay."""
        if training := self._under_way:
            self._say("Stopping after the step under way.")
            training.stop()

    def save(self) -> None:
        """Write a checkpoint of the run under way beside the one that every epoch replaces."""
        training: Training | None = self._work
        if training is None:
            self._say("Nothing to save yet: press Start.")
        elif training is not self._under_way:
            kept = f"is saved as {training.path.name}" if training.path.exists() else "left nothing"
            self._say(f"The last run {kept}.")
        else:
            self._say("Saving after the step under way.")
            training.save(self._new(f"{training.path.stem}-saved"))

    def resume(self) -> None:
        """Go on with the run of the chosen checkpoint, its settings put back on the sliders."""
        if self.running:
            return
        if self.checkpoint.value == NO_CHECKPOINT:
            self._list_checkpoints()
        if self.checkpoint.value == NO_CHECKPOINT:
            self._say(f"No checkpoint in the folder {self._folder} yet: press Start.")
            return
        path = self._folder / f"{self.checkpoint.value}.pt"
        if path in self._ending:
            self._say(f"The run of {path.name} still takes its last step: try again.")
            return
        try:
            began, now = recipes_in(path, read_checkpoint(path))
            if began.epochs is None:
                raise ValueError(f"{path} is of a run with a budget in gradients, not in epochs")
            self.put(now)
        except (ValueError, OSError) as error:
            self._say(f"Not resumed: {error}", RED)
            return
        self._say(f"Resuming {path.name}.")
        self._launch(began, path, now)

    def reset(self) -> None:
        """Stop, remove all curves, and put the controls back. Checkpoints and the table stay."""
        if training := self._under_way:
            training.stop()
            self._ending.add(training.path)
        self._work = None
        self._curves.clear()
        self.progress.value, self._where.value = 0, ""
        self.put(self._opening)
        self._lock(False)
        self._say(INVITATION)

    def _launch(self, recipe: Recipe, path: Path, now: Recipe | None = None) -> None:
        hardware = self._hardware = self._hardware or choose_hardware()
        self._work = training = Training(recipe, path, self, self._load, hardware, now=now)
        if path in self._rows:
            training.seconds = self._rows[path]["seconds"]
            training.sharpness = self._sharpness[path]
        self._sharpness[path] = training.sharpness
        self._lock(True)
        self._curves.add(path, training)
        training.thread.start()

    def _load(self, recipe: Recipe) -> Dataset:
        """The dataset, kept for the next run where that has the same images and labels."""
        names = ("dataset", "train", "validation", "test", "label_noise", "seed")
        key = replace(OPENING, **{name: getattr(recipe, name) for name in names})
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # two would need the memory of both
            assert self._hardware is not None
            self._loaded = (key, recipe.load(device=self._hardware.device))
        return self._loaded[1]

    def _new(self, stem: str) -> Path:
        """A file that no run has, written or not."""
        taken = {*self._rows, *self._ending}
        paths = (self._folder / f"{name}.pt" for name in numbered(stem.lower()))
        return next(path for path in paths if path not in taken and not path.exists())

    # What the training calls, from its thread.

    def say(self, training: Training, text: str) -> None:
        if training is self._work:
            self._say(text)

    def show(self, training: Training) -> None:
        if training is self._work:
            self._curves.draw(training.path, training)
            self.progress.value = training.share
            self._where.value = view.progress_text(training)

    def ended(self, training: Training) -> None:
        self._ending.discard(training.path)
        self._rows.pop(training.path, None)
        self._rows[training.path] = view.table_row(training)
        self._table.value = view.table_html(self.table)
        self._list_checkpoints()
        if training is not self._work:
            return
        self.outcome = training.outcome or self.outcome
        self._lock(False)
        self._show_what_counts()
        if training.error:
            self._say(f"The run ended with an error. {training.error}", RED)
        else:
            end = "Done" if training.status == "done" else "Stopped"
            test = [record.accuracy for record in training.records if record.split == "test"]
            score = f": test accuracy {test[-1]:.3f}" if test else ""
            self._say(f"{end} after {training.epoch:.1f} epochs{score}. {training.now}")

    def _lay_out(self) -> None:
        self._curves = view.Curves()
        self.figure = self._curves.figure
        self.checkpoint = widgets.Dropdown(options=[NO_CHECKPOINT], description="checkpoint")
        self.checkpoint.layout.width = "auto"
        self._where, self._table = widgets.Label(), widgets.HTML()
        self.start_button.button_style = "primary"
        self._say(INVITATION)
        for control in (self.k, self.rho, self.alpha, self.adaptive, self.lr, self.method):
            control.observe(self._moved, "value")
        self.children = [
            self._columns(),
            row(self.start_button, self.pause_button, self.stop_button, self.reset_button),
            row(self.save_button, self.resume_button, self.checkpoint),
            row(self.progress, self._where),
            self._status, self.figure, view.Fit(), self._table,
        ]  # fmt: skip

    def _moved(self, _: Any) -> None:
        """A slider was moved: tell the run, and say so at once."""
        self._show_what_counts()
        training = self._under_way
        if training is None or self.method.value != training.recipe.method:
            return
        training.wanted = replace(training.now, **{n: getattr(self.recipe, n) for n in MOVABLE})
        coming = training.wanted != training.now
        doing = "Paused" if training.pausing else "Training"
        self._say(f"{doing}{'; from the next step on' if coming else ''}: {training.wanted}")

    def _lock(self, running: bool) -> None:
        free = (self.method, self.model, self.dataset, self.epochs, self.checkpoint)
        for control in (*free, self.start_button, self.resume_button):
            control.disabled = running
        self.stop_button.disabled = self.pause_button.disabled = not running
        self.pause_button.description = "Pause"

    def _list_checkpoints(self) -> None:
        """Offer what lies in the folder, the newest first and chosen."""
        found = sorted(self._folder.glob("*.pt"), key=_written, reverse=True)
        names = tuple(path.stem for path in found) or (NO_CHECKPOINT,)
        if names != self.checkpoint.options:
            self.checkpoint.options = names


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # it has gone meanwhile
