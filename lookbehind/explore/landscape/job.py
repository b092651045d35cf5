"""What the landscape explorer computes, in a thread: planes, climbs, and training paths."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lookbehind import measure
from lookbehind.explore.landscape.view import Row, Sight
from lookbehind.explore.shared.panel import Stopped, Work
from lookbehind.explore.shared.runs import recipes_in
from lookbehind.measure import Line, Objective, Plane, dot, in_plane, unit
from lookbehind.optim import Ball
from lookbehind.scores import Minibatch
from lookbehind.train import CheckpointError, Outcome, read_checkpoint
from lookbehind.train.data import Dataset, Split
from lookbehind.weights import Weights, moved, weights_of

FILTERS = "filter-normalized random"
GAUSSIAN = "Gaussian random"
GRADIENT = "gradient"
TOP, SECOND = "top Hessian eigenvector", "second Hessian eigenvector"
NEXT, AFTER = "towards the next network", "towards the network after"
PATH_1, PATH_2 = "training path, PC 1", "training path, PC 2"
DIRECTIONS = (FILTERS, GAUSSIAN, GRADIENT, TOP, SECOND, NEXT, AFTER, PATH_1, PATH_2)
STEPS = 10  # of a climb: the largest k
LINE_POINTS, COARSE_POINTS = 41, 5
PATH_POINTS = 60  # of a training path that are scored and drawn, evenly chosen
BATCH = 500
CLIMB_IMAGES = 128
PARALLEL = 1e-6  # sin² of the angle of two directions, at most
SECONDS_BETWEEN_UPDATES = 0.1
Network = nn.Module | Outcome | str | Path


@dataclass(frozen=True)
class Settings:
    """What the controls say. Every axis goes from −half to half, for every network."""

    first: str
    second: str
    half: float
    points: int
    statistics: str


class Job(Work):
    """Coarse planes of few images, then lines, fine planes, and the climbs of every radius.

    The climbs of the slider's radius are made between any two points of a plane. `sights` are what
    is there so far. The audience has that slider, `rho`, and hears `show(job)`, `show_climbs(job)`
    and `show_progress(share)`.
    """

    def __init__(
        self,
        audience: Any,
        models: Mapping[str, nn.Module],
        paths: Mapping[str, Sequence[Weights]],
        images: Split,
        settings: Settings,
        radii: Sequence[float],
    ) -> None:
        super().__init__(audience)
        self.models, self.paths, self.settings = models, paths, settings
        self.sights: list[Sight] = []
        self._images, self._radii = images, radii
        self._batches: dict[str, list[list[Minibatch]]] = {}  # of the plane, and of the climb
        self._objectives: dict[str, list[Objective]] = {}
        self._eigenvectors = cache(
            lambda name: measure.hessian_eigenpairs(models[name], self._batches[name][1], 2).vectors
        )
        grid = LINE_POINTS + COARSE_POINTS**2 + settings.points**2
        self._total, self._done, self._due = len(models) * (grid + len(radii) * STEPS), 0, 0.0

    def _compute(self) -> None:
        sights = self.sights
        for name in self.models:
            sights.append(self._sight(name))
            self._draw(sights[-1], "plane", COARSE_POINTS, on=1)
        for sight in sights:
            self._draw(sight, "line", LINE_POINTS)
        for sight in sights:
            self._draw(sight, "plane", self.settings.points)
        for rho in sorted(self._radii, key=lambda r: abs(r - self._audience.rho.value)):
            for sight in sights:
                self._climb(sight, rho)

    def _sight(self, name: str) -> Sight:
        """A network with its directions and its path; nothing of the plane yet."""
        model, settings = self.models[name], self.settings
        dtype = next(model.parameters()).dtype
        batches = [(x.to(dtype), y) for x, y in self._images.batches(BATCH)]
        some = [(batches[0][0][:CLIMB_IMAGES], batches[0][1][:CLIMB_IMAGES])]
        self._batches[name] = both = [batches, some]
        self._objectives[name] = [Objective(model, b, statistics=settings.statistics) for b in both]
        whats = settings.first, settings.second
        first, second = (self._direction(name, what, i) for i, what in enumerate(whats))
        gram = np.array([[dot(p, q) for q in (first, second)] for p in (first, second)])
        _check_plane(name, gram)
        one, other = (f"{whats[i]}, ‖d‖ = {gram[i, i] ** 0.5:.3g}" for i in (0, 1))
        start = self._objectives[name][1].score()
        sight = Sight(name, model, (first, second), (one, other), gram, start)
        if len(path := self.paths.get(name, ())):
            self._follow(sight, path)
        return sight

    def _follow(self, sight: Sight, path: Sequence[Weights]) -> None:
        """The training path on the plane, with the loss at the path's own points."""
        scores, start = self._objectives[sight.name][0], weights_of(sight.model)
        sight.explained = measure.project(path, start, *sight.directions).explained
        chosen = np.unique(np.linspace(0, len(path) - 1, PATH_POINTS).round().astype(int))
        sight.path = [_row(sight, start, path[i], scores) for i in chosen]

    def _draw(self, sight: Sight, kind: str, points: int, on: int = 0) -> None:
        """A "line" along the first direction, or a "plane", shown at every level.

        `on` 1: on the climb's few images, for a picture at once.
        """
        half, directions = self.settings.half, sight.directions[: 1 if kind == "line" else 2]

        def update(result: Line | Plane) -> None:
            setattr(sight, kind, result)
            sight.start = result.start
            self._audience.show(self)

        result = getattr(measure, kind)(
            sight.model, self._batches[sight.name][on], *directions,
            span=(-half, half), points=points, statistics=self.settings.statistics,
            stop=lambda: self._between(sight), update=update,
        )  # fmt: skip
        update(result)
        self._go_on()

    def _between(self, sight: Sight) -> bool:
        """Asked before every point: first the slider's climb, once every network has a picture."""
        pictures = [each for each in self.sights if each.plane is not None]
        try:
            for each in pictures if len(pictures) == len(self.models) else ():
                self._climb(each, self._audience.rho.value)
        except Stopped:
            return True
        self._count()
        return self.stopped

    def _climb(self, sight: Sight, rho: float) -> None:
        """w ← w + ρ ∇L(w) / ‖∇L(w)‖, as the optimizers climb on their minibatch."""
        if rho in sight.climbs:
            return
        scores, climbed = self._objectives[sight.name]
        point = start = climbed.weights
        rows = [_row(sight, start, point, scores)]
        for _ in range(STEPS):
            self._go_on()
            gradient = climbed.gradient(point)[1]
            worst = Ball(rho).worst(list(point.values()), list(gradient.values()))
            point = moved(point, (1.0, dict(zip(point, worst, strict=True))))
            rows.append(_row(sight, start, point, scores))
            self._count()
        sight.climbs[rho] = rows
        self._audience.show_climbs(self)

    def _go_on(self) -> None:
        if self.stopped:
            raise Stopped

    def _count(self) -> None:
        self._done += 1
        if (now := time.monotonic()) > self._due:
            self._due = now + SECONDS_BETWEEN_UPDATES
            self._audience.show_progress(min(1.0, self._done / self._total))

    def _direction(self, name: str, what: str, place: int) -> Weights:
        model = self.models[name]
        if what in (FILTERS, GAUSSIAN):
            drawn = measure.gaussian_direction(model, seed=place)
            return measure.filter_normalized(model, drawn) if what == FILTERS else unit(drawn)
        if what == GRADIENT:
            return unit(self._objectives[name][1].gradient()[1])
        if what in (TOP, SECOND):
            return self._eigenvectors(name)[what == SECOND]
        if what in (PATH_1, PATH_2):
            path = self.paths.get(name, ())
            if len(path) < 3:
                raise ValueError(f"{what}: {name} has no training path of three points or more")
            return measure.principal_directions(path, count=2).directions[what == PATH_2]
        names, far = list(self.models), 1 if what == NEXT else 2
        if len(names) <= far:
            raise ValueError(f"{what}: it needs {far + 1} networks, got {len(names)}")
        other = names[(names.index(name) + far) % len(names)]
        try:
            return measure.difference(self.models[name], self.models[other])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{what}: {name} and {other} differ in their layers") from error


