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
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lookbehind.checkpoint import written_whole
from lookbehind.objective import Minibatch, Objective, Score, Weights, moved, weights_of

Array = NDArray[np.float64]
Span = tuple[float, float]
Point = nn.Module | Mapping[str, Tensor]
Grid = TypeVar("Grid", bound="_Grid")

VECTORS = ("ignore", "normalize")
# The parts of a BatchNorm layer's state that aren't weights, as `state_dict` names them.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
# Added to seeds: torch fills a normal draw and the first weights of a network from the same random
# numbers, so that a direction with the network's own seed would point (cosine −0.35) at its start.
STREAM = 2**31
COARSEST = 3  # points on an axis of the first picture


def gaussian_direction(model: nn.Module, *, seed: int = 0) -> Weights:
    """A direction of independent N(0, 1), drawn on the model's device.

    Isotropic, which uniform draws are not. The same seed gives another draw on another kind of
    device. torch's global generator is left alone. A network that was made with the same seed has
    nothing in common with it: its weights come from another stream of random numbers.
    """
    weights = weights_of(model)
    device = next(iter(weights.values())).device
    generator = torch.Generator(device).manual_seed(STREAM + seed)
    return {
        name: torch.randn(w.shape, generator=generator, dtype=w.dtype, device=w.device)
        for name, w in weights.items()
    }


def filter_normalized(
    model: nn.Module, direction: Mapping[str, Tensor], *, vectors: str = "ignore"
) -> Weights:
    """`direction` with each filter rescaled to the norm of the network's filter (Li et al. 2018).

        dᵢ ← dᵢ ‖wᵢ‖ / ‖dᵢ‖

    so that a step of 1 is as long as the weights, whatever their scale, and two networks can be
    compared (arXiv 1712.09913, section 4). Filters are the slices along dimension 0 of tensors of
    two dimensions or more: of a convolution what makes one channel, of a linear layer one row.
    `vectors` says what becomes of the other tensors, biases and BatchNorm's scales and shifts:
    "ignore" leaves them where they are (a direction of zeros), "normalize" scales each as a whole.

    Raises ValueError where the direction isn't one of the model's (see `plane`).
    """
    if vectors not in VECTORS:
        raise ValueError(f"vectors must be one of {VECTORS}, got {vectors!r}")
    weights = weights_of(model)
    found = _checked("direction", direction, weights)
    return {name: _rescaled(found[name], w, vectors) for name, w in weights.items()}


def _rescaled(d: Tensor, w: Tensor, vectors: str) -> Tensor:
    if w.ndim < 2 and vectors == "ignore":
        return torch.zeros_like(d)
    inner = tuple(range(1 if w.ndim >= 2 else 0, w.ndim))
    theirs, ours = (torch.linalg.vector_norm(t, dim=inner, keepdim=True) for t in (w, d))
    return d * torch.where(ours > 0, theirs / ours, 0)


def difference(start: Point, end: Point) -> Weights:
    """end − start: a = 0 is the one network, a = 1 the other (Goodfellow et al. 2015).

    Each is a network, its weights, or its `state_dict`, whose BatchNorm statistics are left out.
    Raises ValueError where they aren't weights of one architecture.
    """
    origin, target = _points(start, end, "end")
    return {name: target[name] - w for name, w in origin.items()}


def solution_plane(origin: Point, first: Point, second: Point) -> tuple[Weights, Weights]:
    """Two orthogonal directions of one length, whose plane holds three networks.

        u = first − origin        v ∝ (second − origin) − ⟨second − origin, u⟩ / ‖u‖² u

    with ‖v‖ = ‖u‖ (Garipov et al. 2018, arXiv 1802.10026). From `origin`, (0, 0), `first` lies at
    (1, 0), and `second` where `project` says. Raises ValueError where the three lie on a line.
    """
    u, v = difference(origin, first), difference(origin, second)
    squared = dot(u, u)
    v = moved(v, (-dot(v, u) / (squared or 1.0), u))
    rest, whole = dot(v, v), dot(w := difference(origin, second), w)
    if not squared or rest <= 1e-10 * whole:
        raise ValueError("origin, first and second must not lie on one line")
    return u, moved(_zeros(v), (math.sqrt(squared / rest), v))


