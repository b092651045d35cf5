"""Pages of one thought, computed in them: a shifted loss, and one step of several ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.shared import pictures
from lookbehind.explore.shared.page import script
from lookbehind.explore.shared.palette import PALETTES
from lookbehind.explore.shared.pictures import Sheet

HERE = Path(__file__).parent
LISTED: dict[str, list[float]] = {
    "shift": [round(n / 50, 2) for n in range(-30, 31)],
    "sharpness": [1, 2, 4, 8, 16, 32],
    "lead": [0.0, 0.05, 0.1, 0.2, 0.4],
}
MINIMA = {"sharp": -1.0, "flat": 1.0}
HARDNESS = 20  # of the minimum of the two parabolas: smooth between them
CHOICES = {"shares": ["equal", "growing", "half in rank 0"], "mean": ["weighted", "plain"],
           "climb": ["global", "local"]}  # fmt: skip
IMAGES = np.random.default_rng(176).normal((0.7, 0.2), 1.3, size=(24, 2)).round(2)


class ShiftedLoss(Sheet):
    """A loss of one weight with a sharp and a flat minimum, and the same loss moved sideways.

    The training loss is nearly the lower of two parabolas, `sharpness` · (φ + 1)² / 2 and
    (φ − 1)² / 2 + `lead`; the test loss is L(φ − `shift`). The traits are values of `LISTED`:
    TraitError for another.
    """

    _esm = script(HERE / "shift.js", PALETTES=PALETTES)
    title = "A shifted loss"

    listed = traitlets.Dict(LISTED).tag(sync=True)
    shift = traitlets.Enum(LISTED["shift"], 0.0).tag(sync=True)
    sharpness = traitlets.Enum(LISTED["sharpness"], 16).tag(sync=True)
    lead = traitlets.Enum(LISTED["lead"], 0.1).tag(sync=True)

    def loss(self, weight: Any, shift: float | None = None) -> Any:
        """The loss at `weight`, shifted: of the test where `shift` is None, with 0 of training."""
        at = np.asarray(weight) - (self.shift if shift is None else shift)
        parabolas = self.sharpness * (at + 1) ** 2 / 2, (at - 1) ** 2 / 2 + self.lead
        return -np.logaddexp(*(-HARDNESS * p for p in parabolas)) / HARDNESS

    def _figure(self, figure: Any) -> str:
        ax, weight = figure.subplots(), np.linspace(-2.2, 2.6, 400)
        ax.plot(weight, self.loss(weight, 0), color="black", label="training loss")
        ax.plot(weight, self.loss(weight), "--", color="black", label="test loss, shifted")
        ax.set(xlabel="weight φ", ylabel="loss", ylim=(-0.05, 2.2))
        ax.legend()
        ends = [f"{name} {abs(self.loss(place)):.2f}" for name, place in MINIMA.items()]
        return f"Test loss shifted by {self.shift}; at the minima of training: {', '.join(ends)}."


class SharedStep(Sheet):
    """One outer step of Lookbehind-SAM by R ranks, on a loss of two weights w and 24 images.

    Image i has the loss log(1 + exp(−zᵢ·w)) and belongs to one rank. `ranks` is R, `shares` how
    many images each has, `mean` whether gradients are weighted by them, `climb` by which gradient
    the first ascent goes, `slow` φ. Descents are those of SGD at `lr`.

    Raises TraitError for more than 8 ranks or 5 steps, and for what isn't in `CHOICES`.
    """

    _esm = script(HERE / "ranks.js", PALETTES=PALETTES)
    title = "What each rank sees"
    SIZE = (5.4, 4.2)

    images = traitlets.List(IMAGES.tolist()).tag(sync=True)
    choices = traitlets.Dict(CHOICES).tag(sync=True)
    lr = traitlets.Float(1.5).tag(sync=True)
    alpha = traitlets.Float(0.5).tag(sync=True)
    ranks = traitlets.Int(4, min=1, max=8).tag(sync=True)
    shares = traitlets.Enum(CHOICES["shares"], "equal").tag(sync=True)
    climb = traitlets.Enum(CHOICES["climb"], "local").tag(sync=True)
    mean = traitlets.Enum(CHOICES["mean"], "weighted").tag(sync=True)
    k = traitlets.Int(3, min=1, max=5).tag(sync=True)
    rho = traitlets.Float(0.2).tag(sync=True)
    slow = traitlets.List([0.0, 1.0]).tag(sync=True)

    def _figure(self, figure: Any) -> str:
        ax, groups = figure.subplots(), [IMAGES, *np.array_split(IMAGES, self.ranks)]
        mean, *own = gradients = [-(z.T / (1 + np.exp(z @ self.slow))).mean(1) for z in groups]
        names = ["mean", *(f"rank {r}" for r in range(self.ranks))]
        for name, g in zip(names, gradients, strict=True):
            pictures.arrow(ax, (0, 0), g, "gradient", linewidth=3.5 if name == "mean" else 1.2)
            side = {"ha": "left" if g[0] > 0 else "right", "va": "bottom" if g[1] > 0 else "top"}
            ax.annotate(name, g, **side)
        most = 1.2 * np.abs(gradients).max()
        ax.set(xlim=(-most, most), ylim=(-most, most), aspect="equal", title="gradients at φ")
        ax.set(xlabel="∂L/∂w₁", ylabel="∂L/∂w₂")
        lengths = ", ".join(f"{np.linalg.norm(g):.2f}" for g in own)
        told = f"the gradients of {self.ranks} ranks, {lengths} long"
        return f"Arrows from one origin: {told}; their mean {np.linalg.norm(mean):.2f}."
