"""What Python computes of an explorer: paths, and all that is drawn of a loss that is a function.

`at` is an explorer: its controls say which loss, which start and which setting.
"""

from typing import Any

import numpy as np
import torch
from torch.optim import SGD

from lookbehind.explore.shared.page import plain
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import Trajectory, descend, hessian_eigenvalues

GRID = 61  # values of the loss along each side of the ground that a page gets
MARGIN = 0.75  # of that ground around the window, in windows: the lens may look out of it
FAR = 1e6  # of the weights: a path is followed to here


def descent(at: Any, method: str) -> Trajectory:
    """The path of one member, so that it may diverge; `length` says where."""
    rho, alpha = (torch.tensor([v], dtype=torch.float64) for v in (at.rho, at.alpha))
    adaptive = at.adaptive and METHODS[method].adaptive
    settings = {"rho": rho, "k": at.k, "alpha": "adaptive" if adaptive else alpha}
    make = lambda w: make_method(method, SGD(w, lr=at.lr, momentum=at.momentum), **settings)  # noqa: E731
    return descend(at.toy, [at.start], make, at.steps)


def length(run: Trajectory) -> int:
    """How many points come before a path diverges: is far out, or a step was undone."""
    slow = run.slow[:, 0]
    good = np.abs(np.nan_to_num(slow, nan=np.inf)).max(-1) < FAR
    if run.diverged.any():
        good[1:] &= (slow[1:] != slow[:-1]).any(-1)
    return len(good) if good.all() else int(np.argmin(good))


def drawn(at: Any) -> dict[str, Any]:
    """The ground, and for each method what `engine.js` would return, where the controls stand.

    What the last move of a control didn't change is kept from `at.drawn`.
    """
    old, paths = at.drawn.get("paths", {}), {}
    for method in dict.fromkeys([*at.methods, at.lens]):
        moved = (*METHODS[method].sliders, "lr", "momentum", "steps", "start")
        setting = {name: getattr(at, name) for name in moved}
        kept = old.get(method, {})
        paths[method] = kept if kept.get("setting") == setting else _sent(at, method, setting)
    return {"grid": at.drawn.get("grid") or _ground(at.toy), "paths": paths}


def _ground(toy: Any) -> dict[str, Any]:
    """The loss on a grid around its window; where it isn't finite, the highest it is."""
    x0, x1, y0, y1 = toy.window
    u, v = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    window = [x0 - u, x1 + u, y0 - v, y1 + v]
    x, y = np.meshgrid(np.linspace(x0 - u, x1 + u, GRID), np.linspace(y0 - v, y1 + v, GRID))
    with torch.no_grad():
        values = toy(torch.from_numpy(np.stack([x, y], -1))).numpy()
    defined = values[np.isfinite(values)]
    if not len(defined):
        raise ValueError(f"loss must be finite somewhere in the window {tuple(window)}")
    low, high = defined.min(), defined.max()
    filled = np.nan_to_num(values, nan=high, posinf=high, neginf=low)
    return {"values": plain(filled.ravel()), "n": GRID, "window": window}


def _sent(at: Any, method: str, setting: dict[str, Any]) -> dict[str, Any]:
    run = descent(at, method)
    n = length(run)
    sent = {name: getattr(run, name)[: n - 1, :, 0] for name in ("ascent", "fast", "gradients")}
    sent |= {"slow": run.slow[:n, 0], "losses": run.losses[:n, 0], "alpha": run.alpha[: n - 1, 0]}
    sent["sharp"] = hessian_eigenvalues(at.toy, sent["slow"])[:, 1]
    alpha = plain(sent.pop("alpha"), 17)
    numbers = {name: np.nan_to_num(array).tolist() for name, array in sent.items()}
    return {"setting": setting, **numbers, "alpha": alpha}
