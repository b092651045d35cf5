"""The landscape explorer: the loss around trained networks, side by side, and who climbs there."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from torch import nn

from lookbehind.explore.landscape.job import (
    AFTER,
    DIRECTIONS,
    FILTERS,
    GRADIENT,
    NEXT,
    PATH_1,
    PATH_2,
    STEPS,
    Job,
    Network,
    Settings,
    as_model,
    first_images,
)
from lookbehind.explore.landscape.view import QUANTITIES, VIEWS, LandscapeView, Sight, climbs, scene
from lookbehind.measure import STATISTICS
from lookbehind.train.data import Dataset
from lookbehind.weights import Weights, weights_of

RADII = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
RANGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)
POINTS = (11, 21, 31, 41, 61)

ADVICE = (
    "Hover for loss and accuracy; drag the surface. "
    "Paths lie off the plane: the colour under a point is not its loss."
)

RED = "#E0463A"  # readable on white and on JupyterLab's dark background


class LandscapeExplorer(widgets.VBox):
    """The loss on a line or a plane through each network's weights, one scale of colours for all.

    `networks`: by name, modules, finished runs (`Outcome`) or paths of checkpoints. `dataset` has
    their images: the first `images` of `split` are what loss and accuracy are measured on.
    `paths`: by a network's name, the weights along its training (see `lookbehind.objective`).

    Each network has its own directions, of the same kind and seed: "filter-normalized random" is
    normalized by its own filters, all other directions but "towards …" have length 1. The gradient
    and the Hessian are those on the climb's minibatch, the first 128 images. The range is the same
    for all. `statistics` is what BatchNorm normalizes by (`lookbehind.objective.Objective`), for
    the planes and for the climb.

    On the plane: the training path; the climb of one Lookbehind step, k ascents of ρ each on the
    one minibatch; the cut of the ball ‖ε‖ ≤ ρ with the plane (dotted: kρ, the climb's reach). Path
    and climb are projected, but their loss and accuracy are measured at their own weights: the
    colour under a point is not its loss.

    It computes in a thread, coarse to fine, once a page shows it or `compute` is called; a move of
    k or ρ is drawn by the page. `sights` holds what was computed, `message` is the line of status:
    where something fails, the error in words. Save writes `Plane.save` files to `folder`.

    Raises ValueError for a control's value that it doesn't offer, no network, or a `paths` name
    that is none of the networks; what `read_checkpoint` raises for a path.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        dataset: Dataset,
        *,
        paths: Mapping[str, Sequence[Weights]] | None = None,
        images: int = 500,
        split: str = "train",
        first: str = GRADIENT,
        second: str = FILTERS,
        half: float = 1.0,
        points: int = 21,
        statistics: str = "stored",
        quantity: str = "loss",
        view: str = "2D contours",
        k: int = 5,
        rho: float = 0.2,
        seed: int = 0,
        folder: str | Path = "landscapes",
    ) -> None:
        if not networks:
            raise ValueError("networks must hold at least one network, got none")
        if split not in dataset.splits:
            raise ValueError(f"split must be one of {tuple(dataset.splits)}, got {split!r}")
        self._dataset, self._seed, self._folder = dataset, seed, Path(folder)
        self._images = first_images(dataset.splits[split], images)
        self._paths = dict(paths or {})
        if unknown := set(self._paths) - set(networks):
            raise ValueError(f"paths must be of {tuple(networks)}, got one of {sorted(unknown)}")
        self._models: dict[str, nn.Module] = {}
        self._job: Job | None = None
        self.view = LandscapeView(radii=list(RADII))
        chosen = {"first": first, "second": second, "half": half, "points": points}
        chosen |= {"statistics": statistics, "quantity": quantity, "mode": view, "rho": rho, "k": k}
        self._build_controls()
        self._build_buttons()
        for name, network in networks.items():
            self._add(name, network)
        self._put(chosen)
        super().__init__(self._rows())
        self._link()
        self._lock(False)
        self.view.on_msg(self._watched)

    def __repr__(self) -> str:
        return "LandscapeExplorer, interactive once its cell runs in JupyterLab or on Binder"

    @property
    def message(self) -> str:
        return self._status.value

    @property
    def sights(self) -> list[Sight]:
        """What is drawn: a `Sight` for each network."""
        return self._job.sights if self._job else []

    @property
    def running(self) -> bool:
        return self._job is not None and self.compute_button.disabled

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return Settings(
            self.first.value, self.second.value, self.half.value, self.points.value,
            self.statistics.value, self._seed,
        )  # fmt: skip

    def compute(self) -> None:
        """Compute what the controls say, in a thread; what the Compute button does."""
        if self.running:
            return
        shown = [box.description for box in self.shown.children if box.value]
        if not shown:
            self._say("Choose at least one network.", RED)
            return
        models = {name: self._models[name] for name in shown}
        self._lock(True)
        self.progress.value = 0
        self._say("Computing.")
        self._job = Job(
            models, self._paths, self._images, self.settings, RADII, self, lambda: self.rho.value
        )
        self._job.thread.start()

    def stop(self) -> None:
        """End the computation after the point under way; what is there stays."""
        if self._job is not None and self.running:
            self._job.stop()

    def wait(self) -> None:
        """Return when nothing is computed."""
        if self._job is not None:
            self._job.thread.join()

    def save(self) -> None:
        """Write every plane to a file of its own in the folder; none is replaced."""
        planes = [(sight.name, sight.plane) for sight in self.sights if sight.plane is not None]
        if not planes:
            self._say("Nothing to save yet: press Compute.")
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            names = []
            for name, plane in planes:
                path = self._unused(name)
                plane.save(path)
                names.append(path.name)
        except OSError as error:
            self._say(f"Not saved: {error}", RED)
            return
        self._say(f"Saved in the folder {self._folder}: {', '.join(names)}.")

    def load(self) -> None:
        """Add the network of the checkpoint whose path is in the text field."""
        path = self.path.value.strip()
        if not path:
            self._say("Give the path of a checkpoint.", RED)
            return
        try:
            self._add(self._unused_name(Path(path).stem), path)
        except (OSError, ValueError) as error:
            self._say(f"Not loaded: {error}", RED)
            return
        self._say(f"Loaded {[*self._models][-1]}: press Compute.")

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

    # The controls.

    def _build_controls(self) -> None:
        style = {"description_width": "90px"}
        pick = {"first": DIRECTIONS, "second": DIRECTIONS, "points": POINTS}
        statistics = zip(("stored", "re-estimated"), STATISTICS, strict=True)
        pick |= {"statistics": tuple(statistics), "quantity": QUANTITIES}
        words = {"first": "direction a", "second": "direction b", "statistics": "BatchNorm"}
        for name, options in pick.items():
            text = words.get(name, name)
            setattr(self, name, widgets.Dropdown(options=options, description=text, style=style))
        self.half = widgets.SelectionSlider(options=RANGES, description="range ±", style=style)
        for control in (self.first, self.second, self.half, self.points, self.statistics):
            control.observe(self._moved, "value")
        self.k = widgets.IntSlider(min=1, max=STEPS, description="k", style=style)
        self.rho = widgets.SelectionSlider(options=RADII, description="ρ", style=style)
        self.mode = widgets.ToggleButtons(options=VIEWS, style={"button_width": "100px"})
        boxes = {"show_path": "training path", "show_climb": "ascent path", "show_ball": "ρ-ball"}
        for name, text in boxes.items():
            box = widgets.Checkbox(True, description=text, indent=False)
            box.layout.width = "130px"
            setattr(self, name, box)
        self.show_path.disabled = not self._paths
        self.path = widgets.Text(placeholder="path of a checkpoint", description="")
        self.path.layout.width = "220px"
        self.progress = widgets.FloatProgress(max=1)
        self.progress.layout.width = "200px"
        self.shown = widgets.HBox(layout=widgets.Layout(flex_flow="row wrap"))
        self._status = widgets.HTML()
        self._say("Press Compute.")

    def _build_buttons(self) -> None:
        for name in ("compute", "stop", "save", "load"):
            press = getattr(self, name)
            button = widgets.Button(description=name.capitalize())
            button.on_click(lambda _, press=press: press())
            button.layout.width = "90px"
            setattr(self, f"{name}_button", button)
        self.compute_button.button_style = "primary"

    def _rows(self) -> list[Any]:
        def row(*parts: Any) -> Any:
            return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))

        left = widgets.VBox([self.first, self.second, self.half, self.k, self.rho])
        right = widgets.VBox([self.points, self.statistics, self.quantity])
        return [
            row(left, right),
            row(self.shown, self.path, self.load_button),
            row(self.compute_button, self.stop_button, self.save_button, self.progress),
            row(self.mode, self.show_path, self.show_climb, self.show_ball),
            self._status,
            self.view,
        ]

    def _link(self) -> None:
        """What the page follows without the kernel."""
        pairs = {"k": ("k", "value"), "rho_index": ("rho", "index"), "mode": ("mode", "index")}
        pairs |= {"quantity": ("quantity", "index")}
        pairs |= {n: (n, "value") for n in ("show_path", "show_climb", "show_ball")}
        for trait, (control, value) in pairs.items():
            source = getattr(self, control)
            setattr(self.view, trait, getattr(source, value))
            widgets.jslink((source, value), (self.view, trait))

    def _put(self, chosen: Mapping[str, Any]) -> None:
        for name, value in chosen.items():
            control = getattr(self, name)
            options = {"k": range(1, STEPS + 1), "statistics": STATISTICS}.get(name)
            options = control.options if options is None else options
            if value not in options:
                name = "view" if name == "mode" else name
                raise ValueError(f"{name} must be one of {tuple(options)}, got {value!r}")
            control.value = value

    def _add(self, name: str, network: Network) -> None:
        model = as_model(network, self._dataset)
        weights_of(model)  # raises where it has none
        self._models[name] = model
        box = widgets.Checkbox(True, description=name, indent=False)
        box.layout.width, box.layout.margin = "auto", "2px 16px 2px 2px"
        self.shown.children = (*self.shown.children, box)
        self._offer_directions()

    def _offer_directions(self) -> None:
        """Only those that these networks have."""
        missing = {PATH_1, PATH_2} if not self._paths else set()
        missing |= {NEXT} if len(self._models) < 2 else set()
        missing |= {AFTER} if len(self._models) < 3 else set()
        options = tuple(d for d in DIRECTIONS if d not in missing)
        for control in (self.first, self.second):
            if control.options != options:
                value, control.options = control.value, options
                control.value = value if value in options else options[0]

    def _moved(self, _: Any) -> None:
        """A control that the page can't follow by itself."""
        if not self.running and self._job is not None and self.settings != self._job.settings:
            self._say("Press Compute to draw what the controls say now.")

    def _watched(self, *_: Any) -> None:
        """A page shows it for the first time."""
        if self._job is None:
            self.compute()

    def _unused(self, name: str) -> Path:
        stem = re.sub(r"[^\w.-]+", "-", name).strip("-") or "plane"
        path, n = self._folder / f"{stem}.npz", 2
        while path.exists():
            path, n = self._folder / f"{stem}-{n}.npz", n + 1
        return path

    def _unused_name(self, stem: str) -> str:
        name, n = stem, 2
        while name in self._models:
            name, n = f"{stem} {n}", n + 1
        return name

    def _lock(self, running: bool) -> None:
        self.compute_button.disabled = running
        self.stop_button.disabled = not running

    def _say(self, text: str, color: str = "inherit") -> None:
        self._status.value = f'<span style="color: {color}">{escape(text)}</span>'
