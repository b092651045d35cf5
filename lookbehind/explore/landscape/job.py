"""What the landscape explorer computes, in a thread: planes, climbs, and training paths."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lookbehind.explore.landscape.view import Row, Sight
from lookbehind.explore.shared.runs import recipes_in
from lookbehind.explore.shared.work import Stopped, Work
from lookbehind.measure import (
    Line,
    Objective,
    Plane,
    difference,
    dot,
    filter_normalized,
    gaussian_direction,
    hessian_eigenpairs,
    in_plane,
    line,
    plane,
    principal_directions,
    project,
    unit,
)
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

    `radius` is the one that the slider shows; its climbs are made between any two points of a
    plane. `sights` are what is there so far.

    The audience hears `show(job)` and `show_climbs(job)` where there are more planes or climbs, and
    `show_progress(share)`.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        paths: Mapping[str, Sequence[Weights]],
        images: Split,
        settings: Settings,
        radii: Sequence[float],
        audience: Any,
        radius: Callable[[], float],
    ) -> None:
        super().__init__(audience)
        self.models, self.paths, self.settings = models, paths, settings
        self.sights: list[Sight] = []
        self._images, self._radii, self._radius = images, radii, radius
        self._eigen: dict[str, Any] = {}
        self._batches: dict[str, list[list[Minibatch]]] = {}  # of the plane, and of the climb
        self._objectives: dict[str, list[Objective]] = {}
        grid = LINE_POINTS + COARSE_POINTS**2 + settings.points**2
        self._total, self._done, self._due = len(models) * (grid + len(radii) * STEPS), 0, 0.0

    def _compute(self) -> None:
        sights = self.sights
        for name in self.models:
            sights.append(self._sight(name))
            self._draw(sights[-1], plane, COARSE_POINTS, on=1)
        for sight in sights:
            self._draw(sight, line, LINE_POINTS)
        for sight in sights:
            self._draw(sight, plane, self.settings.points)
        for rho in sorted(self._radii, key=lambda r: abs(r - self._radius())):
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
        pair = [
            self._direction(name, d, i) for i, d in enumerate((settings.first, settings.second))
        ]
        gram = np.array([[dot(p, q) for q in pair] for p in pair])
        _check_plane(name, gram)
        norms = np.sqrt(np.diag(gram))
        named = zip((settings.first, settings.second), norms, strict=True)
        first, second = (f"{d}, ‖d‖ = {norm:.3g}" for d, norm in named)
        start = self._objectives[name][1].score()
        sight = Sight(name, model, (pair[0], pair[1]), (first, second), gram, start)
        self._follow(sight)
        return sight

    def _follow(self, sight: Sight) -> None:
        """The training path on the plane, with the loss at the path's own points."""
        path = self.paths.get(sight.name, ())
        if not len(path):
            return
        scores = self._objectives[sight.name][0]
        start = weights_of(sight.model)
        sight.explained = project(path, start, *sight.directions).explained
        chosen = np.unique(np.linspace(0, len(path) - 1, PATH_POINTS).round().astype(int))
        sight.path = [_row(sight, start, path[i], scores) for i in chosen]

    def _draw(self, sight: Sight, kind: Any, points: int, on: int = 0) -> None:
        """A line along the first direction, or a plane; shown at every level.

        `on` 1: on the climb's few images, for a picture at once.
        """
        half, is_line = self.settings.half, kind is line

        def update(result: Line | Plane) -> None:
            setattr(sight, "line" if is_line else "plane", result)
            sight.start = result.start
            self._audience.show(self)

        result = kind(
            sight.model, self._batches[sight.name][on], *sight.directions[: 1 if is_line else 2],
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
                self._climb(each, self._radius())
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
            drawn = gaussian_direction(model, seed=place)
            return filter_normalized(model, drawn) if what == FILTERS else unit(drawn)
        if what == GRADIENT:
            return unit(self._objectives[name][1].gradient()[1])
        if what in (TOP, SECOND):
            if name not in self._eigen:
                some = self._batches[name][1]
                self._eigen[name] = hessian_eigenpairs(model, some, count=2).vectors
            return self._eigen[name][what == SECOND]
        if what in (PATH_1, PATH_2):
            path = self.paths.get(name, ())
            if len(path) < 3:
                raise ValueError(f"{what}: {name} has no training path of three points or more")
            return principal_directions(path, count=2).directions[what == PATH_2]
        return self._towards(name, what)

    def _towards(self, name: str, what: str) -> Weights:
        names = list(self.models)
        far = 1 if what == NEXT else 2
        if len(names) <= far:
            raise ValueError(f"{what}: it needs {far + 1} networks, got {len(names)}")
        other = names[(names.index(name) + far) % len(names)]
        try:
            return difference(self.models[name], self.models[other])
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
    """A point of a climb or a path, with the score at its own weights: see `Sight`."""
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
