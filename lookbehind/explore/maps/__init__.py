"""Pages over stored runs (heat maps, methods under noise, atlas), of one thought, of advice."""

from lookbehind.explore.maps.pages import (
    HeatMaps,
    Intervals,
    SharedStep,
    ShiftedLoss,
    TaskMatrices,
    TradeOff,
    TrainingAtlas,
)
from lookbehind.explore.shared.bets import Advice

__all__ = [
    "Advice", "HeatMaps", "Intervals", "SharedStep", "ShiftedLoss", "TaskMatrices", "TradeOff",
    "TrainingAtlas",
]  # fmt: skip
