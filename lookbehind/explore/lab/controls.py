"""What the training lab is steered with: sliders, dropdowns, and the recipe that they say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from lookbehind.explore.shared.panel import Panel, row
from lookbehind.optim import METHODS
from lookbehind.train import MODELS, Recipe

RADII = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
LEARNING_RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
EPOCHS = (1, 2, 5, 10, 20, 30, 50, 100, 200, 500)


class Controls(Panel):
    """The controls of a run."""

    def __init__(self, recipe: Recipe, datasets: Sequence[str], *buttons: str) -> None:
        super().__init__(*buttons)
        self.method = widgets.Dropdown(options=list(METHODS), description="method")
        self.model = widgets.Dropdown(options=list(MODELS), description="model")
        self.dataset = widgets.Dropdown(options=list(datasets), description="dataset")
        self.epochs = widgets.Dropdown(options=EPOCHS, description="epochs")
        self.k = widgets.IntSlider(min=1, max=10, description="k")
        self.rho = widgets.SelectionSlider(options=RADII, description="ρ")
        self.alpha = widgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="α")
        self.adaptive = widgets.Checkbox(description="adaptive α")
        self.lr = widgets.SelectionSlider(options=LEARNING_RATES, description="lr")
        self.put(recipe)

    @property
    def recipe(self) -> Recipe:
        """What the controls say now; the rest as in the recipe that was put."""
        base, name = self._base, self.dataset.value
        if name != base.dataset:
            sizes: dict[str, Any] = {"train": None, "validation": None, "test": None}
            base = replace(base, augment=base.augment and name != "digits", **sizes)
        return replace(
            base, dataset=name, model=self.model.value, method=self.method.value,
            k=self.k.value, rho=self.rho.value, lr=self.lr.value, epochs=self.epochs.value,
            alpha="adaptive" if self._is_adaptive() else self.alpha.value,
        )  # fmt: skip

    def put(self, recipe: Recipe) -> None:
        """Set every control; a value that a control doesn't offer is added to it."""
        self._base = recipe
        for name in ("dataset", "model", "method", "rho", "lr", "epochs"):
            control, value = getattr(self, name), getattr(recipe, name)
            if value not in control.options:
                options = [*control.options, value]
                control.options = options if isinstance(value, str) else sorted(options)
            control.value = value
        self.k.max = max(self.k.max, recipe.k)
        self.k.value, self.adaptive.value = recipe.k, recipe.alpha == "adaptive"
        if not isinstance(recipe.alpha, str):
            self.alpha.value = recipe.alpha
        self._show_what_counts()

    def _show_what_counts(self) -> None:
        """Disable what the method doesn't have."""
        axes = METHODS[self.method.value].sliders
        for name in ("k", "rho", "alpha", "adaptive"):
            getattr(self, name).disabled = name not in axes
        self.alpha.disabled |= self._is_adaptive()

    def _is_adaptive(self) -> bool:
        return self.adaptive.value and not self.adaptive.disabled

    def _columns(self) -> Any:
        sliders = [self.k, self.rho, self.alpha, self.adaptive, self.lr]
        choices = [self.method, self.model, self.dataset, self.epochs]
        return row(widgets.VBox(sliders), widgets.VBox(choices))
