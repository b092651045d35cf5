"""What the loss around a network looks like: its mean along a line or over a plane.

    L(w₀ + a d₁)        L(w₀ + a d₁ + b d₂)

A picture shows two of very many dimensions: the loss along a training path is another, as its
points lie off the plane; `project` says how far.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lookbehind.checks import whole
from lookbehind.files import written_whole
from lookbehind.measure.directions import checked
from lookbehind.measure.objective import Objective
from lookbehind.scores import Minibatch, Score
from lookbehind.weights import moved

Array = NDArray[np.float64]
G = TypeVar("G", bound="Line")
Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Line:
    """The loss along a line, w₀ + a d.

    a           (A,)  the steps along the direction
    loss        (A,)  mean loss (nats): NaN where not evaluated, inf where not finite
    accuracy    (A,)  a share in [0, 1], NaN where it makes no sense
    start             the score at w₀ itself, on the line or not
    statistics        what BatchNorm normalized by: "stored" or "reestimated"
    images            the number of images, or other examples
    """

    a: Array
    loss: Array
    accuracy: Array
    start: Score
    statistics: str
    images: int

    def filled(self: G) -> G:
        """The same, each missing point as the nearest evaluated one, in steps of the grid: a
        picture that sharpens. Where none was evaluated, all are as the start."""
        missing = np.isnan(self.loss)
        known, holes = np.argwhere(~missing), np.argwhere(missing)
        nearest = [((known - hole) ** 2).sum(1).argmin() for hole in holes] if len(known) else []
        loss, accuracy = self.loss.copy(), self.accuracy.copy()
        for values, start in ((loss, self.start.loss), (accuracy, self.start.accuracy)):
            values[missing] = values[tuple(known[nearest].T)] if len(known) else start
        return replace(self, loss=loss, accuracy=accuracy)

    def save(self, path: str | Path) -> Path:
        """The fields as arrays by name, which `np.load` reads; `start` is (loss, accuracy). Returns
        the file's path, `path` with ".npz" at its end. Raises OSError where the file can't be
        written, whole; an old one then stays."""
        target = Path(path if str(path).endswith(".npz") else f"{path}.npz")
        with written_whole(target) as file:
            np.savez(file, **{**vars(self), "start": [self.start.loss, self.start.accuracy]})
        return target


@dataclass(frozen=True, eq=False)
class Plane(Line):
    """The loss over a plane, w₀ + a d₁ + b d₂. Fields as a `Line`'s, and

    b         (B,)    the steps along the second direction: the rows; `a` are the columns
    loss      (B, A)  as contour plots take it
    accuracy  (B, A)
    """

    b: Array = field(kw_only=True)


def line(
    model: nn.Module, batches: Iterable[Minibatch], direction: Mapping[str, Tensor], *,
    span: Span = (-1.0, 1.0), points: int = 41, **options: Any,
) -> Line:  # fmt: skip
    """L(w₀ + a d) at `points` steps a from span[0] to span[1]; `options` as in `plane`."""
    return _explored(Line, model, batches, {"direction": direction}, span, points, **options)


def plane(
    model: nn.Module, batches: Iterable[Minibatch], first: Mapping[str, Tensor],
    second: Mapping[str, Tensor], *, span: Span = (-1.0, 1.0), points: int = 21,
    statistics: str = "stored", stop: Callable[[], bool] | None = None,
    update: Callable[[Plane], Any] | None = None, **losses: Any,
) -> Plane:  # fmt: skip
    """L(w₀ + a d₁ + b d₂) on a grid of `points` × `points` steps a and b from span[0] to span[1].

    Mean loss and accuracy over all examples of `batches`, in evaluation mode, w₀ the model's
    weights; `statistics` (away from w₀ the pictures differ) and `losses` as in `Objective`.

    w₀ is evaluated first, then a grid of 3 × 3, then each refinement to 5 × 5, 9 × 9, … up to all
    points. `update` gets the result so far after each. `stop` is asked before each point; after
    it, or Ctrl-C, the result so far is returned.

    Raises ValueError or TypeError for a wrong argument: a direction has the names and shapes of the
    parameters that require a gradient, is finite and not all zero.
    """
    directions = {"second": second, "first": first}
    options: dict[str, Any] = {"statistics": statistics, "stop": stop, "update": update, **losses}
    return _explored(Plane, model, batches, directions, span, points, **options)


def _explored(
    kind: Callable[..., G], model: nn.Module, batches: Iterable[Minibatch],
    directions: Mapping[str, Mapping[str, Tensor]], span: Span, points: int, *,
    statistics: str = "stored", stop: Callable[[], bool] | None = None,
    update: Callable[[G], Any] | None = None, **losses: Any,
) -> G:  # fmt: skip
    """Evaluate the grid of steps along each direction, the last along `a`, from coarse to fine."""
    axis = _axis(span, points)
    objective = Objective(model, batches, statistics=statistics, **losses)
    ways = [checked(name, d, objective.weights) for name, d in directions.items()]
    start, axes = objective.score(), dict.fromkeys("ab"[: len(ways)], axis)
    grid = partial(kind, **axes, start=start, statistics=statistics, images=objective.images)
    loss, accuracy = np.full((2, *(points,) * len(ways)), np.nan)
    with suppress(KeyboardInterrupt):
        for level in _levels(loss.shape):
            for index in level:
                if stop is not None and stop():
                    return grid(loss=loss, accuracy=accuracy)
                steps = [(float(axis[i]), d) for i, d in zip(index, ways, strict=True)]
                at = moved(objective.weights, *steps)
                score = objective.score(at) if any(a for a, _ in steps) else start
                loss[index], accuracy[index] = score.loss, score.accuracy
            if update is not None:
                update(grid(loss=loss.copy(), accuracy=accuracy.copy()))
    return grid(loss=loss, accuracy=accuracy)


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
