"""Pages over stored runs (heat maps, methods under noise, atlas), of one thought, of advice."""

from lookbehind.explore.maps.advice import Advice
from lookbehind.explore.maps.atlas import TrainingAtlas
from lookbehind.explore.maps.heatmaps import HeatMaps
from lookbehind.explore.maps.intervals import Intervals
from lookbehind.explore.maps.ranks import SharedStep
from lookbehind.explore.maps.shift import ShiftedLoss
from lookbehind.explore.maps.tasks import TaskMatrices
from lookbehind.explore.maps.tradeoff import TradeOff

__all__ = [
    "Advice", "HeatMaps", "Intervals", "SharedStep", "ShiftedLoss", "TaskMatrices", "TradeOff",
    "TrainingAtlas",
]  # fmt: skip
