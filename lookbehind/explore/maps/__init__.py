"""Pages over stored runs: heat maps of a sweep, methods under noise, and the training atlas."""

from lookbehind.explore.maps.atlas import TrainingAtlas
from lookbehind.explore.maps.heatmaps import HeatMaps
from lookbehind.explore.maps.intervals import Intervals

__all__ = ["HeatMaps", "Intervals", "TrainingAtlas"]
