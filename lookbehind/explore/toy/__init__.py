"""The explorer of toy losses."""

from lookbehind.explore.toy.explorer import ToyExplorer

__all__ = ["ToyExplorer"]
