"""The landscape explorer: the loss around trained networks, side by side, and who climbs there.

The page (`explorer.js` and what it imports) draws; the kernel computes planes and climbs, `job.py`.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.colors import PowerNorm
from torch import nn

from lookbehind.explore.landscape import job as jobs
from lookbehind.explore.landscape.job import PLANE, RADII, Job, Sight
from lookbehind.explore.shared.page import plain, script, style
from lookbehind.explore.shared.palette import PALETTES, ROLE_COLORS
from lookbehind.explore.shared.pictures import Sheet
from lookbehind.measure import STATISTICS
from lookbehind.train import Outcome
from lookbehind.train.data import Dataset
from lookbehind.weights import Weights, weights_of

HERE = Path(__file__).parent
RANGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 20.0)
POINTS = (11, 21, 31, 41, 61)
QUANTITIES = ("rise", "loss", "accuracy")
BANDS = np.linspace(0, 1, 15) ** 2  # of a quantity: closer together near the lowest
LAYERS = ("path", "climb", "ball")
SETUP = {
    "radii": RADII, "ranges": RANGES, "points": POINTS, "statistics": STATISTICS,
    "steps": jobs.STEPS, "palettes": PALETTES,
}  # fmt: skip


class LandscapeExplorer(Sheet):
    """The loss on a line or a plane through each network's weights, one scale of colours for all.

    `networks`: by name, modules or finished runs (`Outcome`). Loss and accuracy are measured on the
    first `images` of `dataset` for training. `paths`: by a network's name, the weights along its
    training.

    The controls are traits. `first` and `second` (the directions), `half` (the range), `points`,
    `statistics` (see `measure.Objective`) and `shown` (names of networks) compute anew, in a
    thread, once a page shows it or `compute` is called; `message` is the line of status, or an
    error in words. `quantity` ("rise" is the loss above the lowest on the network's own plane),
    `mode` (of the view), `k`, `rho` and `layers` the page answers by itself.

    Each network has its own directions, of one kind, seed and range. "filter-normalized random" is
    normalized by its own filters, all others but "towards …" have length 1. The second is what is
    at right angles to the first, made as long. Gradient and Hessian are those on the climb's
    minibatch, the first 128 images.

    On the plane: the training path; the climb of one Lookbehind step, k ascents of ρ on the one
    minibatch; the cut of the ball ‖ε‖ ≤ ρ with the plane (dotted: kρ, the climb's reach). Path and
    climb are projected, but their loss and accuracy are measured at their own weights.

    Raises ValueError for no network, one without weights that are trained, or a `paths` name that
    is none of them; TypeError for no module; TraitError for a setting that it doesn't offer.
    """

    title = "The loss around trained networks"
    _esm = script(HERE / "explorer.js", SETUP=SETUP)
    _css = style(HERE / "explorer.css")

    first = traitlets.Unicode(jobs.GRADIENT).tag(sync=True)
    second = traitlets.Unicode(jobs.FILTERS).tag(sync=True)
    half = traitlets.Enum(RANGES, 1.0).tag(sync=True)
    points = traitlets.Enum(POINTS, 21).tag(sync=True)
    statistics = traitlets.Enum(STATISTICS, "stored").tag(sync=True)
    shown = traitlets.List(traitlets.Unicode(), minlen=1).tag(sync=True)
    quantity = traitlets.Enum(QUANTITIES, "rise").tag(sync=True)
    mode = traitlets.Enum(("profile", "contours", "surface"), "contours").tag(sync=True)
    k = traitlets.Int(5, min=1, max=jobs.STEPS).tag(sync=True)
    rho = traitlets.Enum(RADII, 0.2).tag(sync=True)
    layers = traitlets.List(traitlets.Enum(LAYERS), list(LAYERS)).tag(sync=True)
    names: Any = traitlets.List().tag(sync=True)  # of all networks
    directions: Any = traitlets.List().tag(sync=True)  # those that these networks have
    scene = traitlets.Dict().tag(sync=True)
    climbs = traitlets.Dict().tag(sync=True)
    message = traitlets.Unicode("Not computed yet.").tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self, networks: Mapping[str, nn.Module | Outcome], dataset: Dataset, *,
        paths: Mapping[str, Sequence[Weights]] | None = None, images: int = 500, **settings: Any,
    ) -> None:  # fmt: skip
        if not networks:
            raise ValueError("networks must hold at least one network, got none")
        self.paths = dict(paths or {})
        if unknown := set(self.paths) - set(networks):
            raise ValueError(f"paths must be of {tuple(networks)}, got one of {sorted(unknown)}")
        self.images = dataset.train.take(slice(images))
        self._models = {name: _module(network) for name, network in networks.items()}
        self._job: Job | None = None
        self._lock = threading.RLock()
        self.sights: list[Sight] = []
        needs = {jobs.NEXT: len(networks) > 1, jobs.AFTER: len(networks) > 2}
        needs |= dict.fromkeys((jobs.PATH_1, jobs.PATH_2), bool(self.paths))
        offered = [direction for direction in jobs.DIRECTIONS if needs.get(direction, True)]
        names = list(networks)
        super().__init__(**{"names": names, "shown": names, "directions": offered} | settings)
        self.observe(lambda _: self.compute() if self._job else None, PLANE)
        self.on_msg(lambda _, content, __: self._asked(content["kind"]))

    @traitlets.validate("first", "second", "shown")
    def _known(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        allowed = self.names if name == "shown" else self.directions
        if not {*([value] if isinstance(value, str) else value)} <= {*allowed}:
            raise traitlets.TraitError(f"{name} must be one of {allowed}, got {value!r}")
        return value

    def compute(self) -> None:
        """Compute what the controls say, in a thread; what is under way stops for it."""
        self.stop()
        models = {name: model for name, model in self._models.items() if name in self.shown}
        with self._lock:  # the one before may be ending
            self._job = Job(self, models, self._job)
            self.message, self.progress, self.running = "Computing.", 0.0, True
        self._job.thread.start()

    def wait(self) -> None:
        """Return when nothing is under way."""
        if self._job:
            self._job.thread.join()

    def stop(self) -> None:
        """End the computation after the point under way; what is there stays."""
        if self._job:
            self._job.stop()

    def show(self, job: Job) -> None:
        """What a job has found so far; called from its thread."""
        if self.sights and self.sights is not job.sights and len(job.sights) < len(job.models):
            return  # the last picture stays until the new one is whole
        self.sights = job.sights
        with self.hold_sync():
            networks = [_network(sight) for sight in job.sights]
            self.scene = {"half": job.settings.half, "networks": networks}
            self.show_climbs(job)

    def show_climbs(self, job: Job) -> None:
        """By network and ρ, in a table: a move of k or ρ needs no kernel."""
        climbs = {s.name: {f"{r:g}": plain(c) for r, c in s.climbs.items()} for s in job.sights}
        self.climbs = climbs

    def ended(self, job: Job) -> None:
        done = f"Done, on {len(self.images)} images."
        stopped = "Stopped: what was not evaluated is drawn as the nearest point that was."
        with self._lock:
            if job is self._job:
                self.message = job.error or (stopped if job.stopped else done)
                self.progress, self.running = 1.0, False

    def _asked(self, what: str) -> None:
        """By a page: to stop, or to begin, as it shows this."""
        if what == "stop":
            self.stop()
        elif not self._job:
            self.compute()

    def _figure(self, figure: Any) -> str:
        kind, rise = self.quantity.replace("rise", "loss"), self.quantity == "rise"
        planes = [(s, s.plane.filled()) for s in self.sights if s.plane is not None]
        found = [(s, p, np.ma.masked_invalid(getattr(p, kind))) for s, p in planes]
        drawn = [(s, p, v - v.min() if rise else v) for s, p, v in found if v.count()]
        words = told(self.sights, self.k, self.rho)
        if not drawn:
            return words
        low, high = min(v.min() for *_, v in drawn), max(v.max() for *_, v in drawn)
        bands = low + max(high - low, 1e-6) * BANDS
        look: Any = {"cmap": "viridis", "norm": PowerNorm(0.5, bands[0], bands[-1])}
        figure.set_size_inches(2.6 * len(drawn) + 0.8, 2.8)
        axes = figure.subplots(1, len(drawn), squeeze=False)[0]
        for ax, (sight, plane, v) in zip(axes, drawn, strict=True):
            shades = ax.contourf(plane.a, plane.b, v, bands, **look)
            climb = sight.climbs.get(self.rho, [])[: self.k + 1]
            for rows, color in ((sight.path, "white"), (climb, ROLE_COLORS["ascent"])):
                ax.plot(*np.reshape(rows, (-1, 6))[:, :2].T, ".-", color=color, lw=1, markersize=3)
            ax.set(xlim=plane.a[[0, -1]], ylim=plane.b[[0, -1]], aspect="equal", title=sight.name)
        figure.colorbar(shades, ax=axes, label=self.quantity)
        return words


def _module(network: nn.Module | Outcome) -> nn.Module:
    model = network.model if isinstance(network, Outcome) else network
    if not isinstance(model, nn.Module):
        raise TypeError(f"networks must hold modules or outcomes, got {network!r}")
    weights_of(model)  # else it is refused within the job
    return model


def _network(sight: Sight) -> dict[str, Any]:
    """All that the page draws but the climbs."""
    kept = {name: getattr(sight, name) for name in ("name", "labels", "unit", "explained")}
    kept |= {"start": plain([sight.start.loss, sight.start.accuracy]), "path": plain(sight.path)}
    for kind, axes in (("line", ["a"]), ("plane", ["a", "b"])):
        found = (result := getattr(sight, kind)) and result.filled()
        kept[kind] = found and {n: plain(getattr(found, n)) for n in (*axes, "loss", "accuracy")}
    return kept


def told(sights: Sequence[Sight], k: int, rho: float) -> str:
    """The planes in words."""
    text = "The loss around trained networks."
    for sight in sights:
        text += f" {sight.name}: loss {sight.start.loss:.3g}"
        if sight.plane is not None:
            text += f", on the plane up to {sight.plane.filled().loss.max():.3g}"
        if rho in sight.climbs:
            text += f", up to {sight.climbs[rho][k][2]:.3g} by {k} ascents of ρ = {rho:g}"
        text += "."
    return text
