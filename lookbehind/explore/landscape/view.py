"""What the landscape explorer shows: planes side by side on a canvas, drawn by the page itself.

The kernel sends planes and a table of climbs; the page (`view.js`) looks a climb up in it, so that
a move of k or ρ needs no kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray
from torch import nn

from lookbehind.explore.shared.page import script
from lookbehind.explore.shared.palette import METHOD_COLORS, ROLE_COLORS, color_of
from lookbehind.measure import Line, Plane
from lookbehind.scores import Score
from lookbehind.weights import Weights

VIEWS = ("1D profile", "2D contours", "3D surface")
QUANTITIES = ("loss", "accuracy")
OUTLINE = 120  # points of a ball's outline
LOG_FROM = 20.0  # the scale of the loss is logarithmic where it spans more than this factor
FLOOR = 1e-4  # of the highest loss: the lowest on a logarithmic scale
Row = tuple[float, float, float, float, float, float]


@dataclass
class Sight:
    """One network as far as it is computed.

    `gram` (2, 2) holds the inner products of the two directions, `labels` say what they are.
    `path` and each climb of `climbs` (by ρ) are rows (a, b, loss, accuracy, distance to the plane,
    distance to the network's weights); `explained` is the plane's share of the path.
    """

    name: str
    model: nn.Module
    directions: tuple[Weights, Weights]
    labels: tuple[str, str]
    gram: NDArray[np.float64]
    start: Score
    line: Line | None = None
    plane: Plane | None = None
    path: list[Row] = field(default_factory=list)
    explained: float = 0.0
    climbs: dict[float, list[Row]] = field(default_factory=dict)


class LandscapeView(anywidget.AnyWidget):
    """The canvas."""

    _esm = script(Path(__file__).with_name("view.js"))

    scene = traitlets.Dict().tag(sync=True)
    climbs = traitlets.Dict().tag(sync=True)
    radii = traitlets.List(traitlets.Float()).tag(sync=True)
    k = traitlets.Int(1).tag(sync=True)
    rho_index = traitlets.Int(0).tag(sync=True)
    mode = traitlets.Int(1).tag(sync=True)  # of VIEWS
    quantity = traitlets.Int(0).tag(sync=True)  # of QUANTITIES
    show_path = traitlets.Bool(True).tag(sync=True)
    show_climb = traitlets.Bool(True).tag(sync=True)
    show_ball = traitlets.Bool(True).tag(sync=True)


def outline(gram: NDArray[np.float64], points: int = OUTLINE) -> NDArray[np.float64]:
    """Where ‖a d₁ + b d₂‖ = 1: (points + 1, 2) coordinates (a, b), closed.

        (a, b)ᵀ G (a, b) = 1   on   (a, b) = L⁻ᵀ (cos θ, sin θ),   G = L Lᵀ

    Times ρ it is the cut of the ball ‖ε‖ ≤ ρ with the plane.
    """
    angle = np.linspace(0, 2 * np.pi, points + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return np.linalg.solve(np.linalg.cholesky(gram).T, circle).T


def scene(sights: Sequence[Sight], half: float) -> dict[str, Any]:
    """All that the page draws but the climbs."""
    return {
        "half": half,
        "ranges": {name: _range(sights, name) for name in QUANTITIES},
        "ascent": ROLE_COLORS["ascent"],
        "networks": [_network(sight, i) for i, sight in enumerate(sights)],
    }


def climbs(sights: Sequence[Sight]) -> dict[str, Any]:
    """The rows of every climb by network and position of ρ; see `Sight`."""
    return {s.name: {f"{rho:g}": plain(rows) for rho, rows in s.climbs.items()} for s in sights}


def plain(values: Any) -> Any:
    """Nested lists of numbers of six digits, None where they aren't finite."""
    array = np.asarray(values, dtype=float)
    if array.ndim:
        return [plain(part) for part in array]
    return float(f"{array:.6g}") if np.isfinite(array) else None


def _network(sight: Sight, place: int) -> dict[str, Any]:
    return {
        "name": sight.name,
        "color": color_of(sight.name, [*METHOD_COLORS.values()][place % len(METHOD_COLORS)]),
        "labels": sight.labels,
        "norm": float(np.sqrt(sight.gram[0, 0])),
        "outline": plain(outline(sight.gram)),
        "start": plain([sight.start.loss, sight.start.accuracy]),
        "path": plain(sight.path) if sight.path else [],
        "explained": sight.explained,
        "line": _grid(sight.line or _middle(sight.plane), ("a",)),
        "plane": _grid(sight.plane, ("a", "b")),
    }


def _grid(result: Line | Plane | None, axes: tuple[str, ...]) -> dict[str, Any] | None:
    if result is None:
        return None
    filled = result.filled()
    return {name: plain(getattr(filled, name)) for name in (*axes, *QUANTITIES)}


def _middle(plane: Plane | None) -> Line | None:
    """The row b = 0, for as long as there is no finer line."""
    if plane is None:
        return None
    loss, accuracy = (v[len(plane.b) // 2] for v in (plane.loss, plane.accuracy))
    return Line(plane.a, loss, accuracy, plane.start, plane.statistics, plane.images)


def _range(sights: Sequence[Sight], quantity: str) -> tuple[float, float, bool]:
    """Lowest and highest over all networks together, and whether the scale is logarithmic."""
    found = [getattr(r, quantity).ravel() for s in sights for r in (s.line, s.plane) if r]
    values = np.concatenate([*found, []])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0, False
    low, high = float(values.min()), float(values.max())
    if quantity == "loss" and high > LOG_FROM * max(low, 0.0) and high > 0:
        return max(low, FLOOR * high), high, True
    return low, high if high > low else low + 1e-6, False
