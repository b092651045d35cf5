"""What the training lab is steered with: traits that pages show and set, and their recipe."""

from collections import ChainMap
from dataclasses import replace
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import Widget, widget_serialization

from lookbehind.explore.lab.training import KERNEL
from lookbehind.explore.shared.page import Living, script, style
from lookbehind.explore.shared.palette import PALETTES
from lookbehind.optim import METHODS
from lookbehind.train import MODELS, CheckpointError, Recipe

HERE = Path(__file__).parent
OPENING = Recipe(epochs=100, gradients=None, label_noise=0.4)
INVITATION = "Choose a run, then press Start."
SETTINGS = ("method", "model", "dataset", "epochs", "k", "rho", "lr")  # as a recipe names them
OF_KERNEL = {"checkpoint", "checkpoints", "earlier", "around"}  # nothing to a page without one
SETUP = {
    "methods": {name: method.sliders for name, method in METHODS.items()},
    "models": list(MODELS),
    "palettes": {name: palette["methods"] for name, palette in PALETTES.items()},
}


class Controls(Living):
    title = "Training lab"
    _esm = script(HERE / "lab.js", SETUP=SETUP)
    _css = style(HERE / "lab.css")

    method = traitlets.Unicode(OPENING.method).tag(sync=True)
    model = traitlets.Unicode(OPENING.model).tag(sync=True)
    dataset = traitlets.Unicode(OPENING.dataset).tag(sync=True)
    epochs = traitlets.Int(OPENING.epochs).tag(sync=True)
    k = traitlets.Int(OPENING.k).tag(sync=True)
    rho = traitlets.Float(OPENING.rho).tag(sync=True)
    alpha = traitlets.Float(0.5).tag(sync=True)
    adaptive = traitlets.Bool().tag(sync=True)
    lr = traitlets.Float(OPENING.lr).tag(sync=True)
    datasets = traitlets.List(traitlets.Unicode()).tag(sync=True)
    checkpoint = traitlets.Unicode().tag(sync=True)  # chosen to be resumed
    checkpoints = traitlets.List(traitlets.Unicode()).tag(sync=True)
    runs = traitlets.List(traitlets.Dict()).tag(sync=True)  # that have ended
    live = traitlets.Dict().tag(sync=True)  # the one under way
    hidden = traitlets.List(traitlets.Unicode()).tag(sync=True)  # keys of runs
    message = traitlets.Unicode(INVITATION).tag(sync=True)
    failed = traitlets.Bool().tag(sync=True)
    earlier = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)  # key, words
    around = traitlets.Instance(Widget, allow_none=True).tag(sync=True, **widget_serialization)

    @traitlets.validate("method", "model", "epochs", "k", "rho", "alpha", "lr")
    def _allowed(self, proposal: Any) -> Any:
        try:
            replace(OPENING, **{proposal.trait.name: proposal.value})
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal.value

    @property
    def recipe(self) -> Recipe:
        """What the controls say now; the rest as in the recipe that was put."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS}
        if self.dataset != self._base.dataset:
            augment = self._base.augment and self.dataset != "digits"
            settings |= {"train": None, "validation": None, "test": None, "augment": augment}
        adaptive = self.adaptive and "adaptive" in METHODS[self.method].sliders
        return replace(self._base, **settings, alpha="adaptive" if adaptive else self.alpha)

    def put(self, recipe: Recipe) -> None:
        """Set every control; ValueError where the budget is not in epochs."""
        if recipe.epochs is None:
            raise ValueError(
                f"recipe must have its budget in epochs (gradients=None), got {recipe.gradients=}"
            )
        self._base = recipe
        with KERNEL.lock, self.hold_sync():
            if recipe.dataset not in self.datasets:
                self.datasets = [*self.datasets, recipe.dataset]
            self.adaptive = recipe.alpha == "adaptive"
            for name in (*SETTINGS, *(() if self.adaptive else ("alpha",))):
                setattr(self, name, getattr(recipe, name))

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in super()._state().items() if name not in OF_KERNEL}

    def _picture(self) -> tuple[str, str]:
        return "", "TrainingLab, interactive once its cell runs in JupyterLab or on Binder"

    def _say(self, text: str, failed: bool = False) -> None:
        with KERNEL.lock, self.hold_sync():
            self.message, self.failed = text, failed


def recipes_in(path: str | Path, state: dict[str, Any]) -> tuple[Recipe, Recipe]:
    """The recipe that a checkpoint's run began with, and the one it had when it was saved; raises
    CheckpointError where it was not written by a run of a recipe."""
    try:
        began = Recipe(**state["plan"]["config"])
        part = state["optimizer"]
        # The first that names it: Lookahead's k, not that of the SAM inside.
        settings: dict[str, Any] = dict(ChainMap(*part.get("settings", ())))
        group = part["param_groups"][0]
        settings |= {"lr": group.get("initial_lr", group["lr"])}  # not set before the first step
        settings |= settings.pop("ball", {})
        names = {"k", "rho", "alpha"} & {*METHODS[began.method].sliders} | {"lr"}
        return began, replace(began, **{name: settings[name] for name in names})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} was not written by a run of a recipe: {error}") from error
