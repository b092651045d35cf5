"""Pages over stored runs (heat maps, methods under noise, training atlas), and of one thought."""

from lookbehind.explore.maps.atlas import TrainingAtlas
from lookbehind.explore.maps.heatmaps import HeatMaps
from lookbehind.explore.maps.intervals import Intervals
from lookbehind.explore.maps.ranks import SharedStep
from lookbehind.explore.maps.shift import ShiftedLoss
from lookbehind.explore.maps.tasks import TaskMatrices

__all__ = ["HeatMaps", "Intervals", "SharedStep", "ShiftedLoss", "TaskMatrices", "TrainingAtlas"]
