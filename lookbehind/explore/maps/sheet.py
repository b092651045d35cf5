"""What the pages of this room are made of."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lookbehind.explore.shared.page import Living, script, style
from lookbehind.explore.shared.palette import PALETTES
from lookbehind.explore.shared.pictures import small_png


def module(name: str) -> str:
    """The JavaScript of a page, with the colours of the methods."""
    return f"const PALETTES = {json.dumps(PALETTES)};\n{script(Path(__file__).parent / name)}"


class Sheet(Living):
    """A page of one canvas in the common style.

    `_figure` draws the same onto a matplotlib figure of `SIZE` inches, and returns it in words.
    """

    SIZE = (9.0, 3.4)
    _css = style()

    def _figure(self, figure: Any) -> str:
        raise NotImplementedError

    def _picture(self) -> tuple[str, str]:
        figure = Figure(figsize=self.SIZE, dpi=110, layout="constrained")
        words = self._figure(figure)
        return small_png(figure), words
