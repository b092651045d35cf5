"""What Python computes of an explorer: paths, a picture, and all of a loss that is a function."""

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD

from lookbehind.explore.toy.scene import ground_around, heights
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import Trajectory, descend

GRID = 61  # values of the loss along each side of the ground that a page gets
FAR = 1e6  # of the weights: a path is followed to here
DOTS = 110  # of the picture, an inch


def descent(at: Any, method: str) -> Trajectory:
    """The path of `method` where the controls of the explorer `at` stand; it may diverge."""
    adaptive = at.adaptive and METHODS[method].adaptive
    settings = {"rho": torch.tensor([at.rho]).double(), "k": at.k}
    settings["alpha"] = "adaptive" if adaptive else torch.tensor([at.alpha]).double()
    return descend(
        at.toy,
        [at.start],
        lambda w: make_method(method, SGD(w, lr=at.lr, momentum=at.momentum), **settings),
        at.steps,
    )


def length(run: Trajectory) -> int:
    """How many points of the path come before it diverges: before a step that was undone."""
    slow = run.slow[:, 0]
    good = np.abs(np.nan_to_num(slow, nan=np.inf)).max(-1) < FAR
    if run.diverged.any():
        good[1:] &= (slow[1:] != slow[:-1]).any(-1)
    return len(good) if good.all() else int(np.argmin(good))


def drawn(at: Any, before: dict[str, Any]) -> dict[str, Any]:
    """The ground, and for each method what `engine.js` would return, where the controls stand.

    `before`: what this returned last, for the same loss: what a control doesn't move is kept.
    """
    grid = before.get("grid") or _grid(at)
    old, paths = before.get("paths", {}), {}
    for method in dict.fromkeys([*at.methods, at.lens]):
        moved = (*METHODS[method].sliders, "lr", "momentum", "steps", "start")
        setting = {name: getattr(at, name) for name in moved}
        kept = old.get(method, {})
        same = kept.get("setting") == setting
        paths[method] = kept if same else {"setting": setting, **_sent(at, method)}
    return {"grid": grid, "paths": paths}


def _grid(at: Any) -> dict[str, Any]:
    ground = ground_around(at.toy.window)
    values = [float(f"{v:.5g}") for v in heights(at.toy, ground, GRID).ravel()]
    return {"values": values, "n": GRID, "window": ground}


def _sent(at: Any, method: str) -> dict[str, Any]:
    run = descent(at, method)
    n = length(run)
    slow = run.slow[:n, 0]
    inner = {
        name: getattr(run, name)[: n - 1, :, 0].tolist() for name in ("ascent", "fast", "gradients")
    }
    numbers = {"losses": run.losses[:n, 0], "alpha": run.alpha[: n - 1, 0]}
    numbers["sharp"] = _sharpness(at.toy, slow)
    plain = {k: [v if np.isfinite(v) else None for v in a.tolist()] for k, a in numbers.items()}
    return {"slow": slow.tolist(), **inner, **plain}


def _sharpness(loss: Any, points: NDArray[np.float64], h: float = 1e-4) -> NDArray[np.float64]:
    """λ_max by differences of a function's values: it may be one that autograd can't go through."""
    steps = h * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]]).double()
    with torch.no_grad():
        at, right, left, up, down, both, none = loss(torch.from_numpy(points) + steps[:, None])
    xx, yy = right - 2 * at + left, up - 2 * at + down
    xy = (both + none + 2 * at - right - left - up - down) / 2
    return (((xx + yy) / 2 + torch.hypot((xx - yy) / 2, xy)) / h**2).numpy()


def photograph(at: Any) -> tuple[str, str]:
    """The map as a small PNG in base64, and what it shows in words."""
    from matplotlib.figure import Figure  # costs a second, and only where an explorer is shown
    from PIL import Image

    from lookbehind.explore.shared import pictures

    runs: dict[str, Any] = {}
    words = f"Map of the loss {at.loss}. After {at.steps} outer steps, from the same start"
    for method in at.methods:
        run = descent(at, method)
        runs[method] = SimpleNamespace(slow=run.slow[: length(run), 0])
        x, y = runs[method].slow[-1]
        words += f", {method} is at ({x:.2f}, {y:.2f})"
    figure = Figure(figsize=(5.2, 4), dpi=DOTS, layout="constrained")
    pictures.paths(at.toy, runs, figure.subplots())
    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png")
    Image.open(raw).convert("RGB").quantize(64).save(small, "png", optimize=True, dpi=(DOTS, DOTS))
    return base64.b64encode(small.getvalue()).decode(), f"{words}."
