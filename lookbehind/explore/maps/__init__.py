"""Pages of one canvas: maps of a sweep, methods under noise, the training atlas, a shared step."""

from lookbehind.explore.maps.atlas import TrainingAtlas
from lookbehind.explore.maps.heatmaps import HeatMaps
from lookbehind.explore.maps.intervals import Intervals
from lookbehind.explore.maps.ranks import SharedStep

__all__ = ["HeatMaps", "Intervals", "SharedStep", "TrainingAtlas"]
