"""The loss over a line or a plane, as it is kept: in memory and in an .npz file."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from lookbehind.files import written_whole
from lookbehind.scores import Score

Array = NDArray[np.float64]
G = TypeVar("G", bound="Grid")


@dataclass(frozen=True, eq=False)
class Grid:
    """What a line and a plane share.

    a                 the steps along the first direction
    loss              mean loss (nats): NaN where not evaluated, inf where not finite
    accuracy          a share in [0, 1], NaN where it makes no sense
    start             the score at w₀ itself, on the grid or not
    statistics        what BatchNorm normalized by: "stored" or "reestimated"
    images            the number of images, or other examples
    """

    FORMAT: ClassVar[str]
    a: Array
    loss: Array
    accuracy: Array
    start: Score
    statistics: str
    images: int

    @property
    def axes(self) -> tuple[Array, ...]:
        """The coordinates along each dimension of `loss`."""
        return (self.a,)

    def __post_init__(self) -> None:
        shape = tuple(map(len, self.axes))
        for name, found in (("loss", self.loss), ("accuracy", self.accuracy)):
            if found.shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {found.shape}")

    @property
    def complete(self) -> bool:
        """Whether every point was evaluated."""
        return not np.isnan(self.loss).any()

    def filled(self: G) -> G:
        """The same, each missing point as the nearest evaluated one: a picture that sharpens.

        Nearest in steps of the grid. Where none was evaluated, all are as the start.
        """
        missing = np.isnan(self.loss)
        known, holes = np.argwhere(~missing), np.argwhere(missing)
        nearest = [((known - hole) ** 2).sum(1).argmin() for hole in holes] if len(known) else []
        loss, accuracy = self.loss.copy(), self.accuracy.copy()
        for values, start in ((loss, self.start.loss), (accuracy, self.start.accuracy)):
            values[missing] = values[tuple(known[nearest].T)] if len(known) else start
        return replace(self, loss=loss, accuracy=accuracy)

    def save(self, path: str | Path) -> Path:
        """Write to `path`, with ".npz" added where it doesn't end so; returns the file's path.

        Whole or not at all. Its folder is made where it is missing. Raises OSError where it can't
        be written; an old file then stays.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["start"] = [self.start.loss, self.start.accuracy]
        target = _npz(path)
        with written_whole(target) as file:
            np.savez(file, format=np.array(self.FORMAT), **values)
        return target

    @classmethod
    def load(cls: type[G], path: str | Path) -> G:
        """What `save` wrote under this name. Runs no code from the file.

        Raises FileNotFoundError where there is none, ValueError where it is damaged or another.
        """
        target = _npz(path)
        values = _stored(target)
        kind = str(values.pop("format", "nothing known"))
        if kind != cls.FORMAT or set(values) != {f.name for f in fields(cls)}:
            raise ValueError(f"{target} must hold a {cls.FORMAT!r}, it holds {kind!r}")
        values["start"] = Score(*map(float, values["start"]))
        values |= {"statistics": str(values["statistics"]), "images": int(values["images"])}
        return cls(**values)


class Line(Grid):
    """The loss along a line, w₀ + a d: `a`, `loss` and `accuracy` have the shape (A,)."""

    FORMAT = "lookbehind line 1"


@dataclass(frozen=True, eq=False)
class Plane(Grid):
    """The loss over a plane, w₀ + a d₁ + b d₂. Fields as a `Line`'s, and

    b         (B,)    the steps along the second direction: the rows; `a` are the columns
    loss      (B, A)  as contour plots take it
    accuracy  (B, A)
    """

    FORMAT = "lookbehind plane 1"
    b: Array = field(kw_only=True)

    @property
    def axes(self) -> tuple[Array, ...]:
        return self.b, self.a


def _npz(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _stored(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # numpy and zipfile raise nearly anything on a damaged file
            fault = "is damaged, or no file that a Line or Plane was saved in"
            raise ValueError(f"{path} {fault}") from error
