"""What explorers look up in a run: its network, the recipes in its checkpoint, some images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lookbehind.optim import METHODS
from lookbehind.train import CheckpointError, Outcome, Recipe, read_checkpoint
from lookbehind.train.data import Dataset, Split
from lookbehind.weights import weights_of

Network = nn.Module | Outcome | str | Path  # the last two, of a checkpoint


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
        settings: dict[str, Any] = {}
        for own in part.get("settings", ()):  # Lookahead's k, not that of the SAM inside
            settings = own | settings
        group = part["param_groups"][0]
        settings |= {"lr": group.get("initial_lr", group["lr"])}  # not set before the first step
        settings |= settings.pop("ball", {})
        names = {"k", "rho", "alpha"} & {*METHODS[began.method].sliders} | {"lr"}
        return began, replace(began, **{name: settings[name] for name in names})
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} was not written by a run of a recipe: {error}") from error


def network_of(network: Network, dataset: Dataset) -> nn.Module:
    """The network itself, of a finished run, or of a checkpoint of a run of a recipe.

    Raises FileNotFoundError, or CheckpointError in words; TypeError for anything else, ValueError
    for a network without weights that are trained.
    """
    model = network.model if isinstance(network, Outcome) else network
    if isinstance(model, nn.Module):
        weights_of(model)
        return model
    if not isinstance(network, str | Path):
        raise TypeError(f"networks must hold modules, outcomes or paths, got {network!r}")
    state = read_checkpoint(network)
    recipe = recipes_in(Path(network), state)[0]
    try:
        model = recipe.make_model(dataset)
        model.load_state_dict(state["model"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{network} doesn't fit the dataset given: {reason}") from error
    return model.eval()
