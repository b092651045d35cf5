"""What the loss around a network looks like: directions in the space of weights, and the mean loss
along a line or over a plane.

    L(w₀ + a d₁)        L(w₀ + a d₁ + b d₂)

Directions are dictionaries from the names of the parameters to tensors, like weights; any such
dictionary will do, a gradient or an eigenvector of the Hessian too. The caller's network is never
touched (see `lookbehind.objective`).

A picture shows two of very many dimensions. The contour around the last point of a training path
is not the loss along the path, whose points lie off the plane: `project` says how far.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from lookbehind.measure.directions import _checked
from lookbehind.measure.grid import Array, Grid, Line, Plane
from lookbehind.measure.objective import Objective
from lookbehind.scores import Minibatch, Score
from lookbehind.weights import Weights, moved

Span = tuple[float, float]


COARSEST = 3  # points on an axis of the first picture


def line(
    model: nn.Module,
    batches: Iterable[Minibatch],
    direction: Mapping[str, Tensor],
    *,
    span: Span = (-1.0, 1.0),
    points: int = 41,
    statistics: str = "stored",
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
    update: Callable[[Line], Any] | None = None,
) -> Line:
    """L(w₀ + a d) at `points` steps a from span[0] to span[1]; w₀ are the model's weights.

    All else as in `plane`.
    """
    a = _axis(span, points)

    def result(loss: Array, accuracy: Array, start: Score) -> Line:
        return Line(a, loss, accuracy, start, statistics, objective.images)

    objective = Objective(model, batches, statistics=statistics)
    directions = [_checked("direction", direction, objective.weights)]
    return _explored(objective, directions, [a], result, progress, stop, update)


def plane(
    model: nn.Module,
    batches: Iterable[Minibatch],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    *,
    span: Span | tuple[Span, Span] = (-1.0, 1.0),
    points: int | tuple[int, int] = 21,
    statistics: str = "stored",
    progress: bool = False,
    stop: Callable[[], bool] | None = None,
    update: Callable[[Plane], Any] | None = None,
) -> Plane:
    """L(w₀ + a d₁ + b d₂) on a grid: `span` and `points` of each axis, or one for both.

    Mean cross-entropy and accuracy over all images of `batches`, in evaluation mode.
    `statistics` of BatchNorm: "stored" are the network's running averages, "reestimated" are made
    anew from the images at every point, as training there would; away from w₀ the two show
    different pictures.

    w₀ is evaluated first, then a grid of 3 × 3, then each refinement to 5 × 5, 9 × 9, … up to all
    points. `update` gets the result so far after each. `stop` is asked before each point; after
    it, or Ctrl-C, the result so far is returned. `progress` shows a tqdm bar.

    The model's weights, gradients and modes are never touched. Raises ValueError or TypeError for
    a wrong argument: a direction must have the names and shapes of the parameters that require a
    gradient, be finite and not all zero.
    """
    spans = span if isinstance(span[0], Sequence) else (span, span)
    counts = points if isinstance(points, Sequence) else (points, points)
    a, b = map(_axis, spans, counts)

    def result(loss: Array, accuracy: Array, start: Score) -> Plane:
        return Plane(a, b, loss, accuracy, start, statistics, objective.images)

    objective = Objective(model, batches, statistics=statistics)
    rows, columns = (
        _checked(name, d, objective.weights) for name, d in (("second", second), ("first", first))
    )
    return _explored(objective, [rows, columns], [b, a], result, progress, stop, update)


def _explored(
    objective: Objective,
    directions: Sequence[Weights],
    axes: Sequence[Array],
    result: Callable[[Array, Array, Score], Grid],
    progress: bool,
    stop: Callable[[], bool] | None,
    update: Callable[[Grid], Any] | None,
) -> Grid:
    """Evaluate the grid from coarse to fine."""
    shape = tuple(map(len, axes))
    loss, accuracy = np.full(shape, np.nan), np.full(shape, np.nan)
    with _bar(math.prod(shape), progress) as show:
        start = _score(objective, objective.weights)
        try:
            for level in _levels(shape):
                for index in level:
                    if stop is not None and stop():
                        return result(loss, accuracy, start)
                    steps = [float(axis[i]) for axis, i in zip(axes, index, strict=True)]
                    at = moved(objective.weights, *zip(steps, directions, strict=True))
                    score = _score(objective, at) if any(steps) else start
                    loss[index], accuracy[index] = score.loss, score.accuracy
                    show()
                if update is not None:
                    update(result(loss.copy(), accuracy.copy(), start))
        except KeyboardInterrupt:
            pass
    return result(loss, accuracy, start)


def _levels(shape: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """The indices of a grid from coarse to fine, each once: 3 points an axis, then 5, 9, 17, …

    The points i (n − 1) / 2^m, rounded, of a level are among those of the next; both ends always.
    """
    seen: set[tuple[int, ...]] = set()
    intervals = COARSEST - 1
    while len(seen) < math.prod(shape):
        level = list(product(*(_ticks(n, intervals) for n in shape)))
        yield [index for index in level if index not in seen]
        seen.update(level)
        intervals *= 2


def _ticks(points: int, intervals: int) -> Iterable[int]:
    last = points - 1
    if intervals >= last:
        return range(points)
    return [round(i * last / intervals) for i in range(intervals + 1)]


def _score(objective: Objective, weights: Weights) -> Score:
    """A loss that is not a number has diverged; NaN is left to points that weren't evaluated."""
    score = objective.score(weights)
    return score if math.isfinite(score.loss) else replace(score, loss=math.inf)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[], Any]]:
    if not progress:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit=" points") as bar:
        yield bar.update


def _axis(span: Span, points: int) -> Array:
    """`points` values from span[0] to span[1]; the middle of a symmetric span is exactly 0."""
    if isinstance(points, bool) or not isinstance(points, int):
        raise TypeError(f"points must be an int ≥ 2, got {points!r}")
    if points < 2:
        raise ValueError(f"points must be an int ≥ 2, got {points}")
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"span must be finite, from low to high, got {span!r}")
    i, last = np.arange(points), points - 1
    axis = (low * (last - i) + high * i) / last
    axis[[0, -1]] = low, high
    return axis
