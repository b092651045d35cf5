"""One step of several ranks: what each sees of a minibatch, and where the step ends."""

from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module
from lookbehind.explore.shared.palette import ROLE_COLORS

CHOICES = {"shares": ["equal", "growing", "half in rank 0"], "mean": ["weighted", "plain"],
           "climb": ["global", "local"]}  # fmt: skip
ALLOWED = {"ranks": range(1, 9), "k": range(1, 6), **CHOICES}


class SharedStep(Sheet):
    """One outer step of Lookbehind-SAM by R ranks, on a loss of two weights w and 24 images.

    Image i has the loss log(1 + exp(−zᵢ·w)) and belongs to one rank. `ranks` is R, `shares` how
    many images each has, `mean` whether gradients are weighted by them, `climb` by which gradient
    the first ascent goes, `slow` φ. Descents are those of SGD at `lr`.

    Raises ValueError for a value that isn't in `ALLOWED`.
    """

    _esm = module("ranks.js")
    title = "What each rank sees"
    SIZE = (5.4, 4.2)

    images = traitlets.List(traitlets.List()).tag(sync=True)
    choices = traitlets.Dict(CHOICES).tag(sync=True)
    lr = traitlets.Float(1.5).tag(sync=True)
    alpha = traitlets.Float(0.5).tag(sync=True)
    ranks = traitlets.Int(4).tag(sync=True)
    shares = traitlets.Unicode("equal").tag(sync=True)
    climb = traitlets.Unicode("local").tag(sync=True)
    mean = traitlets.Unicode("weighted").tag(sync=True)
    k = traitlets.Int(3).tag(sync=True)
    rho = traitlets.Float(0.2).tag(sync=True)
    slow = traitlets.List([0.0, 1.0]).tag(sync=True)

    def __init__(self, **settings: Any) -> None:
        for name, allowed in ALLOWED.items():
            if name in settings and settings[name] not in allowed:
                raise ValueError(f"{name} must be in {allowed}, got {settings[name]!r}")
        images = np.random.default_rng(176).normal((0.7, 0.2), 1.3, size=(24, 2))
        super().__init__(images=images.round(2).tolist(), **settings)

    def _figure(self, figure: Any) -> str:
        images, ax = np.array(self.images), figure.subplots()
        groups = [images, *np.array_split(images, self.ranks)]
        gradients = [-(z.T / (1 + np.exp(z @ self.slow))).mean(1) for z in groups]
        for name, g in zip(["mean", *range(self.ranks)], gradients, strict=True):
            arrow = {"arrowstyle": "-|>", "color": ROLE_COLORS["gradient"], "shrinkA": 0}
            arrow["linewidth"] = 3.5 if name == "mean" else 1.2
            ax.annotate("", g, (0, 0), arrowprops=arrow)
            side = {"ha": "left" if g[0] > 0 else "right", "va": "bottom" if g[1] > 0 else "top"}
            ax.annotate("mean" if name == "mean" else f"rank {name}", g, **side)
        most = 1.2 * np.abs(gradients).max()
        ax.set(xlim=(-most, most), ylim=(-most, most), aspect="equal", title="gradients at φ")
        ax.set(xlabel="∂L/∂w₁", ylabel="∂L/∂w₂")
        lengths = ", ".join(f"{np.linalg.norm(g):.2f}" for g in gradients[1:])
        mean = f"their mean {np.linalg.norm(gradients[0]):.2f}"
        return (
            f"Arrows from one origin: the gradients of {self.ranks} ranks, {lengths} long; {mean}."
        )
