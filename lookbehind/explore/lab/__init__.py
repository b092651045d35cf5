"""The training lab."""

from lookbehind.explore.lab.lab import TrainingLab

__all__ = ["TrainingLab"]
