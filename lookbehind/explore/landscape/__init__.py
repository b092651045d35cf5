"""The explorer of loss landscapes."""

from lookbehind.explore.landscape.explorer import LandscapeExplorer

__all__ = ["LandscapeExplorer"]
