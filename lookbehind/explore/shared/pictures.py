"""Static pictures, with the colours and arrows of the explorers, and pages that draw the same."""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from lookbehind.explore.shared.page import Living, style
from lookbehind.explore.shared.palette import METHOD_COLORS as METHOD_COLORS
from lookbehind.explore.shared.palette import ROLE_COLORS, color_of
from lookbehind.toy import Loss, ToyLoss, Trajectory

LABELS = {
    "ascent": "ε: ascent", "descent": "descent of the fast weights", "gradient": "−lr ∇L at φ′",
    "interpolation": "interpolation",
}  # fmt: skip
LEVELS = np.linspace(0, 1, 15) ** 3  # of the loss across the window: closer together near a minimum


class Sheet(Living):
    """A page. Where none may run stands the figure that `_figure` draws, if any, and its words."""

    SIZE = (9.0, 3.4)  # of the figure, in inches
    _css = style()

    def _figure(self, figure: Any) -> str:
        raise NotImplementedError

    def _picture(self) -> tuple[str, str]:
        figure = Figure(figsize=self.SIZE, dpi=110, layout="constrained")
        words = self._figure(figure)
        return small_png(figure) if figure.axes else "", words


def contour(loss: ToyLoss, ax: Axes | None = None, window: Sequence[float] | None = None) -> Axes:
    """Contour lines of `loss` on its window (or another x₀, x₁, y₀, y₁), minima as stars."""
    ax = ax or plt.subplots(figsize=(5, 4), layout="constrained")[1]
    _, _, z = grid(loss, loss.window)
    levels = z.min() + LEVELS * (z.max() - z.min())
    x0, x1, y0, y1 = window or loss.window
    x, y, z = grid(loss, (x0, x1, y0, y1))
    ax.contourf(x, y, z, levels, cmap="Greys", alpha=0.35, norm="symlog", extend="max")
    ax.contour(x, y, z, levels, colors="grey", linewidths=0.4)
    inside = [(u, v) for u, v in loss.minima if x0 <= u <= x1 and y0 <= v <= y1]
    for minimum in inside:
        ax.plot(*minimum, "*", color="black", markersize=11)
    ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal", xlabel="x", ylabel="y")
    return ax


def small_png(figure: Figure) -> str:
    """A figure as a PNG of few colours and so of few bytes, in base64."""
    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png")
    picture = Image.open(raw).convert("RGB").quantize(64)
    picture.save(small, "png", optimize=True, dpi=(figure.dpi, figure.dpi))
    return base64.b64encode(small.getvalue()).decode()


def show(figure: Figure, words: str) -> None:
    """Display a figure as a small PNG, and close it; `words` are for those who can't see it."""
    data = {"image/png": small_png(figure), "text/plain": words}
    display(data, metadata={"image/png": {"alt": words}}, raw=True)
    plt.close(figure)


def one_step(
    loss: ToyLoss, run: Trajectory, *, lr: float, t: int = 0, ax: Axes | None = None
) -> Axes:
    """Outer step `t` under the microscope: every ε, every descent, the interpolation; and the step
    −lr ∇L that each descent takes (plain SGD), where its gradient was."""
    slow, end = run.slow[t], run.slow[t + 1]
    climb, fast = np.vstack([slow[None], run.ascent[t]]), np.vstack([slow[None], run.fast[t]])
    points = np.vstack([climb, fast, end[None]])
    middle, radius = (points.min(0) + points.max(0)) / 2, 0.65 * np.ptp(points, axis=0).max()
    (x, y), used = middle, run.gradients[t][-len(run.fast[t]) :]
    ax = contour(loss, ax, (x - radius, x + radius, y - radius, y + radius))
    for way, role in ((climb, "ascent"), (fast, "descent")):
        for a, b in pairwise(way):
            arrow(ax, a, b, role)
    for at, gradient in zip(climb[-len(used) :], used, strict=True):
        arrow(ax, at, at - lr * gradient, "gradient", linestyle="--")
    arrow(ax, slow, end, "interpolation", linewidth=3)
    ax.plot(*slow, "o", color="black", markeredgecolor="white")
    for role, label in LABELS.items():
        ax.plot([], [], "--" if role == "gradient" else "-", color=ROLE_COLORS[role], label=label)
    ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return ax


def dots(values: Mapping[str, Sequence[float]], ax: Axes) -> Axes:
    """A row a name: a dot for each seed's value, and a bar of mean ± sample standard deviation."""
    for row, (name, some) in enumerate(values.items()):
        spread = np.std(some, ddof=1) if len(some) > 1 else 0.0
        ax.plot(some, [row] * len(some), "o", color=color_of(name), alpha=0.5)
        ax.errorbar(np.mean(some), row, xerr=spread, fmt="|", color=color_of(name), capsize=4)
    ax.set_yticks(range(len(values)), labels=list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)  # reading order, also where two axes share it
    ax.grid(axis="x", alpha=0.3)
    return ax


def matrix(
    values: Any, rows: Sequence[str], columns: Sequence[str], ax: Axes,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Axes:  # fmt: skip
    """A heat map with every value written into its cell; yellow is `limits[1]`, NaN left empty."""
    low, high = limits
    ax.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(np.asarray(values)):
        if np.isfinite(value):
            shade = "black" if value > low + 0.45 * (high - low) else "white"
            text = f"{value:.2f}".replace("-", "−")
            ax.text(column, row, text, ha="center", va="center", color=shade, fontsize="small")
    ax.set_xticks(range(len(columns)), labels=list(columns))
    ax.set_yticks(range(len(rows)), labels=list(rows))
    ax.tick_params(length=0)
    return ax


def grid(loss: Loss, window: Sequence[float], n: int = 200) -> tuple[Any, Any, Any]:
    """x, y and the loss at n × n points of a window."""
    x0, x1, y0, y1 = window
    x, y = np.meshgrid(np.linspace(x0, x1, n), np.linspace(y0, y1, n))
    with torch.no_grad():
        return x, y, loss(torch.from_numpy(np.stack([x, y], -1))).numpy()


def arrow(ax: Axes, start: Any, end: Any, role: str, **style: Any) -> None:
    look = {"arrowstyle": "-|>", "color": ROLE_COLORS[role], "linewidth": 1.8, "mutation_scale": 10}
    ax.annotate("", end, start, arrowprops=look | {"shrinkA": 0, "shrinkB": 0} | style)
