"""The landscape explorer: the loss around trained networks, side by side, and who climbs there."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from torch import nn

from lookbehind.explore.landscape import job as jobs
from lookbehind.explore.landscape.job import Job, Network, Settings
from lookbehind.explore.landscape.view import QUANTITIES, VIEWS, LandscapeView, Sight, climbs, scene
from lookbehind.explore.shared.panel import RED, Panel, numbered, row
from lookbehind.explore.shared.runs import first_images
from lookbehind.measure import STATISTICS
from lookbehind.train.data import Dataset
from lookbehind.weights import Weights, weights_of

RADII = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
RANGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)
POINTS = (11, 21, 31, 41, 61)
LAYERS = {"show_path": "training path", "show_climb": "ascent path", "show_ball": "ρ-ball"}
ADVICE = (
    "Hover for loss and accuracy; drag the surface. "
    "Paths lie off the plane: the colour under a point is not its loss."
)


class LandscapeExplorer(Panel):
    """The loss on a line or a plane through each network's weights, one scale of colours for all.

    `networks`: by name, modules, finished runs (`Outcome`) or paths of checkpoints. `dataset` has
    their images: the first `images` for training are what loss and accuracy are measured on.
    `paths`: by a network's name, the weights along its training (see `lookbehind.measure`). The
    controls are widgets with a `value`, to read and to set: `first` and `second` (the directions),
    `half` (the range), `points`, `statistics`, `quantity`, `mode`, `k`, `rho`.

    Each network has its own directions, of the same kind, seed and range: "filter-normalized
    random" is normalized by its own filters, all others but "towards …" have length 1. The gradient
    and the Hessian are those on the climb's minibatch, the first 128 images. `statistics` is what
    BatchNorm normalizes by (`lookbehind.measure.Objective`), for the planes and for the climb.

    On the plane: the training path; the climb of one Lookbehind step, k ascents of ρ each on the
    one minibatch; the cut of the ball ‖ε‖ ≤ ρ with the plane (dotted: kρ, the climb's reach). Path
    and climb are projected, but their loss and accuracy are measured at their own weights.

    It computes in a thread, coarse to fine, once a page shows it or `compute` is called; a move of
    k or ρ is drawn by the page. `sights` holds what was computed, `message` is the line of status,
    or an error in words. Save writes `Plane.save` files to the folder `landscapes`.

    Raises ValueError for a direction or a number of points that it doesn't offer, no network, or a
    `paths` name that is none of the networks; what `read_checkpoint` raises for a path.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        dataset: Dataset,
        *,
        paths: Mapping[str, Sequence[Weights]] | None = None,
        images: int = 500,
        second: str = jobs.FILTERS,
        points: int = 21,
    ) -> None:
        if not networks:
            raise ValueError("networks must hold at least one network, got none")
        self._paths = dict(paths or {})
        if unknown := set(self._paths) - set(networks):
            raise ValueError(f"paths must be of {tuple(networks)}, got one of {sorted(unknown)}")
        super().__init__("compute", "stop", "save", "load")
        self._dataset, self._folder = dataset, Path("landscapes")
        self._images = first_images(dataset.train, images)
        self._models: dict[str, nn.Module] = {}
        self.view = LandscapeView(radii=list(RADII))
        self._build_controls()
        for name, network in networks.items():
            self._add(name, network)
        for name, value in {"first": jobs.GRADIENT, "second": second, "points": points}.items():
            control = getattr(self, name)
            if value not in control.options:
                raise ValueError(f"{name} must be one of {control.options}, got {value!r}")
            control.value = value
        self._lay_out()
        self._link()
        self._lock(False)
        self.view.on_msg(lambda *_: None if self._work else self.compute())  # a page shows it

    @property
    def sights(self) -> list[Sight]:
        """What is drawn: a `Sight` for each network."""
        return self._work.sights if self._work else []

    @property
    def running(self) -> bool:
        return self._work is not None and self.compute_button.disabled

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return Settings(*(control.value for control in self._settings))

    def compute(self) -> None:
        """Compute what the controls say, in a thread; what the Compute button does."""
        if self.running:
            return
        shown = [box.description for box in self.shown.children if box.value]
        if not shown:
            self._say("Choose at least one network.", RED)
            return
        self._lock(True)
        self.progress.value = 0
        self._say("Computing.")
        models = {name: self._models[name] for name in shown}
        self._work = Job(self, models, self._paths, self._images, self.settings, RADII)
        self._work.thread.start()

    def stop(self) -> None:
        """End the computation after the point under way; what is there stays."""
        if self.running:
            self._work.stop()

    def save(self) -> None:
        """Write every plane to a file of its own in the folder; none is replaced."""
        try:
            planes = [(sight.name, sight.plane) for sight in self.sights if sight.plane]
            names = [plane.save(self._new(name)).name for name, plane in planes]
        except OSError as error:
            self._say(f"Not saved: {error}", RED)
            return
        done = f"Saved in the folder {self._folder}: {', '.join(names)}."
        self._say(done if names else "Nothing to save yet: press Compute.")

    def load(self) -> None:
        """Add the network of the checkpoint whose path is in the text field."""
        path = self.path.value.strip()
        if not path:
            self._say("Give the path of a checkpoint.", RED)
            return
        name = next(n for n in numbered(Path(path).stem, " ") if n not in self._models)
        try:
            self._add(name, path)
        except (OSError, ValueError) as error:
            self._say(f"Not loaded: {error}", RED)
            return
        self._say(f"Loaded {name}: press Compute.")

    # What the job calls, from its thread.

    def show(self, job: Job) -> None:
        self.view.scene = scene(job.sights, job.settings.half)

    def show_climbs(self, job: Job) -> None:
        self.view.climbs = climbs(job.sights)

    def show_progress(self, share: float) -> None:
        self.progress.value = share

    def ended(self, job: Job) -> None:
        if job.error:
            self._say(job.error, RED)
        elif job.stopped:
            self._say("Stopped: what was not evaluated is drawn as the nearest point that was.")
        else:
            self.progress.value = 1
            self._say(f"Done, on {len(self._images)} images. {ADVICE}")
        self._lock(False)

    def _build_controls(self) -> None:
        style = {"description_width": "90px"}
        dropdown = partial(widgets.Dropdown, style=style)
        self.first = dropdown(options=jobs.DIRECTIONS, description="direction a")
        self.second = dropdown(options=jobs.DIRECTIONS, description="direction b")
        self.points = dropdown(options=POINTS, description="points")
        self.quantity = dropdown(options=QUANTITIES, description="quantity")
        named = tuple(zip(("stored", "re-estimated"), STATISTICS, strict=True))
        self.statistics = dropdown(options=named, description="BatchNorm")
        choose = partial(widgets.SelectionSlider, style=style)
        self.half = choose(options=RANGES, value=1.0, description="range ±")
        self.k = widgets.IntSlider(5, min=1, max=jobs.STEPS, description="k", style=style)
        self.rho = choose(options=RADII, value=0.2, description="ρ")
        self.mode = widgets.ToggleButtons(options=VIEWS, style={"button_width": "100px"}, index=1)
        for name, text in LAYERS.items():
            setattr(self, name, _box(text, width="130px"))
        self.show_path.disabled = not self._paths
        self.path = widgets.Text(placeholder="path of a checkpoint", layout={"width": "220px"})
        self.shown = row()
        self._settings = (self.first, self.second, self.half, self.points, self.statistics)
        for control in self._settings:
            control.observe(self._moved, "value")

    def _lay_out(self) -> None:
        self.compute_button.button_style = "primary"
        self._say("Press Compute.")
        left = widgets.VBox([self.first, self.second, self.half, self.k, self.rho])
        right = widgets.VBox([self.points, self.statistics, self.quantity])
        self.children = [
            row(left, right), row(self.shown, self.path, self.load_button),
            row(self.compute_button, self.stop_button, self.save_button, self.progress),
            row(self.mode, *(getattr(self, name) for name in LAYERS)), self._status, self.view,
        ]  # fmt: skip

    def _link(self) -> None:
        """What the page follows without the kernel."""
        pairs = {"k": ("k", "value"), "rho_index": ("rho", "index"), "mode": ("mode", "index")}
        pairs |= {"quantity": ("quantity", "index")} | {n: (n, "value") for n in LAYERS}
        for trait, (control, value) in pairs.items():
            source = getattr(self, control)
            setattr(self.view, trait, getattr(source, value))
            widgets.jslink((source, value), (self.view, trait))

    def _add(self, name: str, network: Network) -> None:
        model = jobs.as_model(network, self._dataset)
        weights_of(model)  # raises where it has none
        self._models[name] = model
        box = _box(name, width="auto", margin="2px 16px 2px 2px")
        self.shown.children = (*self.shown.children, box)
        self._offer_directions()

    def _offer_directions(self) -> None:
        """Only those that these networks have."""
        needs = {jobs.NEXT: len(self._models) > 1, jobs.AFTER: len(self._models) > 2}
        needs |= dict.fromkeys((jobs.PATH_1, jobs.PATH_2), bool(self._paths))
        options = tuple(d for d in jobs.DIRECTIONS if needs.get(d, True))
        for control in (self.first, self.second):
            if control.options != options:
                value, control.options = control.value, options
                control.value = value if value in options else options[0]

    def _moved(self, _: Any) -> None:
        """A control that the page can't follow by itself."""
        if not self.running and self._work is not None and self.settings != self._work.settings:
            self._say("Press Compute to draw what the controls say now.")

    def _new(self, name: str) -> Path:
        """A file that isn't there yet."""
        stem = re.sub(r"[^\w.-]+", "-", name).strip("-") or "plane"
        paths = (self._folder / f"{each}.npz" for each in numbered(stem))
        return next(path for path in paths if not path.exists())

    def _lock(self, running: bool) -> None:
        self.compute_button.disabled = running
        self.stop_button.disabled = not running


def _box(text: str, **layout: str) -> Any:
    return widgets.Checkbox(True, description=text, indent=False, layout=layout)
