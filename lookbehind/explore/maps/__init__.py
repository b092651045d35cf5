"""Heat maps of a sweep."""

from lookbehind.explore.maps.heatmaps import HeatMaps

__all__ = ["HeatMaps"]
