"""The explorer of toy losses."""

from lookbehind.explore.toy.explorer import ToyExplorer
from lookbehind.explore.toy.surface import surface3d

__all__ = ["ToyExplorer", "surface3d"]
