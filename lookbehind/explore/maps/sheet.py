"""What the pages of this room are made of."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lookbehind.explore.shared.page import script
from lookbehind.explore.shared.palette import PALETTES

COLORS = {name: palette._asdict() for name, palette in PALETTES.items()}


def module(name: str) -> str:
    """The JavaScript of a page, with the colours of the methods."""
    return f"const PALETTES = {json.dumps(COLORS)};\n{script(Path(__file__).parent / name)}"


def rounded(array: Any) -> Any:
    """Nested lists of four significant digits, None where a value is not finite."""
    if np.ndim(array):
        return [rounded(part) for part in array]
    return float(f"{float(array):.4g}") if np.isfinite(array) else None
