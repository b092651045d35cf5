"""What explorers look up in a run: the recipes in its checkpoint, and some of its images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lookbehind.optim import METHODS
from lookbehind.train import CheckpointError, Recipe
from lookbehind.train.data import Split


def first_images(split: Split, count: int) -> Split:
    """Any images of a split, whose rows are in random order."""
    return replace(split, images=split.images[:count], labels=split.labels[:count])


def recipes_in(path: str | Path, state: dict[str, Any]) -> tuple[Recipe, Recipe]:
    """The recipe that a checkpoint's run began with, and the one it had when it was saved.

    Raises CheckpointError where the checkpoint was not written by a run of a recipe.
    """
    try:
        began = Recipe(**state["plan"]["config"])
        part = state["optimizer"]
        settings = dict[str, Any]()
        while "inner" in part:  # Lookahead's k, not that of the SAM inside
            settings = part["settings"] | settings
            part = part["inner"]
        group = part["param_groups"][0]
        settings |= {"lr": group.get("initial_lr", group["lr"])}  # not set before the first step
        settings |= settings.pop("ball", {})
        names = {"k", "rho", "alpha"} & {*METHODS[began.method].sliders} | {"lr"}
        return began, replace(began, **{name: settings[name] for name in names})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} was not written by a run of a recipe: {error}") from error