def as_model(network: Network, dataset: Dataset) -> nn.Module:
    """The network itself, of a finished run, or of a checkpoint of a run of a recipe.

    Raises FileNotFoundError, or CheckpointError in words.
    """
    if isinstance(network, nn.Module):
        return network
    if isinstance(network, Outcome):
        return network.model
    if not isinstance(network, str | Path):
        raise TypeError(f"networks must hold modules, outcomes or paths, got {network!r}")
    state = read_checkpoint(network)
    recipe = recipes_in(Path(network), state)[0]
    try:
        model = recipe.make_model(dataset)
        model.load_state_dict(state["model"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{network} doesn't fit the dataset given: {reason}") from error
    return model.eval()


def _row(sight: Sight, start: Weights, point: Weights, scores: Objective) -> Row:
    """A point of a climb or a path, see `Sight`."""
    score = scores.score(point)
    a, b, off, length = in_plane(moved(point, (-1.0, start)), sight.directions, sight.gram)
    return a, b, score.loss, score.accuracy, off, length


def _check_plane(name: str, gram: Any) -> None:
    """Raises ValueError where the two directions span no plane."""
    if not np.isfinite(gram).all():
        raise ValueError(f"a direction of {name} is not finite")
    if min(np.diag(gram)) <= 0:
        raise ValueError(f"a direction of {name} is zero: its weights or its gradient are")
    if np.linalg.det(gram) <= PARALLEL * gram[0, 0] * gram[1, 1]:
        raise ValueError(f"the two directions of {name} are parallel: choose two different ones")
