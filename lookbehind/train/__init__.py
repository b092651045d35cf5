"""Training: data, networks, the loop, and one frozen recipe of a run."""

from lookbehind.train.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from lookbehind.train.hardware import Hardware, choose_hardware, has_compiler, keep_freed_memory
from lookbehind.train.loop import SCHEDULES, constant, cosine, fit
from lookbehind.train.models import MODELS, make_model
from lookbehind.train.passes import evaluate, frozen_statistics
from lookbehind.train.ranks import ALONE, Alone, Ranks, join
from lookbehind.train.recipe import CHOICES, EVALUATION_BATCH, Outcome, Recipe, evaluation_batches
from lookbehind.train.run import Minibatches, Run, Session, Setup, grouped, set_epoch

__all__ = [
    "ALONE", "CHOICES", "EVALUATION_BATCH", "MODELS", "SCHEDULES", "Alone", "CheckpointError",
    "Hardware", "Minibatches", "Outcome", "Ranks", "Recipe", "Run", "Session", "Setup",
    "choose_hardware", "constant", "cosine", "evaluate", "evaluation_batches", "fit",
    "frozen_statistics", "grouped", "has_compiler", "join", "keep_freed_memory", "make_model",
    "read_checkpoint", "save_checkpoint", "set_epoch",
]  # fmt: skip
