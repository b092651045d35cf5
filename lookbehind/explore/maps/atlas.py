"""The training atlas: what another k, ρ, α, learning rate or labels would have given."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import traitlets

from lookbehind.explore.maps.sheet import Sheet, module

FIRST = {"label_noise": 0.4, "lr": 0.1, "k": 5, "rho": 0.05, "alpha": 0.2}


class TrainingAtlas(Sheet):
    """Curves, accuracy, sharpness and robustness of stored runs, under three numbers and two menus.

    `path` is a file of notebooks/results/atlas.py, which says what it holds. `setting` are values
    of its axes (label_noise, lr, k, rho, alpha); the trait of that name follows the controls.

    Raises ValueError for a value that was not stored.
    """

    _esm = module("atlas.js")
    title = "The training atlas"

    atlas = traitlets.Dict().tag(sync=True)
    setting = traitlets.Dict().tag(sync=True)

    def __init__(self, path: str | Path, **setting: Any) -> None:
        atlas = json.loads(Path(path).read_text(encoding="utf-8"))
        axes, chosen = atlas["axes"], FIRST | setting
        for name, value in chosen.items():
            if value not in axes.get(name, ()):
                raise ValueError(f"setting must hold values of {axes}, got {name}={value!r}")
        super().__init__(atlas=atlas, setting={name: chosen[name] for name in axes})

    @property
    def row(self) -> dict[str, Any]:
        """What is stored of the setting."""
        settings = [*product(*self.atlas["axes"].values())]
        return self.atlas["runs"][settings.index((*self.setting.values(),))]

    def _figure(self, figure: Any) -> str:
        from lookbehind.explore.shared import pictures

        accuracy, ax = self.row.get("accuracy", [0.0]), figure.subplots()
        color = pictures.METHOD_COLORS["Lookbehind-SAM"]
        ax.plot(range(1, len(accuracy) + 1), accuracy, ".-", color=color)
        ax.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
        where = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        return (
            f"Training of Lookbehind-SAM with {where}: test accuracy {accuracy[-1]} % at the end."
        )
