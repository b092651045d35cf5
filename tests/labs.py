"""Training labs for the tests: short runs, and buttons that are pressed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.lab.training import KERNEL, Training
from lookbehind.optim import METHODS
from lookbehind.train import Recipe

SHORT = Recipe(epochs=3, gradients=None, train=100, validation=0, label_noise=0.4)
LONG = replace(SHORT, epochs=100_000)
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., TrainingLab]]:
    """Makes labs whose runs are ended after the test."""
    yield lambda recipe=SHORT, **options: TrainingLab(recipe, folder=tmp_path, **options)
    for training in [*KERNEL.runs]:
        training.stop()
        training.thread.join()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited 60 s"
        time.sleep(0.005)


def tell(lab: TrainingLab, content: dict[str, Any]) -> None:
    """As the page says it: a message of its own, in whatever thread JupyterLab chose."""
    lab._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def press(lab: TrainingLab, act: str) -> None:
    tell(lab, {"do": act})


def finish(lab: TrainingLab, act: str = "start") -> TrainingLab:
    press(lab, act)
    lab.wait()
    return lab


def begin(lab: TrainingLab, steps: int = 3) -> tuple[TrainingLab, Training]:
    """Start and wait for the first steps."""
    press(lab, "start")
    until(lambda: lab._work.steps >= steps)
    return lab, lab._work


def hold(lab: TrainingLab) -> tuple[TrainingLab, Training]:
    """Pause the run under way, or one that begins, and wait until it is."""
    with KERNEL.lock:  # a short run would have ended before the second press
        press(lab, "start")
        press(lab, "pause")
    until(lambda: "Paused at epoch" in lab.message)
    return lab, lab._work
