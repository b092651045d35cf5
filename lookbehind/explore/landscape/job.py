"""What the landscape explorer computes, in a thread: planes, climbs, and training paths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from lookbehind import measure
from lookbehind.explore.shared.work import Stopped, Work
from lookbehind.measure import Line, Objective, Plane, dot, in_plane, unit
from lookbehind.optim import Ball
from lookbehind.scores import Score
from lookbehind.weights import Weights, moved

FILTERS = "filter-normalized random"
GAUSSIAN = "Gaussian random"
GRADIENT = "gradient"
TOP, SECOND = "top Hessian eigenvector", "second Hessian eigenvector"
NEXT, AFTER = "towards the next network", "towards the network after"
PATH_1, PATH_2 = "training path, PC 1", "training path, PC 2"
DIRECTIONS = (FILTERS, GAUSSIAN, GRADIENT, TOP, SECOND, NEXT, AFTER, PATH_1, PATH_2)
STEPS = 10  # of a climb: the largest k
RADII = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
LINE_POINTS, COARSE_POINTS = 41, 5
PATH_POINTS = 60  # of a training path that are scored and drawn, evenly chosen
BATCH = 500
CLIMB_IMAGES = 128
UPRIGHT = 0.05  # cosine of the angle from which on it is said that the second was turned

# What the controls say: of these a plane is computed anew.
PLANE = ("first", "second", "half", "points", "statistics", "shown")

Row = tuple[float, float, float, float, float, float]


@dataclass(eq=False)
class Sight:
    """One network as far as it is computed.

    `scores` is its loss on all images, `climbed` that on the climb's minibatch. Its two
    `directions` are orthogonal and of one length, `unit`; `labels` say what they are. `path` and
    each climb of `climbs` (by ρ) are rows (a, b, loss, accuracy, distance to the plane, distance
    to the network's weights); `explained` is the plane's share of the path.
    """

    name: str
    model: nn.Module
    scores: Objective
    climbed: Objective
    start: Score
    directions: tuple[Weights, Weights] = field(init=False)
    labels: tuple[str, str] = field(init=False)
    unit: float = field(init=False)
    line: Line | None = None
    plane: Plane | None = None
    path: list[Row] = field(default_factory=list)
    explained: float = 0.0
    climbs: dict[float, list[Row]] = field(default_factory=dict)


class Job(Work):
    """Coarse planes of few images, then lines, fine planes, and the climbs of every radius.

    The climbs of the chosen radius are made between any two points of a plane. `sights` are what
    is there so far. It begins when the job `before` it has ended. The audience has the controls,
    `images`, `paths` and the share done, `progress`; it hears `show(job)` and `show_climbs(job)`.
    """

    def __init__(self, audience: Any, models: Mapping[str, nn.Module], before: Work | None) -> None:
        super().__init__(audience)
        self.models, self._before = models, before
        self.settings = SimpleNamespace(**{name: getattr(audience, name) for name in PLANE})
        self.sights: list[Sight] = []
        pairs = measure.hessian_eigenpairs
        self._eigenvectors = cache(lambda s: pairs(s.model, s.climbed.batches, 2).vectors)
        grid = LINE_POINTS + COARSE_POINTS**2 + self.settings.points**2
        self._total, self._done = len(models) * (grid + len(RADII) * STEPS), 0

    def _compute(self) -> None:
        if self._before is not None:
            self._before.thread.join()
            self._before = None
        for name in self.models:
            self._go_on()
            self.sights.append(sight := self._sight(name))
            self._draw(sight, sight.climbed, "plane", COARSE_POINTS)
        for kind, points in (("line", LINE_POINTS), ("plane", self.settings.points)):
            for sight in self.sights:
                self._draw(sight, sight.scores, kind, points)
        for rho in sorted(RADII, key=lambda r: abs(r - self._audience.rho)):
            for sight in self.sights:
                self._climb(sight, rho)

    def _sight(self, name: str) -> Sight:
        """A network with its directions and its path; nothing of the plane yet."""
        model = self.models[name]
        dtype = next(model.parameters()).dtype
        batches = [(x.to(dtype), y) for x, y in self._audience.images.batches(BATCH)]
        few = [(x[:CLIMB_IMAGES], y[:CLIMB_IMAGES]) for x, y in batches[:1]]
        statistics = self.settings.statistics
        scores, climbed = (Objective(model, b, statistics=statistics) for b in (batches, few))
        sight = Sight(name, model, scores, climbed, climbed.score())
        self._span(sight)
        if len(path := self._audience.paths.get(name, ())):
            found = measure.project(path, sight.scores.weights, *sight.directions)
            chosen = np.unique(np.linspace(0, len(path) - 1, PATH_POINTS).round().astype(int))
            sight.explained = found.explained
            sight.path = [_row(sight, path[i]) for i in chosen]
        return sight

    def _span(self, sight: Sight) -> None:
        """Two directions at right angles and of one length, so that a ball's cut is a circle."""
        one, other = self.settings.first, self.settings.second
        u, w = self._direction(sight, one, 0), self._direction(sight, other, 1)
        if abs(dot(unit(u), unit(w))) > UPRIGHT:
            other += ", its part at right angles to a"
        try:
            sight.directions = measure.solution_plane(moved(u, (-1.0, u)), u, w)
        except ValueError as error:
            fault = f"the two directions of {sight.name} are parallel: choose two different ones"
            raise ValueError(fault) from error
        sight.labels, sight.unit = (one, other), dot(u, u) ** 0.5

    def _draw(self, sight: Sight, objective: Objective, kind: str, points: int) -> None:
        """A "line" along the first direction, or a "plane", shown as it gets finer."""
        half, directions = self.settings.half, sight.directions[: 1 if kind == "line" else 2]

        def update(result: Line | Plane) -> None:
            old = getattr(sight, kind)
            if old is None or (~np.isnan(result.loss)).sum() >= (~np.isnan(old.loss)).sum():
                setattr(sight, kind, result)
                sight.start = result.start
                self._audience.show(self)

        result = getattr(measure, kind)(
            sight.model, objective.batches, *directions, span=(-half, half), points=points,
            statistics=self.settings.statistics, stop=self._between, update=update,
        )  # fmt: skip
        update(result)
        self._go_on()

    def _between(self) -> bool:
        """Asked before every point: first the chosen climb, once every network has a picture."""
        try:
            if len(self.sights) == len(self.models) and self.sights[-1].plane is not None:
                for sight in self.sights:
                    self._climb(sight, self._audience.rho)
            self._go_on()
        except Stopped:
            return True
        return False

    def _climb(self, sight: Sight, rho: float) -> None:
        """w ← w + ρ ∇L(w) / ‖∇L(w)‖, as the optimizers climb on their minibatch."""
        if rho in sight.climbs:
            return
        point = sight.climbed.weights
        rows = [_row(sight, point)]
        for _ in range(STEPS):
            self._go_on()
            gradient = sight.climbed.gradient(point)[1]
            worst = Ball(rho).worst(list(point.values()), list(gradient.values()))
            point = moved(point, (1.0, dict(zip(point, worst, strict=True))))
            rows.append(_row(sight, point))
        sight.climbs[rho] = rows
        self._audience.show_climbs(self)

    def _go_on(self) -> None:
        """Asked before every piece of work; tells the share that is done, in steps to be seen."""
        if self.stopped:
            raise Stopped
        self._done += 1
        self._audience.progress = min(0.99, int(50 * self._done / self._total) / 50)

    def _direction(self, sight: Sight, what: str, place: int) -> Weights:
        name, model = sight.name, sight.model
        if what in (FILTERS, GAUSSIAN):
            drawn = measure.gaussian_direction(model, seed=place)
            return measure.filter_normalized(model, drawn) if what == FILTERS else unit(drawn)
        if what == GRADIENT:
            return unit(sight.climbed.gradient()[1])
        if what in (TOP, SECOND):
            return self._eigenvectors(sight)[what == SECOND]
        if what in (PATH_1, PATH_2):
            path = self._audience.paths.get(name, ())
            if len(path) < 3:
                raise ValueError(f"{what}: {name} has no training path of three points or more")
            return measure.principal_directions(path, count=2).directions[what == PATH_2]
        names, far = list(self.models), 1 if what == NEXT else 2
        if len(names) <= far:
            raise ValueError(f"{what}: it needs {far + 1} networks, got {len(names)}")
        other = names[(names.index(name) + far) % len(names)]
        try:
            return measure.difference(model, self.models[other])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{what}: {name} and {other} differ in their layers") from error


def _row(sight: Sight, point: Weights) -> Row:
    """A point of a climb or a path, see `Sight`."""
    score, gram = sight.scores.score(point), sight.unit**2 * np.eye(2)
    way = moved(point, (-1.0, sight.scores.weights))
    a, b, off, length = in_plane(way, sight.directions, gram)
    return a, b, score.loss, score.accuracy, off, length
