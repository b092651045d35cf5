"""What a run leaves and says: its folder, with history.json and a checkpoint, and its words."""

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from lookbehind.files import written_whole
from lookbehind.optim import METHODS
from lookbehind.scores import History
from lookbehind.train.data.dataset import Dataset
from lookbehind.train.hardware import Hardware
from lookbehind.train.recipe import Recipe
from lookbehind.train.run import Run

HISTORY, CHECKPOINT = "history.json", "checkpoint.pt"


def folder_name(recipe: Recipe) -> str:
    """As cifar10-resnet34-lookbehind-sam-k2-rho0.05-adaptive-lr0.1-seed0."""
    used = {*METHODS[recipe.method].sliders, "lr", "seed"}
    named = {n: getattr(recipe, n) for n in ("k", "rho", "alpha", "lr", "seed") if n in used}
    settings = [v if isinstance(v, str) else f"{name}{v:g}" for name, v in named.items()]
    return "-".join([Path(recipe.dataset).name, recipe.model, recipe.method.lower(), *settings])


def held(folder: Path) -> list[str]:
    """Which files of a run a folder holds."""
    return [name for name in (HISTORY, CHECKPOINT) if (folder / name).exists()]


def claim(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds a run which is not to be resumed."""
    files = held(folder)
    if files and not resume:
        words = "Add --resume to go on with it, or name another folder with --out."
        raise FileExistsError(f"{folder} already holds a run ({' and '.join(files)}). {words}")
    if resume and CHECKPOINT not in files:
        print(f"There is no checkpoint in {folder}: the run starts anew.", file=sys.stderr)
        if files:
            (folder / HISTORY).replace(folder / f"{HISTORY}.old")


def facts_of(recipe: Recipe, hardware: Hardware, dataset: Dataset) -> dict[str, Any]:
    """What history.json says beside the scores."""
    return {
        "recipe": asdict(recipe),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "parameters": sum(p.numel() for p in recipe.make_model(dataset).parameters()),
        "hardware": {"name": str(hardware), **asdict(hardware)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def description(recipe: Recipe, dataset: Dataset, facts: dict[str, Any]) -> str:
    """What is going to be done, in a few lines."""
    sizes = ", ".join(f"{count:,} {name}" for name, count in facts["images"].items())
    shape = " x ".join(map(str, (dataset.channels, *dataset.size)))
    noise = f", {100 * recipe.label_noise:g}% of the training labels wrong"
    several = f", in {facts['processes']} processes" * (facts["processes"] > 1)
    budget = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.gradients:,} gradients"
    minibatches = f"{len(recipe.batches(dataset)):,} minibatches of {recipe.batch_size} an epoch"
    return (
        f"{recipe}, {recipe.schedule} schedule, seed {recipe.seed}\n"
        f"{recipe.dataset}: {sizes} images of {shape}, {len(dataset.classes)} classes"
        f"{noise * bool(recipe.label_noise)}{', augmented' * recipe.augment}\n{recipe.model}: "
        f"{facts['parameters']:,} parameters, on {facts['hardware']['name']}{several}\n"
        f"{budget}, {minibatches}, {METHODS[recipe.method].cost(recipe.k)} gradients a minibatch"
    )


@dataclass(eq=False)
class Journal:
    """A callback of `fit` that keeps history.json up to date, and says a line at each record."""

    folder: Path
    facts: dict[str, Any]
    say: Callable[[str], None]
    history: History = field(default_factory=History)
    started: float = field(default_factory=time.monotonic)

    def __call__(self, run: Run) -> None:
        if len(run.records) > len(self.history.records):
            self._write("running", History(tuple(run.records)))
            last = run.records[-len(run.splits) :]
            scores = [f"{r.split} {r.loss:.4f} {r.accuracy:7.2%}" for r in last]
            when = f"epoch {last[0].epoch:6.2f}  {last[0].gradients:7} gradients"
            self.say("  ".join([when, *scores, self._elapsed()]))

    def end(self, history: History) -> str:
        """What the run came to: scores, files, how to go on."""
        state = "stopped" if history.stopped else "finished"
        result = self._write(state, history)
        lines = [f"{state.capitalize()} after {self._elapsed()}:"]
        for last in result["last"].values():
            lines.append("  {split:<10}  loss {loss:.4f}  accuracy {accuracy:.2%}".format(**last))
        if best := result["best_by_validation"].get("test"):
            score = f"test loss {best['loss']:.4f}, accuracy {best['accuracy']:.2%}"
            lines.append(f"Best by validation, at epoch {best['epoch']:g}: {score}")
        lines.append(f"In {self.folder}: {' and '.join(held(self.folder))}")
        return "\n".join(lines + ["Go on with the same command and --resume."] * history.stopped)

    def divergence(self, reason: str) -> str:
        """What to do, and where the scores before it are."""
        words = f"{reason}. Try a lower --lr or --rho."
        if not self.history.records:
            return words
        self._write("diverged", self.history)
        return f"{words} The scores so far are in {self.folder / HISTORY}."

    def _elapsed(self) -> str:
        return str(timedelta(seconds=round(time.monotonic() - self.started)))

    def _write(self, state: str, history: History) -> dict[str, Any]:
        """Replace history.json, whole and at once; returns its summary: the last scores of every
        split, and those of the record that the validation split chose."""
        self.history, names = history, history.splits
        chosen = names if "validation" in names else []
        result = {
            "state": state,
            "last": {name: asdict(history.last(name)) for name in names},
            "best_by_validation": {n: asdict(history.best(n, "validation")) for n in chosen},
        }
        records = [asdict(record) for record in history.records]
        content = {**self.facts, "summary": result, "records": records}
        with written_whole(self.folder / HISTORY) as file:
            file.write((json.dumps(content, indent=1, default=str) + "\n").encode())
        return result
