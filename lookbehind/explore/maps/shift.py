"""Why flat might be good: the loss of training, and a copy of it that is shifted."""

from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module

LISTED: dict[str, list[float]] = {
    "shift": [round(n / 50, 2) for n in range(-30, 31)],
    "sharpness": [1, 2, 4, 8, 16, 32],
    "lead": [0.0, 0.05, 0.1, 0.2, 0.4],
}
MINIMA = {"sharp": -1.0, "flat": 1.0}
HARDNESS = 20  # of the minimum of the two parabolas: smooth between them


class ShiftedLoss(Sheet):
    """A loss of one weight with a sharp and a flat minimum, and the same loss moved sideways.

    The training loss is nearly the lower of two parabolas, `sharpness` · (φ + 1)² / 2 and
    (φ − 1)² / 2 + `lead`; the test loss is L(φ − `shift`). The traits are values of `LISTED`.

    Raises ValueError for another value.
    """

    _esm = module("shift.js")
    title = "A shifted loss"

    listed = traitlets.Dict(LISTED).tag(sync=True)
    shift = traitlets.Float().tag(sync=True)
    sharpness = traitlets.Int().tag(sync=True)
    lead = traitlets.Float().tag(sync=True)

    def __init__(self, shift: float = 0.0, sharpness: int = 16, lead: float = 0.1) -> None:
        chosen: dict[str, Any] = {"shift": shift, "sharpness": sharpness, "lead": lead}
        for name, value in chosen.items():
            if value not in LISTED[name]:
                raise ValueError(f"{name} must be one of {LISTED[name]}, got {value!r}")
        super().__init__(**chosen)

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
