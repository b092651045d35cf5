"""The training lab: train a small network while the sliders for k, ρ, α and lr are moved."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import nn
from torch.optim import SGD

from lookbehind.data import Dataset
from lookbehind.explore.palette import METHOD_COLORS, PLOTLY_CONFIG
from lookbehind.methods import AXES, make_method
from lookbehind.neighborhood import param_groups
from lookbehind.optim import Lookahead
from lookbehind.train import History, Record, fit

SECONDS_BETWEEN_UPDATES = 0.25
GRADIENTS_BETWEEN_RECORDS = 60
RADII = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 1.0)
LEARNING_RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GREY = "#808080"  # readable on white and on JupyterLab's dark background
GRID = "rgba(128, 128, 128, 0.25)"


@dataclass(frozen=True)
class Settings:
    """What the sliders say. `alpha` is a number in [0, 1] or "adaptive"."""

    method: str = "Lookbehind-SAM"
    k: int = 2
    rho: float = 0.2
    alpha: float | str = 0.5
    lr: float = 0.03

    def __str__(self) -> str:
        alpha = self.alpha if isinstance(self.alpha, str) else f"{self.alpha:g}"
        values = {"k": self.k, "rho": f"{self.rho:g}", "alpha": alpha}
        used = [f"{SYMBOLS[name]} {values[name]}" for name in USES[self.method]]
        return f"{self.method}: " + ", ".join([*used, f"lr {self.lr:g}"])


SYMBOLS = {"k": "k", "rho": "ρ", "alpha": "α"}
USES = {method: tuple(a for a in axes if a in SYMBOLS) for method, axes in AXES.items()}


def make_optimizer(settings: Settings, model: nn.Module) -> Any:
    """The method around SGD with momentum 0.9 and weight decay 5e-4; see `make_method`."""
    base = SGD(param_groups(model), lr=settings.lr, momentum=0.9, weight_decay=5e-4)
    s = settings
    return make_method(s.method, base, rho=s.rho, k=s.k, alpha=s.alpha)


def tune(optimizer: Any, settings: Settings) -> None:
    """Give an optimizer made by `make_optimizer` new settings, between two steps."""
    uses = USES[settings.method]
    for group in optimizer.param_groups:
        group["initial_lr"] = settings.lr
    if "k" in uses:
        optimizer.k = settings.k
    if "alpha" in uses:
        optimizer.alpha = settings.alpha
    if "rho" in uses:
        climber = optimizer.inner if isinstance(optimizer, Lookahead) else optimizer
        climber.ball = replace(climber.ball, rho=settings.rho)


class TrainingLab(widgets.VBox):
    """Sliders, a Train, a Stop and a Reset button, and live curves of every run.

    `make_model()` returns a fresh network for the images of `dataset`; each run starts from the
    same first weights and takes the same minibatches of `batch_size` (`seed`). A run trains in a
    thread, with SGD as base optimizer (momentum 0.9, weight decay 5e-4, cosine schedule), until
    `gradients` minibatch gradients were taken. Moving a slider changes the run under way at its
    next step. `settings` are those that the lab opens with.

    `history` is the `History` of the last run that ended, `message` the line above the curves:
    where a run fails, the error in words.
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        dataset: Dataset,
        *,
        settings: Settings | None = None,
        gradients: int = 6000,
        batch_size: int = 50,
        seed: int = 0,
    ) -> None:
        self._make_model, self._dataset = make_model, dataset
        self._batch_size, self._seed = batch_size, seed
        self._first = settings or Settings()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._curves: list[tuple[Any, Any]] = []
        self.history = History()
        self._build_controls(gradients)
        self.figure = _empty_figure()
        self.figure.update_xaxes(range=[0, gradients])
        buttons = [self.train_button, self.stop_button, self.reset_button]
        left = [self.method, self.k, self.rho, self.alpha, self.adaptive]
        right = [self.lr, self.gradients, widgets.HBox(buttons), self.progress]
        super().__init__(
            [widgets.HBox([widgets.VBox(left), widgets.VBox(right)]), self._status, self.figure]
        )
        self.put(self._first)

    def __repr__(self) -> str:
        return "TrainingLab, interactive once its cell runs in JupyterLab or on Binder"

    @property
    def settings(self) -> Settings:
        """What the sliders say now."""
        adaptive = self.adaptive.value and not self.adaptive.disabled
        alpha = "adaptive" if adaptive else self.alpha.value
        return Settings(self.method.value, self.k.value, self.rho.value, alpha, self.lr.value)

    @property
    def message(self) -> str:
        return self._status.value

    def put(self, settings: Settings) -> None:
        """Set every control; `rho` and `lr` are of those that the sliders offer."""
        adaptive = isinstance(settings.alpha, str)
        self.method.value, self.k.value, self.rho.value = settings.method, settings.k, settings.rho
        self.adaptive.value, self.lr.value = adaptive, settings.lr
        if not adaptive:
            self.alpha.value = settings.alpha
        self._show_what_counts()

    def train(self) -> None:
        """Start a run in a thread; what the Train button does."""
        if self.running:
            return
        self._stop.clear()
        self._say(f"Training: {self.settings}")
        self._lock(True)
        try:
            run = self._new_run()
        except Exception as error:
            self._fail(error)
            self._lock(False)
            return
        self._thread = threading.Thread(target=self._run, args=run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return when no run is under way."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """End the run under way after its current step; its curve and its weights stay."""
        self._stop.set()

    def reset(self) -> None:
        """Stop, remove all curves, and put the sliders back."""
        self.stop()
        self.wait()
        self._curves.clear()
        self.figure.data = self.figure.data[:2]
        self.progress.value = 0
        self._say("Move the sliders, then press Train.")
        self.put(self._first)

    def _build_controls(self, gradients: int) -> None:
        self.method = widgets.Dropdown(options=list(USES), description="method")
        self.k = widgets.IntSlider(min=1, max=10, description="k")
        radii, rates = {*RADII, self._first.rho}, {*LEARNING_RATES, self._first.lr}
        self.rho = widgets.SelectionSlider(options=sorted(radii), description="ρ")
        self.alpha = widgets.FloatSlider(min=0, max=1, step=0.05, description="α")
        self.adaptive = widgets.Checkbox(description="adaptive α")
        self.lr = widgets.SelectionSlider(options=sorted(rates), description="lr")
        self.gradients = widgets.IntSlider(
            value=gradients, min=600, max=30_000, step=600, description="gradients"
        )
        self.progress = widgets.IntProgress(description="spent")
        self._status = widgets.HTML("Move the sliders, then press Train.")
        self.train_button = widgets.Button(description="Train", button_style="primary")
        self.stop_button = widgets.Button(description="Stop", disabled=True)
        self.reset_button = widgets.Button(description="Reset")
        self.train_button.on_click(lambda _: self.train())
        self.stop_button.on_click(lambda _: self.stop())
        self.reset_button.on_click(lambda _: self.reset())
        for control in (self.method, self.adaptive):
            control.observe(lambda _: self._show_what_counts(), "value")

    def _show_what_counts(self) -> None:
        uses = USES[self.method.value]
        self.k.disabled, self.rho.disabled = "k" not in uses, "rho" not in uses
        self.adaptive.disabled = "adaptive" not in AXES[self.method.value]
        self.alpha.disabled = "alpha" not in uses or isinstance(self.settings.alpha, str)

    def _lock(self, running: bool) -> None:
        self.train_button.disabled = self.method.disabled = self.gradients.disabled = running
        self.stop_button.disabled = not running

    def _say(self, text: str, color: str = "inherit") -> None:
        self._status.value = f'<span style="color: {color}">{escape(text)}</span>'

    def _fail(self, error: Exception) -> None:
        self._say(f"The run ended with an error. {type(error).__name__}: {error}", "#E0463A")

    def _new_run(self) -> tuple[nn.Module, Any, Settings]:
        settings = self.settings
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            model = self._make_model()
        optimizer = make_optimizer(settings, model)
        self._add_curves(settings)
        return model, optimizer, settings

    def _add_curves(self, settings: Settings) -> None:
        color = METHOD_COLORS[settings.method]
        earlier = [1 for accuracy, _ in self._curves if accuracy.line.color == color]
        line = {"color": color, "width": 2.5, "dash": DASHES[len(earlier) % len(DASHES)]}
        earlier_end = self.figure.layout.xaxis.range[1] if self._curves else 0
        self.figure.update_xaxes(range=[0, max(self.gradients.value, earlier_end)])
        for column in (1, 2):
            self.figure.add_scatter(
                x=[], y=[], name=str(settings), line=line, mode="lines", row=1, col=column,
                legendgroup=len(self._curves), showlegend=column == 1,
            )  # fmt: skip
        self._curves.append(self.figure.data[-2:])
        self.figure.layout.height = 400 + 22 * len(self._curves)

    def _run(self, model: nn.Module, optimizer: Any, settings: Settings) -> None:
        watch = _Watch(self, optimizer, settings)
        data, budget = self._dataset, self.gradients.value
        self.progress.value, self.progress.max = 0, budget
        splits = {"train": data.train, "test": data.test}
        try:
            self.history = fit(
                model,
                optimizer,
                data.train.batches(self._batch_size, self._seed),
                gradients=budget,
                splits={name: split.batches(len(split)) for name, split in splits.items()},
                records=max(1, budget // GRADIENTS_BETWEEN_RECORDS),
                callbacks=[watch],
                stop=self._stop.is_set,
            )
            watch.show(self.history.records)
            test = self.history.last("test")
            self.progress.value = test.gradients
            end = "Stopped" if self.history.stopped else "Done"
            self._say(f"{end} after {test.gradients} gradients: test accuracy {test.accuracy:.3f}")
        except Exception as error:
            self._fail(error)
        finally:
            self._lock(False)
            self._show_what_counts()


class _Watch:
    """After each step: hand what the sliders say to the optimizer, and now and then draw."""

    def __init__(self, lab: TrainingLab, optimizer: Any, settings: Settings) -> None:
        self.lab, self.optimizer, self.settings = lab, optimizer, settings
        self.curves, self.moved = lab._curves[-1], ""
        self.due = 0.0

    def __call__(self, gradients: int, records: Sequence[Record]) -> None:
        wanted = replace(self.lab.settings, method=self.settings.method)
        if wanted != self.settings:
            tune(self.optimizer, wanted)
            self.settings, self.moved = wanted, " (moved)"
            self.lab._say(f"Training: {wanted}")
        if time.monotonic() >= self.due:
            self.show(records)
            self.lab.progress.value = gradients
            self.due = time.monotonic() + SECONDS_BETWEEN_UPDATES

    def show(self, records: Sequence[Record]) -> None:
        accuracy, loss = self.curves
        train = [record for record in records if record.split == "train"]
        test = [record for record in records if record.split == "test"]
        with self.lab.figure.batch_update():
            accuracy.x = loss.x = [record.gradients for record in test]
            accuracy.y = [record.accuracy for record in test]
            loss.y = [record.loss for record in train]
            accuracy.name = f"{self.settings}{self.moved}"


def _empty_figure() -> Any:
    figure = go.FigureWidget(make_subplots(rows=1, cols=2, horizontal_spacing=0.12))
    figure._config = PLOTLY_CONFIG
    clear = "rgba(0, 0, 0, 0)"
    figure.update_layout(
        height=400,
        width=900,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"color": GREY, "size": 13},
        legend={"x": 0, "y": -0.2, "yanchor": "top"},
    )
    for column in (1, 2):  # plotly draws no axes where there is no trace: one that shows nothing
        figure.add_scatter(x=[0], y=[0], mode="lines", showlegend=False, row=1, col=column)
    figure.update_xaxes(title="gradients taken", gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="test accuracy", range=[0, 1], col=1)
    figure.update_yaxes(title="training loss (nats)", rangemode="tozero", col=2)
    return figure
