"""What the loss around a network looks like, and how sharp it is."""

from lookbehind.measure.directions import (
    difference,
    dot,
    filter_normalized,
    gaussian_direction,
    in_plane,
    principal_directions,
    project,
    solution_plane,
    unit,
)
from lookbehind.measure.landscape import Line, Plane, line, plane
from lookbehind.measure.objective import STATISTICS, Objective
from lookbehind.measure.sharpness import (
    average_rise,
    gradient,
    hessian_eigenpairs,
    hessian_trace,
    quantized,
    weight_noise,
    worst_rise,
    worst_rises,
)
from lookbehind.weights import Weights, moved, weights_of

__all__ = [
    "STATISTICS", "Line", "Objective", "Plane", "Weights", "average_rise", "difference", "dot",
    "filter_normalized", "gaussian_direction", "gradient", "hessian_eigenpairs", "hessian_trace",
    "in_plane", "line", "moved", "plane", "principal_directions", "project", "quantized",
    "solution_plane", "unit", "weight_noise", "weights_of", "worst_rise", "worst_rises",
]  # fmt: skip
