"""Landscape explorers for the tests: small networks, few points."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.landscape import job as landscape_job
from lookbehind.explore.landscape.job import GAUSSIAN
from lookbehind.train import Recipe
from lookbehind.train.data import Dataset, digits

IMAGES = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape_job, "RADII", (0.1, 0.2, 0.7))


@cache
def data() -> Dataset:
    return digits(train=100, validation=0)


@cache
def trained() -> dict[str, Any]:
    """Two small networks; the first is a finished run."""
    recipe = Recipe(method="SAM", rho=0.05, train=100, validation=0, gradients=40)
    return {"SAM": recipe.run(dataset=data()), "plain": small(1)}


def small(seed: int, width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def around(networks: str | Mapping[str, Any] = "a", **settings: Any) -> LandscapeExplorer:
    """Of these networks, or of small ones with these names, seeds 0, 1 and so on."""
    if isinstance(networks, str):
        networks = {name: small(seed) for seed, name in enumerate(networks)}
    usual: dict[str, Any] = {"images": IMAGES, "points": 11, "second": GAUSSIAN}
    return LandscapeExplorer(networks, data(), **usual | settings)


def finished(explorer: LandscapeExplorer) -> LandscapeExplorer:
    explorer.compute()
    explorer.wait()
    return explorer


def batches() -> list[Any]:
    return [*data().train.take(slice(IMAGES)).batches(500)]