def unit(direction: Mapping[str, Tensor]) -> Weights:
    """d / ‖d‖, the norm over all parameters together. Raises ValueError where it is 0."""
    norm = math.sqrt(dot(direction, direction))
    if not 0 < norm < math.inf:
        raise ValueError(f"direction must have a finite norm > 0, got {norm}")
    return {name: d / norm for name, d in direction.items()}


def dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """⟨one, other⟩ over all parameters, summed in float64 (float32 on MPS, which has no other)."""
    products = [(_exact(w) * _exact(other[name])).sum() for name, w in one.items()]
    return float(torch.stack(products).sum())


@dataclass(frozen=True, eq=False)
class Principal:
    """The directions in which a path spreads most, orthonormal, the widest first.

    `explained` are shares of the path's variance, Σ ‖wₜ − w̄‖² over its points, w̄ their mean. They
    are large for any smooth path, even a random walk's (Antognini & Sohl-Dickstein 2018, arXiv
    1806.08805), and say nothing of the loss.
    """

    directions: tuple[Weights, ...]
    explained: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Projection:
    """A path of T points, seen in a plane.

    coordinates  (T, 2)  the (a, b) of the nearest point of the plane, origin + a d₁ + b d₂
    off_plane    (T,)    the distance to it, in units of the weights
    explained            1 − Σ off_plane² / Σ ‖wₜ − origin‖²: the share of the squared distances
                         from the origin that lies in the plane; 1 where all of them are 0
    """

    coordinates: Array
    off_plane: Array
    explained: float


def principal_directions(path: Sequence[Mapping[str, Tensor]], count: int = 2) -> Principal:
    """The first `count` principal components of a path: T weights of one network.

    With the centered weights X (T, P) and the eigenvectors of X Xᵀ = U Λ Uᵀ, the directions are
    the rows of Λ^(-½) Uᵀ X: T × T numbers and never P × P. Each points from the path's start to its
    end. In float64; about 2 T² P operations.

    Raises ValueError where the path has fewer than `count` + 1 points or spreads in fewer
    dimensions, or its points don't have the same parameters.
    """
    points = _path(path, path[0] if len(path) else {})
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count < len(points):
        raise ValueError(
            f"count must be an int from 1 to one less than the {len(points)} points of path, "
            f"got {count!r}"
        )
    centered = _centered(points)
    gram = torch.stack([x @ x.T for x in map(centered, points[0])]).sum(0).cpu()
    if not gram.isfinite().all():
        raise ValueError("path must be finite, a point of it is not")
    values, vectors = (t.flip(-1) for t in torch.linalg.eigh(gram))
    if not values[count - 1] > 1e-12 * values[0]:
        raise ValueError(f"path must spread in at least {count} dimensions")
    u = vectors[:, :count] / values[:count].sqrt()
    u = u * torch.where(u[-1] < u[0], -1.0, 1.0)
    rows = {name: _times(u, centered(name)).to(w) for name, w in points[0].items()}
    shares = values[:count] / values.clamp(min=0).sum()
    return Principal(
        tuple({n: row[i].view_as(points[0][n]) for n, row in rows.items()} for i in range(count)),
        tuple(shares.tolist()),
    )


def _times(u: Tensor, x: Tensor) -> Tensor:
    return u.T.to(x) @ x


def _centered(points: Sequence[Weights]) -> Callable[[str], Tensor]:
    """One parameter of all points less their mean: (T, its size)."""

    def of(name: str) -> Tensor:
        x = torch.stack([_exact(point[name]).flatten() for point in points])
        return x - x.mean(0)

    return of


