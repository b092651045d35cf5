"""An atlas: the trajectories for every position of the k, ρ and α sliders, computed at once.

`Ball` and α take one value per member, so for one method and one k all positions of ρ and α are one
batched run of the same optimizer classes that train networks. A page that holds the atlas looks a
position up, and needs no kernel to follow a slider.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD

from lookbehind.optim import METHODS, cosine_alpha, make_method
from lookbehind.toy import Loss, Trajectory, descend, hessian_eigenvalues

K = list(range(1, 11))
RHO = [round(0.02 * i, 2) for i in range(21)]
ALPHA = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
STEPS = 40
FAR = 1e6  # a point further out than this is drawn as "diverged"


@dataclass(frozen=True)
class Setting:
    """What an atlas is computed for: everything but the method and the three sliders."""

    loss: Loss
    start: tuple[float, float]
    lr: float
    momentum: float = 0.0
    steps: int = STEPS
    seed: int = 0

    def key(self) -> dict[str, Any]:
        """What a page compares with its own controls, to know whether a sheet is of today."""
        return {"start": list(self.start), "lr": self.lr, "momentum": self.momentum}


@dataclass(frozen=True)
class Sheet:
    """One method at one k (0: it has none), for R radii, A values of α and T outer steps.

    cost     gradients per outer step
    points   (R, A, T + 1, 4) float32: x, y, L and λ_max of the slow weights; NaN once they diverged
    alpha    (R, A, T) float32, as used
    ascent, fast, gradients  (R, A, T, ·, 2) float16, as in `Trajectory`; the first two relative to
             the slow weights of their outer step, so that few bits draw them sharp at any zoom
    """

    method: str
    k: int
    cost: int
    points: NDArray[np.float32]
    alpha: NDArray[np.float32]
    ascent: NDArray[np.float16]
    fast: NDArray[np.float16]
    gradients: NDArray[np.float16]

    def message(self) -> tuple[dict[str, Any], bytes]:
        """What a page needs of it: a header of shapes, and the arrays one after the other."""
        arrays = (self.points, self.alpha, self.ascent, self.fast, self.gradients)
        header = {"method": self.method, "k": self.k, "cost": self.cost}
        shapes = {"shape": self.alpha.shape, "counts": [a.shape[3] for a in arrays[2:]]}
        return header | shapes, b"".join(a.tobytes() for a in arrays)


def sheet_ks(method: str, first: int) -> list[int]:
    """The k of every sheet of `method`, those nearest to `first` first."""
    return sorted(K, key=lambda k: abs(k - first)) if "k" in METHODS[method].sliders else [0]


def compute_sheet(setting: Setting, method: str, k: int) -> Sheet:
    """All positions of ρ and α for one method and one k, in one batched run."""
    axes = METHODS[method].sliders
    radii = RHO if "rho" in axes else [0.0]
    alphas = [*ALPHA, np.nan] if "adaptive" in axes else ALPHA if "alpha" in axes else [1.0]
    rho, alpha = (torch.tensor(v, dtype=torch.float64) for v in (radii, alphas))
    shape = (len(rho), len(alpha))
    rho = rho.repeat_interleave(shape[1])
    alpha = alpha.repeat(shape[0])
    trajectory = descend(
        setting.loss,
        np.tile(setting.start, (len(rho), 1)),
        lambda w: make_method(
            method,
            SGD(w, lr=setting.lr, momentum=setting.momentum),
            rho=rho,
            k=max(k, 1),
            alpha=_static_or_adaptive(alpha) if "adaptive" in axes else alpha,
        ),
        setting.steps,
        seed=setting.seed,
    )
    return _sheet(setting.loss, method, k, trajectory, shape)


def _static_or_adaptive(alpha: Tensor) -> Any:
    """Per member its own α, adaptive where that is NaN."""

    def choose(first: Tensor, total: Tensor) -> Tensor:
        return torch.where(alpha.isnan(), cosine_alpha(first, total, len(alpha)), alpha)

    return choose


def _sheet(loss: Loss, method: str, k: int, path: Trajectory, shape: tuple[int, int]) -> Sheet:
    sharpness = hessian_eigenvalues(loss, path.slow)[..., 1]
    points = np.concatenate([path.slow, path.losses[..., None], sharpness[..., None]], -1)
    points[~(np.abs(path.slow).max(-1) < FAR)] = np.nan
    before = path.slow[:-1, None]
    inner = [path.ascent - before, path.fast - before, path.gradients]
    if method == "Lookahead-SAM":  # k separate steps of SAM: there is no climb to look at
        inner[0], inner[2] = inner[0][:, :0], inner[2][:, :0]

    def packed(array: NDArray[Any], dtype: type) -> NDArray[Any]:
        """(T, [·,] E, …) → (R, A, T, [·,] …)."""
        members_first = np.moveaxis(array, 2 if array.ndim == 4 else 1, 0)
        limit = np.finfo(dtype).max
        clipped = np.clip(members_first, -limit, limit).astype(dtype)
        return clipped.reshape(*shape, *members_first.shape[1:])

    return Sheet(
        method,
        k,
        path.gradients.shape[1],
        packed(points, np.float32),
        packed(path.alpha, np.float32),
        *(packed(array, np.float16) for array in inner),
    )
