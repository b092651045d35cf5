"""Flatness against accuracy: a dot a stored run, and the loss around the one under the pointer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module

KEPT = ("name", "budget", "label_noise", "test", "average_rise", "loss", "rise")
FIRST = {"label_noise": 0.4, "budget": "equal steps"}


class TradeOff(Sheet):
    """Stored runs: average rise in nats against test accuracy, and a line through one of them.

    `path` is a file of notebooks/results/lines.py, which says what it holds. `label_noise` and
    `budget`, one of those in it, are what the menus move.

    Raises ValueError for a value that was not stored.
    """

    _esm = module("tradeoff.js")
    title = "Flatness against accuracy"

    study = traitlets.Dict().tag(sync=True)
    label_noise = traitlets.Float().tag(sync=True)
    budget = traitlets.Unicode().tag(sync=True)

    def __init__(self, path: str | Path, **setting: Any) -> None:
        study, chosen = json.loads(Path(path).read_text(encoding="utf-8")), FIRST | setting
        for name, value in chosen.items():
            if name not in FIRST:
                raise ValueError(f"{name} must be one of the settings {[*FIRST]}, got {value!r}")
            stored = list(dict.fromkeys(run.get(name) for run in study["runs"]))
            if value not in stored:
                raise ValueError(f"{name} must be one of {stored}, got {value!r}")
        runs = [{name: run[name] for name in KEPT} for run in study["runs"]]
        kept = {"runs": runs, **{name: study[name] for name in ("at", "seeds", "sigma")}}
        super().__init__(study=kept, **chosen)

    def shown(self) -> list[dict[str, Any]]:
        """The runs of this budget and these labels, a row a method."""
        chosen = self.label_noise, self.budget
        return [r for r in self.study["runs"] if (r["label_noise"], r["budget"]) == chosen]

    def _figure(self, figure: Any) -> str:
        from lookbehind.explore.shared.palette import color_of

        left, right = figure.subplots(1, 2)
        for run in self.shown():
            x, y, color = run["average_rise"], 100 * np.array(run["test"]), color_of(run["name"])
            left.plot(x, y, "o", color=color, alpha=0.4, markersize=4)
            left.plot(np.mean(x), y.mean(), "o", color=color, markersize=9)
            look = {"color": color, "ls": "--" if run["name"].endswith("k 5") else "-"}
            right.plot(self.study["at"], np.mean(run["rise"], 0), label=run["name"], **look)
        left.set(xlabel="average rise, nats", ylabel="test accuracy, %")
        right.set(xlabel="distance, in lengths of the weights", ylabel="rise of the loss, nats")
        right.legend(fontsize=8)
        labels = f"{self.label_noise:.0%} wrong labels" if self.label_noise else "clean labels"
        told = ", ".join(
            f"{r['name']} {np.mean(r['average_rise']):.3f} nats and {np.mean(r['test']):.1%}"
            for r in self.shown()
        )
        return f"Average rise and test accuracy, {labels}, {self.budget}, means: {told}."