def project(
    path: Sequence[Mapping[str, Tensor]],
    origin: Point,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
) -> Projection:
    """Where the points of a path lie in the plane origin + a d₁ + b d₂, and how far off it.

    Orthogonal projection: (a, b) minimizes ‖w − origin − a d₁ − b d₂‖, the directions need not be
    orthogonal. Raises ValueError where they are parallel or the parameters differ.
    """
    points = _path(path, origin)
    start = _points(origin, points[0], "path")[0]
    directions = [_checked("first", first, start), _checked("second", second, start)]
    gram = np.array([[dot(d, e) for e in directions] for d in directions])
    if np.linalg.det(gram) <= 1e-10 * gram[0, 0] * gram[1, 1]:
        raise ValueError("first and second must not be parallel")
    away = (moved(point, (-1.0, start)) for point in points)
    found = np.array([in_plane(offset, directions, gram) for offset in away])
    off, distances = found[:, 2], found[:, 3]
    total = float(distances @ distances)
    explained = 1 - float(off @ off) / total if total else 1.0
    return Projection(found[:, :2], off, explained)


def in_plane(
    offset: Weights, directions: Sequence[Weights], gram: Array
) -> tuple[float, float, float, float]:
    """(a, b, ‖offset − a d₁ − b d₂‖, ‖offset‖) with (a, b) that make the third least.

    `gram` (2, 2) holds the inner products of the two `directions`: G (a, b)ᵀ = ⟨offset, d⟩.
    """
    a, b = map(float, np.linalg.solve(gram, [dot(offset, d) for d in directions]))
    rest = moved(offset, (-a, directions[0]), (-b, directions[1]))
    return a, b, math.sqrt(dot(rest, rest)), math.sqrt(dot(offset, offset))


