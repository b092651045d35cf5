"""Pages of one picture: a shifted loss, heat maps, methods under noise, and the training atlas."""

from lookbehind.explore.maps.atlas import TrainingAtlas
from lookbehind.explore.maps.heatmaps import HeatMaps
from lookbehind.explore.maps.intervals import Intervals
from lookbehind.explore.maps.shift import ShiftedLoss

__all__ = ["HeatMaps", "Intervals", "ShiftedLoss", "TrainingAtlas"]
