"""The heights of a toy loss over its window and around it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lookbehind.toy import ToyLoss

MARGIN = 0.75  # of the ground around the window, in windows: the lens may look out of it


def heights(toy: ToyLoss, window: Sequence[float], n: int) -> NDArray[np.float64]:
    """The loss on an n × n grid over the window; where it isn't finite, the highest it is."""
    x0, x1, y0, y1 = window
    x, y = np.meshgrid(np.linspace(x0, x1, n), np.linspace(y0, y1, n))
    with torch.no_grad():
        values = toy(torch.from_numpy(np.stack([x, y], -1))).numpy()
    defined = values[np.isfinite(values)]
    if not len(defined):
        raise ValueError(f"loss must be finite somewhere in the window {tuple(window)}")
    low, high = defined.min(), defined.max()
    return np.nan_to_num(values, nan=high, posinf=high, neginf=low)


def ground_around(window: Sequence[float]) -> list[float]:
    x0, x1, y0, y1 = window
    u, v = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    return [x0 - u, x1 + u, y0 - v, y1 + v]