class _Grid:
    """What a line and a plane share: `loss` and `accuracy` over a grid, NaN where not evaluated."""

    FORMAT: ClassVar[str]
    loss: Array
    accuracy: Array
    start: Score

    @property
    def axes(self) -> tuple[Array, ...]:
        """The coordinates along each dimension of `loss`."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        shape = tuple(map(len, self.axes))
        for name, found in (("loss", self.loss), ("accuracy", self.accuracy)):
            if found.shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {found.shape}")

    @property
    def complete(self) -> bool:
        """Whether every point was evaluated."""
        return not np.isnan(self.loss).any()

    def filled(self: Grid) -> Grid:
        """The same, each missing point as the nearest evaluated one: a picture that sharpens.

        Nearest in steps of the grid. Where none was evaluated, all are as the start.
        """
        missing = np.isnan(self.loss)
        known, holes = np.argwhere(~missing), np.argwhere(missing)
        if not len(known):
            loss, accuracy = (np.full(self.loss.shape, v) for v in asdict(self.start).values())
            return replace(self, loss=loss, accuracy=accuracy)  # type: ignore[type-var]
        rows = [((known - hole) ** 2).sum(1).argmin() for hole in holes]
        loss, accuracy = self.loss.copy(), self.accuracy.copy()
        for values in (loss, accuracy):
            values[missing] = values[tuple(known[rows].T)]
        return replace(self, loss=loss, accuracy=accuracy)  # type: ignore[type-var]

    def save(self, path: str | Path) -> Path:
        """Write to `path`, with ".npz" added where it doesn't end so; returns the file's path.

        Whole or not at all: the file is written beside and renamed. Its folder is made where it is
        missing. Raises OSError where it can't be written; an old file then stays.
        """
        values = {name: getattr(self, name) for name in _names(self)}
        values["start"] = [self.start.loss, self.start.accuracy]
        target = _npz(path)
        with written_whole(target) as file:
            np.savez(file, format=np.array(self.FORMAT), **values)
        return target

    @classmethod
    def load(cls: type[Grid], path: str | Path) -> Grid:
        """What `save` wrote under this name. Runs no code from the file.

        Raises FileNotFoundError where there is none, ValueError where it is damaged or another.
        """
        target = _npz(path)
        values = _stored(target)
        kind = str(values.pop("format", "nothing known"))
        if kind != cls.FORMAT or set(values) != set(_names(cls)):
            raise ValueError(f"{target} must hold a {cls.FORMAT!r}, it holds {kind!r}")
        values["start"] = Score(*map(float, values["start"]))
        values |= {"statistics": str(values["statistics"]), "images": int(values["images"])}
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Line(_Grid):
    """The loss along a line, w₀ + a d.

    a           (A,)  the steps
    loss        (A,)  mean cross-entropy, nats: NaN where not evaluated, inf where not finite
    accuracy    (A,)  a share in [0, 1]
    start             the score at w₀ itself, on the line or not
    statistics        what BatchNorm normalized by: "stored" or "reestimated"
    images            the number of images
    """

    FORMAT: ClassVar[str] = "lookbehind line 1"
    a: Array
    loss: Array
    accuracy: Array
    start: Score
    statistics: str
    images: int

    @property
    def axes(self) -> tuple[Array, ...]:
        return (self.a,)


@dataclass(frozen=True, eq=False)
class Plane(_Grid):
    """The loss over a plane, w₀ + a d₁ + b d₂. Fields as a `Line`'s, and

    a         (A,)    the steps along the first direction: the columns
    b         (B,)    the steps along the second: the rows
    loss      (B, A)  as contour plots take it
    accuracy  (B, A)
    """

    FORMAT: ClassVar[str] = "lookbehind plane 1"
    a: Array
    b: Array
    loss: Array
    accuracy: Array
    start: Score
    statistics: str
    images: int

    @property
    def axes(self) -> tuple[Array, ...]:
        return self.b, self.a


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


def _checked(name: str, direction: Mapping[str, Tensor], weights: Weights) -> Weights:
    """The direction in the order, type, device and layout of the weights."""
    _check_names(name, direction, weights)
    # Sums of tensors of one layout are several times faster.
    found = {n: torch.empty_like(w).copy_(direction[n].detach()) for n, w in weights.items()}
    for n, d in found.items():
        if not d.isfinite().all():
            raise ValueError(f"{name} must be finite, at {n!r} it is not")
    if not any(d.any() for d in found.values()):
        raise ValueError(f"{name} must not be all zero")
    return found


def _check_names(name: str, found: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have the same names and shapes."""
    lacks, more = sorted(weights.keys() - found.keys()), sorted(found.keys() - weights.keys())
    if lacks or more:
        faults = [f"{what} {names}" for what, names in (("lacks", lacks), ("adds", more)) if names]
        raise ValueError(f"{name} must have the network's parameters; it {' and '.join(faults)}")
    for n, w in weights.items():
        if found[n].shape != w.shape:
            shapes = f"{tuple(w.shape)}, got {tuple(found[n].shape)}"
            raise ValueError(f"{name} must have the network's shapes: at {n!r} {shapes}")


def _points(start: Point, end: Point, name: str) -> tuple[Weights, Weights]:
    """Two points with the same parameters, the second (called `name`) placed where the first is."""
    networks = [weights_of(point) for point in (start, end) if isinstance(point, nn.Module)]
    first, second = (_point(point, networks) for point in (start, end))
    _check_names(name, second, first)
    return first, {n: second[n].to(w) for n, w in first.items()}


def _point(point: Point, networks: Sequence[Weights]) -> Weights:
    """The weights among what may be a `state_dict`: the network's, where there is one to ask."""
    found = weights_of(point) if isinstance(point, nn.Module) else point
    kept = networks[0] if networks else [n for n in found if n.rpartition(".")[2] not in BUFFERS]
    return {n: w.detach() for n, w in found.items() if n in kept}


def _path(path: Sequence[Mapping[str, Tensor]], origin: Point) -> list[Weights]:
    """The points of a path, placed where the origin is."""
    if not len(path):
        raise ValueError("path must hold at least one point, got none")
    return [_points(origin, point, "path")[1] for point in path]


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


def _zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(w) for name, w in weights.items()}


def _exact(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def _names(grid: Any) -> list[str]:
    return [field.name for field in fields(grid)]


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _stored(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file, read whole."""
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
            raise ValueError(
                f"{path} is damaged, or no file that a Line or Plane was saved in"
            ) from error
