"""The training lab: train a network while the sliders for k, ρ, α and lr are moved."""

import time
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lookbehind.explore.lab import view as lab_view
from lookbehind.explore.lab.training import Training, recipes_in
from lookbehind.optim import AXES
from lookbehind.train import (
    MODELS,
    Hardware,
    Outcome,
    Recipe,
    choose_hardware,
    read_checkpoint,
    uses,
)
from lookbehind.train.data import Dataset

RADII = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
LEARNING_RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
EPOCHS = (1, 2, 5, 10, 20, 30, 50, 100, 200, 500)
OPENING = Recipe(epochs=100, gradients=None, label_noise=0.4)
INVITATION = "Move the sliders, then press Start."
NO_CHECKPOINT = "no checkpoint yet"
RED = "#E0463A"  # readable on white and on JupyterLab's dark background


class TrainingLab(widgets.VBox):
    """Sliders, buttons, live curves of every run, and a table of the finished ones.

    The lab opens with `recipe`, whose budget is in epochs; `recipe` is afterwards what the controls
    say now. `datasets` (names, or paths of folders of images) and `models` are what the dropdowns
    offer. A dataset other than the first recipe's is taken whole: the numbers of images, and
    `augment` for digits, are not carried over. `root` is where datasets are kept
    (`lookbehind.data.data_root`), `hardware` where it trains (default: `choose_hardware()`).

    A run trains in a thread, as `Recipe.run` does: without a move of a slider it gives the same
    weights to the last bit. A move of k, ρ, α or lr changes the run under way at its next step.
    The run goes on while the kernel lives, also where the page is closed. After every epoch, where
    it is paused, and where it is stopped, it leaves a checkpoint in `folder`, a file of its own,
    from which Resume goes on, also in another kernel; the sliders then stand where they stood.

    Sharpness is `lookbehind.sharpness.worst_rise` in a ball of radius 0.05, on the first 500
    training images, after every epoch. `outcome` is that of the last run that ended, `table` holds
    a dict for each finished run, `message` is the line above the curves: where a run fails, the
    error in words.

    Raises ValueError where the recipe's budget is not in epochs.
    """

    def __init__(
        self,
        recipe: Recipe = OPENING,
        *,
        datasets: Sequence[str] = ("digits", "cifar10", "cifar100"),
        models: Sequence[str] = tuple(MODELS),
        root: str | Path | None = None,
        hardware: Hardware | None = None,
        folder: str | Path = "lab-runs",
    ) -> None:
        if recipe.epochs is None:
            raise ValueError(
                "recipe must have its budget in epochs: Recipe(…, epochs=100, gradients=None), "
                f"got gradients={recipe.gradients}"
            )
        self._opening = self._base = recipe
        self._root, self._hardware, self._folder = root, hardware, Path(folder)
        self._training: Training | None = None
        self._loaded: tuple[Recipe, Dataset] | None = None
        self._rows: dict[Path, dict[str, Any]] = {}
        self._sharpness: dict[Path, list[tuple[float, float]]] = {}  # no checkpoint holds it
        self._ending: set[Path] = set()  # of runs that a reset has stopped
        self.outcome: Outcome | None = None
        self._curves = lab_view.Curves()
        self.figure = self._curves.figure
        self._build_controls(datasets, models)
        self._build_buttons()
        super().__init__(self._rows_of_widgets())
        self.put(recipe)
        self._list_checkpoints()
        self._lock(False)

    def __repr__(self) -> str:
        return "TrainingLab, interactive once its cell runs in JupyterLab or on Binder"

    @property
    def recipe(self) -> Recipe:
        """What the controls say now; the rest as in the recipe that the lab opened with."""
        adaptive = self.adaptive.value and not self.adaptive.disabled
        base, name = self._base, self.dataset.value
        if name != base.dataset:
            sizes: dict[str, Any] = {"train": None, "validation": None, "test": None}
            base = replace(base, augment=base.augment and name != "digits", **sizes)
        return replace(
            base, dataset=name, model=self.model.value, method=self.method.value,
            k=self.k.value, rho=self.rho.value, lr=self.lr.value, epochs=self.epochs.value,
            alpha="adaptive" if adaptive else self.alpha.value,
        )  # fmt: skip

    @property
    def message(self) -> str:
        return self._status.value

    @property
    def table(self) -> list[dict[str, Any]]:
        """The finished runs, in their order: settings, scores, seconds, status."""
        return list(self._rows.values())

    @property
    def running(self) -> bool:
        """Whether a run is under way, be it paused."""
        return self._training is not None and self._training.status in ("running", "paused")

    def put(self, recipe: Recipe) -> None:
        """Set every control; a value that a control doesn't offer is added to it."""
        self._base = recipe
        for name in ("dataset", "model", "method", "rho", "lr", "epochs"):
            _offer(getattr(self, name), getattr(recipe, name))
        self.k.max = max(self.k.max, recipe.k)
        self.k.value, self.adaptive.value = recipe.k, recipe.alpha == "adaptive"
        if not isinstance(recipe.alpha, str):
            self.alpha.value = recipe.alpha
        self._show_what_counts()

    def start(self) -> None:
        """Start a run in a thread; what the Start button does."""
        if not self.running:
            recipe = self.recipe
            self._say(f"Loading {lab_view.dataset_name(recipe)}.")
            self._launch(recipe, self._new_path(recipe))

    def pause(self) -> None:
        """Hold the run under way after its step, or let it go on."""
        training = self._training
        if training is None or not self.running:
            return
        (training.go_on if training.pausing else training.pause)()
        self.pause_button.description = "Continue" if training.pausing else "Pause"
        held = "Pausing after the step under way."
        self._say(held if training.pausing else f"Training: {training.wanted}")

    def stop(self) -> None:
        """End the run under way after its step; its curves, weights and a checkpoint stay."""
        if self._training is not None and self.running:
            self._say("Stopping after the step under way.")
            self._training.stop()

    def save(self) -> None:
        """Write a checkpoint of the run under way beside the one that every epoch replaces."""
        training = self._training
        if training is None:
            self._say("Nothing to save yet: press Start.")
        elif not self.running:
            kept = training.path.exists()
            name = training.path.name
            self._say(f"The last run is saved as {name}." if kept else "The last run left nothing.")
        else:
            self._say("Saving after the step under way.")
            stem = f"{training.path.stem}-saved"
            training.save(self._unused(stem))

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
        self._launch(began, path, now=now, resume=True)

    def reset(self) -> None:
        """Stop, remove all curves, and put the controls back. Checkpoints and the table stay."""
        if self._training is not None and self.running:
            self._training.stop()
            self._ending.add(self._training.path)
        self._training = None
        self._curves.clear()
        self.progress.value, self._where.value = 0, ""
        self.put(self._opening)
        self._lock(False)
        self._say(INVITATION)

    def wait(self) -> None:
        """Return when no run is under way."""
        if self._training is not None:
            self._training.thread.join()

    def _launch(self, recipe: Recipe, path: Path, **options: Any) -> None:
        hardware = self._hardware = self._hardware or choose_hardware()
        training = Training(recipe, path, self, self._load, hardware, **options)
        if path in self._rows:
            training.seconds = self._rows[path]["seconds"]
            training.sharpness = self._sharpness[path]
        self._sharpness[path] = training.sharpness
        self._training = training
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
            self._loaded = (key, recipe.load(self._root, self._hardware.device))
        return self._loaded[1]

    def _new_path(self, recipe: Recipe) -> Path:
        when = time.strftime("%Y%m%d-%H%M%S")
        parts = (when, lab_view.dataset_name(recipe), recipe.model, recipe.method)
        return self._unused("-".join(parts).lower())

    def _unused(self, stem: str) -> Path:
        """A file that no run has, written or not."""
        taken = {*self._rows, *self._ending}
        path, n = self._folder / f"{stem}.pt", 2
        while path in taken or path.exists():
            path, n = self._folder / f"{stem}-{n}.pt", n + 1
        return path

    # What the training calls, from its thread.

    def say(self, training: Training, text: str) -> None:
        if training is self._training:
            self._say(text)

    def show(self, training: Training) -> None:
        if training is self._training:
            self._curves.draw(training.path, training)
            self.progress.value = training.share
            self._where.value = lab_view.progress_text(training)

    def ended(self, training: Training) -> None:
        self._ending.discard(training.path)
        self._rows.pop(training.path, None)
        self._rows[training.path] = lab_view.row(training)
        self._table.value = lab_view.table_html(self.table)
        self._list_checkpoints()
        if training is not self._training:
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

    # The controls.

    def _build_controls(self, datasets: Sequence[str], models: Sequence[str]) -> None:
        self.method = widgets.Dropdown(options=list(AXES), description="method")
        self.model = widgets.Dropdown(options=list(models), description="model")
        self.dataset = widgets.Dropdown(options=list(datasets), description="dataset")
        self.epochs = widgets.Dropdown(options=EPOCHS, description="epochs")
        self.k = widgets.IntSlider(min=1, max=10, description="k")
        self.rho = widgets.SelectionSlider(options=RADII, description="ρ")
        self.alpha = widgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="α")
        self.adaptive = widgets.Checkbox(description="adaptive α")
        self.lr = widgets.SelectionSlider(options=LEARNING_RATES, description="lr")
        self.checkpoint = widgets.Dropdown(options=[NO_CHECKPOINT], description="checkpoint")
        self.checkpoint.layout.width = "auto"
        self.progress = widgets.FloatProgress(max=1)
        self.progress.layout.width = "200px"
        self._where, self._table = widgets.Label(), widgets.HTML()
        self._status = widgets.HTML()
        self._say(INVITATION)
        for control in (self.k, self.rho, self.alpha, self.adaptive, self.lr, self.method):
            control.observe(self._moved, "value")

    def _build_buttons(self) -> None:
        self.start_button = widgets.Button(description="Start", button_style="primary")
        self.pause_button = widgets.Button(description="Pause")
        self.stop_button = widgets.Button(description="Stop")
        self.reset_button = widgets.Button(description="Reset")
        self.save_button = widgets.Button(description="Save")
        self.resume_button = widgets.Button(description="Resume")
        for name in ("start", "pause", "stop", "reset", "save", "resume"):
            button, press = getattr(self, f"{name}_button"), getattr(self, name)
            button.on_click(lambda _, press=press: press())
            button.layout.width = "90px"

    def _rows_of_widgets(self) -> list[Any]:
        wrapped = widgets.Layout(flex_flow="row wrap")
        sliders = [self.k, self.rho, self.alpha, self.adaptive, self.lr]
        choices = [self.method, self.model, self.dataset, self.epochs]
        buttons = [self.start_button, self.pause_button, self.stop_button, self.reset_button]
        keep = [self.save_button, self.resume_button, self.checkpoint]
        columns = widgets.HBox([widgets.VBox(sliders), widgets.VBox(choices)], layout=wrapped)
        return [
            columns,
            widgets.HBox(buttons, layout=wrapped),
            widgets.HBox(keep, layout=wrapped),
            widgets.HBox([self.progress, self._where], layout=wrapped),
            self._status,
            self.figure,
            lab_view.Fit(),
            self._table,
        ]

    def _moved(self, _: Any) -> None:
        """A slider was moved: tell the run, and say so at once."""
        self._show_what_counts()
        training = self._training
        if training is None or not self.running or self._locking_out(training):
            return
        names = ("k", "rho", "alpha", "lr")
        training.wanted = replace(training.now, **{n: getattr(self.recipe, n) for n in names})
        coming = training.wanted != training.now
        doing = "Paused" if training.pausing else "Training"
        self._say(f"{doing}{'; from the next step on' if coming else ''}: {training.wanted}")

    def _locking_out(self, training: Training) -> bool:
        """While the method in the dropdown isn't the run's."""
        return self.method.value != training.recipe.method

    def _show_what_counts(self) -> None:
        method = self.method.value
        used = uses(method)
        self.k.disabled, self.rho.disabled = "k" not in used, "rho" not in used
        self.adaptive.disabled = "adaptive" not in AXES[method]
        adaptive = self.adaptive.value and not self.adaptive.disabled
        self.alpha.disabled = "alpha" not in used or adaptive

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

    def _say(self, text: str, color: str = "inherit") -> None:
        self._status.value = f'<span style="color: {color}">{escape(text)}</span>'


def _offer(control: Any, value: Any) -> None:
    """Choose `value`, after adding it to the options where it is missing."""
    if value not in control.options:
        options = [*control.options, value]
        control.options = options if isinstance(value, str) else sorted(options)
    control.value = value


def _written(path: Path) -> float:
    """When a file was written; 0 where it has gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
