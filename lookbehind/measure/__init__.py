"""What the loss around a network looks like, and how sharp it is."""

from lookbehind.measure.directions import (
    difference,
    dot,
    filter_normalized,
    gaussian_direction,
    solution_plane,
    unit,
)
from lookbehind.measure.grid import Line, Plane
from lookbehind.measure.hessian import (
    Density,
    Eigenpairs,
    hessian_eigenpairs,
    hessian_trace,
    spectral_density,
)
from lookbehind.measure.landscape import line, plane
from lookbehind.measure.noise import Noise, Quantization, quantization, quantized, weight_noise
from lookbehind.measure.objective import STATISTICS, Objective
from lookbehind.measure.paths import Principal, Projection, in_plane, principal_directions, project
from lookbehind.measure.sharpness import (
    Estimate,
    average_rise,
    gradient,
    worst_rise,
    worst_rises,
)
from lookbehind.weights import Weights, moved, weights_of

__all__ = [
    "STATISTICS", "Density", "Eigenpairs", "Estimate", "Line", "Noise", "Objective", "Plane",
    "Principal", "Projection", "Quantization", "Weights", "average_rise", "difference", "dot",
    "filter_normalized", "gaussian_direction", "gradient", "hessian_eigenpairs", "hessian_trace",
    "in_plane", "line", "moved", "plane", "principal_directions", "project", "quantization",
    "quantized", "solution_plane", "spectral_density", "unit", "weight_noise", "weights_of",
    "worst_rise", "worst_rises",
]  # fmt: skip
