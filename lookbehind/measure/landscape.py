"""What the loss around a network looks like: its mean along a line or over a plane.

    L(w₀ + a d₁)        L(w₀ + a d₁ + b d₂)

A picture shows two of very many dimensions: the loss along a training path is another, as its
points lie off the plane; `project` says how far.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from lookbehind.checks import whole
from lookbehind.measure.directions import checked
from lookbehind.measure.grid import Array, G, Line, Plane
from lookbehind.measure.objective import Objective
from lookbehind.scores import Minibatch, Score
from lookbehind.weights import Weights, moved

Span = tuple[float, float]


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
    **losses: Any,
) -> Line:
    """L(w₀ + a d) at `points` steps a from span[0] to span[1]; all else as in `plane`."""
    a = _axis(span, points)
    objective = Objective(model, batches, statistics=statistics, **losses)
    grid = [(a, checked("direction", direction, objective.weights))]
    return _explored(partial(Line, a=a), objective, grid, progress, stop, update)


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
    **losses: Any,
) -> Plane:
    """L(w₀ + a d₁ + b d₂) on a grid: `span` and `points` of each axis, or one for both.

    Mean loss and accuracy over all examples of `batches`, in evaluation mode, w₀ the model's
    weights; `losses` as in `Objective`. `statistics` of BatchNorm: "stored" are the network's
    running averages, "reestimated" are made anew from the images at every point; away from w₀ the
    pictures differ.

    w₀ is evaluated first, then a grid of 3 × 3, then each refinement to 5 × 5, 9 × 9, … up to all
    points. `update` gets the result so far after each. `stop` is asked before each point; after
    it, or Ctrl-C, the result so far is returned. `progress` shows a tqdm bar.

    The model is never touched. Raises ValueError or TypeError for a wrong argument: a direction
    has the names and shapes of the parameters that require a gradient, is finite and not all zero.
    """
    spans = span if isinstance(span[0], Sequence) else (span, span)
    counts = points if isinstance(points, Sequence) else (points, points)
    a, b = map(_axis, spans, counts)
    objective = Objective(model, batches, statistics=statistics, **losses)
    w = objective.weights
    grid = [(b, checked("second", second, w)), (a, checked("first", first, w))]
    return _explored(partial(Plane, a=a, b=b), objective, grid, progress, stop, update)


def _explored(
    kind: Callable[..., G],
    objective: Objective,
    grid: Sequence[tuple[Array, Weights]],
    progress: bool,
    stop: Callable[[], bool] | None,
    update: Callable[[G], Any] | None,
) -> G:
    """Evaluate the grid of steps along each direction, from coarse to fine."""
    from tqdm.auto import tqdm

    shape = tuple(len(axis) for axis, _ in grid)
    loss, accuracy = np.full(shape, np.nan), np.full(shape, np.nan)
    start = _score(objective, objective.weights)
    kept = {"start": start, "statistics": objective.statistics, "images": objective.images}
    with tqdm(total=math.prod(shape), unit=" points", disable=not progress) as bar:
        try:
            for level in _levels(shape):
                for index in level:
                    if stop is not None and stop():
                        return kind(loss=loss, accuracy=accuracy, **kept)
                    steps = [(float(axis[i]), d) for i, (axis, d) in zip(index, grid, strict=True)]
                    at = moved(objective.weights, *steps)
                    score = _score(objective, at) if any(a for a, _ in steps) else start
                    loss[index], accuracy[index] = score.loss, score.accuracy
                    bar.update()
                if update is not None:
                    update(kind(loss=loss.copy(), accuracy=accuracy.copy(), **kept))
        except KeyboardInterrupt:
            pass
    return kind(loss=loss, accuracy=accuracy, **kept)


def _levels(shape: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """The indices of a grid from coarse to fine, each once: 3 points an axis, then 5, 9, 17, …"""
    seen: set[tuple[int, ...]] = set()
    intervals = 2
    while len(seen) < math.prod(shape):
        shares = [m / intervals for m in range(intervals + 1)]
        level = list(product(*(sorted({round((n - 1) * x) for x in shares}) for n in shape)))
        yield [index for index in level if index not in seen]
        seen.update(level)
        intervals *= 2


def _score(objective: Objective, weights: Weights) -> Score:
    """A loss that is not a number has diverged; NaN is left to points that weren't evaluated."""
    score = objective.score(weights)
    return score if math.isfinite(score.loss) else replace(score, loss=math.inf)


def _axis(span: Span, points: int) -> Array:
    """`points` values from span[0] to span[1]; the middle of a symmetric span is exactly 0."""
    whole("points", points, 2)
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"span must be finite, from low to high, got {span!r}")
    i, last = np.arange(points), points - 1
    axis = (low * (last - i) + high * i) / last
    axis[[0, -1]] = low, high
    return axis
