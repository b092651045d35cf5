"""Landscape explorers for the tests: small networks, few points."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("ipywidgets")
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.landscape import job as landscape_job
from lookbehind.explore.landscape.job import GAUSSIAN
from lookbehind.train import Recipe
from lookbehind.train.data import Dataset, digits

IMAGES = 60
RECIPE = Recipe(train=100, validation=0, gradients=40)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(landscape_job, "RADII", (0.1, 0.2, 0.7))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits(train=100, validation=0)


@pytest.fixture(scope="module")
def networks(data: Dataset) -> dict[str, Any]:
    """Two small networks; the first is a finished run."""
    return {"SAM": replace(RECIPE, method="SAM", rho=0.05).run(dataset=data), "plain": small(1)}


@pytest.fixture(scope="module")
def done(networks: dict[str, Any], data: Dataset) -> LandscapeExplorer:
    """An explorer that has computed everything, to be read only."""
    return finished(LandscapeExplorer(networks, data, **QUICK))


QUICK: dict[str, Any] = {"images": IMAGES, "points": 11, "second": GAUSSIAN}


def small(seed: int, width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def finished(explorer: LandscapeExplorer) -> LandscapeExplorer:
    explorer.compute()
    explorer.wait()
    return explorer


def batches(data: Dataset, count: int = IMAGES) -> list[Any]:
    split = data.train
    return [*replace(split, images=split.images[:count], labels=split.labels[:count]).batches(500)]
