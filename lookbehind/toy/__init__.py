"""Losses of two weights, and descents on them that record every point."""

from lookbehind.toy.descend import Trajectory, descend
from lookbehind.toy.losses import LOSSES, Loss, ToyLoss, hessian_eigenvalues

__all__ = ["LOSSES", "Loss", "ToyLoss", "Trajectory", "descend", "hessian_eigenvalues"]
