"""Training labs for the tests: short runs, and buttons that are pressed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

pytest.importorskip("ipywidgets")
from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.lab.training import Training
from lookbehind.optim import METHODS
from lookbehind.train import Recipe

SHORT = Recipe(epochs=3, gradients=None, train=100, validation=0, label_noise=0.4)
LONG = replace(SHORT, epochs=100_000)
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., TrainingLab]]:
    """Makes labs whose runs are ended after the test."""
    made: list[TrainingLab] = []

    def one(recipe: Recipe = SHORT, **options: Any) -> TrainingLab:
        made.append(TrainingLab(recipe, folder=options.pop("folder", tmp_path), **options))
        return made[-1]

    yield one
    for lab in made:
        lab.stop()
        lab.wait()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited 60 s"
        time.sleep(0.005)


def press(lab: TrainingLab, act: str) -> None:
    """As the page says it: a message of its own, in whatever thread JupyterLab chose."""
    tell(lab, {"do": act})


def tell(lab: TrainingLab, content: dict[str, Any]) -> None:
    data = {"method": "custom", "content": content}
    lab._handle_msg({"content": {"data": data}, "buffers": []})


def finish(lab: TrainingLab) -> TrainingLab:
    press(lab, "start")
    lab.wait()
    return lab


def begin(lab: TrainingLab, steps: int = 3) -> Training:
    """Start and wait for the first steps."""
    press(lab, "start")
    training = lab._work
    assert training is not None
    until(lambda: training.steps >= steps)
    return training


def held(lab: TrainingLab, steps: int = 3) -> Training:
    """Start a run that pauses itself: a short one would have ended before a press."""
    plain = Training._after_step

    def after(training: Training, run: Any) -> None:
        if training.steps == steps - 1:
            training.pausing = "Paused"
        plain(training, run)

    with mock.patch.object(Training, "_after_step", after):
        training = begin(lab, steps)
    until(lambda: "Paused at epoch" in lab.message)
    return training


def end(lab: TrainingLab) -> TrainingLab:
    press(lab, "stop")
    lab.wait()
    return lab


def hold(lab: TrainingLab) -> None:
    """Pause, and wait until it is."""
    press(lab, "pause")
    until(lambda: "Paused at epoch" in lab.message)


def runs(lab: TrainingLab) -> list[dict[str, Any]]:
    """What the page draws: the runs that have ended, and the one under way."""
    return [*lab.runs, *([lab.live] if lab.live else [])]


def same_weights(a: Any, b: Any) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
