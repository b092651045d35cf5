"""The folder that a run leaves: history.json, up to date after every record, and a checkpoint."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from lookbehind.files import written_whole
from lookbehind.optim import METHODS
from lookbehind.scores import History, Record
from lookbehind.train.data.dataset import Dataset
from lookbehind.train.hardware import Hardware
from lookbehind.train.recipe import Recipe
from lookbehind.train.run import Run

HISTORY, CHECKPOINT = "history.json", "checkpoint.pt"


@dataclass(eq=False)
class Journal:
    """A callback of `fit` that keeps history.json up to date, and says a line at each record."""

    folder: Path
    header: dict[str, Any]
    say: Callable[[str], None]
    records: Sequence[Record] = ()
    started: float = field(default_factory=time.monotonic)

    def __call__(self, run: Run) -> None:
        if len(run.records) > len(self.records):
            self.records = tuple(run.records)
            self.write("running", self.records)
            last = run.records[-len(run.splits) :]
            scores = [f"{r.split} {r.loss:.4f} {r.accuracy:7.2%}" for r in last]
            when = f"epoch {last[0].epoch:6.2f}  {last[0].gradients:7} gradients"
            self.say("  ".join([when, *scores, str(self.elapsed)]))

    @property
    def elapsed(self) -> timedelta:
        return timedelta(seconds=round(time.monotonic() - self.started))

    def write(self, state: str, records: Sequence[Record]) -> dict[str, Any]:
        """Replace history.json, whole and at once; returns its summary."""
        history = History(tuple(records))
        result = {"state": state, **summary(history)}
        content = {**self.header, "summary": result, "records": history.rows()}
        with written_whole(self.folder / HISTORY) as file:
            file.write((json.dumps(content, indent=1, default=str) + "\n").encode())
        return result


def summary(history: History) -> dict[str, Any]:
    """The last scores of every split, and those of the record that the validation split chose."""
    names = history.splits
    chosen = names if "validation" in names else []
    return {
        "last": {name: asdict(history.last(name)) for name in names},
        "best_by_validation": {name: asdict(history.best(name, "validation")) for name in chosen},
    }


def facts_of(recipe: Recipe, hardware: Hardware, dataset: Dataset) -> dict[str, Any]:
    """What history.json says beside the scores."""
    return {
        "recipe": asdict(recipe),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "parameters": sum(p.numel() for p in recipe.make_model(dataset).parameters()),
        "hardware": {"name": str(hardware), **asdict(hardware)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def folder_name(recipe: Recipe) -> str:
    """As cifar10-resnet34-lookbehind-sam-k2-rho0.05-adaptive-lr0.1-seed0."""
    used = {*METHODS[recipe.method].sliders, "lr", "seed"}
    named = {n: getattr(recipe, n) for n in ("k", "rho", "alpha", "lr", "seed") if n in used}
    settings = [v if isinstance(v, str) else f"{name}{v:g}" for name, v in named.items()]
    return "-".join([Path(recipe.dataset).name, recipe.model, recipe.method.lower(), *settings])


def held(folder: Path) -> list[str]:
    """Which files of a run a folder holds."""
    return [name for name in (HISTORY, CHECKPOINT) if (folder / name).exists()]
