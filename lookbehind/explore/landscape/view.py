"""What the landscape explorer's page gets: planes, and climbs in a table that it looks up.

So a move of k or ρ needs no kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import nn

from lookbehind.explore.shared.page import plain
from lookbehind.explore.shared.palette import ROLE_COLORS
from lookbehind.explore.shared.pictures import small_png
from lookbehind.measure import Line, Objective, Plane
from lookbehind.scores import Score
from lookbehind.weights import Weights

QUANTITIES = ("rise", "loss", "accuracy")
BANDS = np.linspace(0, 1, 15) ** 2  # of a quantity: closer together near the lowest
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


def scene(sights: Sequence[Sight], half: float) -> dict[str, Any]:
    """All that the page draws but the climbs."""
    return {"half": half, "networks": [_network(sight) for sight in sights]}


def climbs(sights: Sequence[Sight]) -> dict[str, Any]:
    """The rows of every climb by network and ρ; see `Sight`."""
    return {s.name: {f"{rho:g}": plain(rows) for rho, rows in s.climbs.items()} for s in sights}


def _network(sight: Sight) -> dict[str, Any]:
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


def picture(sights: Sequence[Sight], quantity: str, k: int, rho: float) -> str:
    """The planes side by side on one scale, with paths and climbs: a small PNG in base64, or ""."""
    planes = [(s, s.plane.filled()) for s in sights if s.plane is not None]
    kind = quantity.replace("rise", "loss")
    found = [(s, p, np.ma.masked_invalid(getattr(p, kind))) for s, p in planes]
    drawn = [(s, p, v - v.min() if quantity == "rise" else v) for s, p, v in found if v.count()]
    if not drawn:
        return ""
    low, high = min(v.min() for *_, v in drawn), max(v.max() for *_, v in drawn)
    bands = low + max(high - low, 1e-6) * BANDS
    look: Any = {"cmap": "viridis", "norm": PowerNorm(0.5, bands[0], bands[-1])}
    figure = Figure(figsize=(2.6 * len(drawn) + 0.8, 2.8), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for ax, (sight, plane, v) in zip(axes, drawn, strict=True):
        shades = ax.contourf(plane.a, plane.b, v, bands, **look)
        climb = sight.climbs.get(rho, [])[: k + 1]
        for rows, color in ((sight.path, "white"), (climb, ROLE_COLORS["ascent"])):
            ax.plot(*np.reshape(rows, (-1, 6))[:, :2].T, ".-", color=color, lw=1, markersize=3)
        ax.set(xlim=plane.a[[0, -1]], ylim=plane.b[[0, -1]], aspect="equal", title=sight.name)
    figure.colorbar(shades, ax=axes, label=quantity)
    return small_png(figure)
