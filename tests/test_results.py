"""The stored results: the script beside each still makes them, and the files hold what they say."""

import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookbehind.explore.shared import chosen_runs

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
TINY = {"model": "mlp", "train": 8, "validation": 4, "test": 4, "batch_size": 4, "gradients": 2}


def stored(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the scripts can be imported from."""
    monkeypatch.syspath_prepend(str(RESULTS))
    yield
    for name in ("cifar10", "flatness", "stored"):
        sys.modules.pop(name, None)


@pytest.fixture
def cifar10(scripts: None) -> Any:
    return import_module("cifar10")


@pytest.fixture
def flatness(scripts: None) -> Any:
    return import_module("flatness")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKBEHIND_DATA", str(tmp_path / "kept"))
    pixels = np.random.default_rng(0).integers(256, size=(2, 2, 6, 8, 8, 3), dtype=np.uint8)
    for part, some in zip(("train", "test"), pixels, strict=True):
        for label, images in enumerate(some):
            place = tmp_path / "images" / part / str(label)
            place.mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(place / f"{i}.png")
    return tmp_path / "images"


def test_the_cifar_study_runs_and_goes_on_where_it_was(
    cifar10: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.json"
    few = ("SGD", "Lookbehind-SAM k 2")
    monkeypatch.setattr(cifar10, "METHODS", {name: cifar10.METHODS[name] for name in few})
    cifar10.study(str(folder), path, 1, **TINY)
    whole = json.loads(path.read_text(encoding="utf-8"))
    seeds = {name: [r["seed"] for r in whole["runs"] if r["name"] == name] for name in few}
    assert sorted(seeds["SGD"]) == [0, 1, 2]
    assert sorted(seeds["Lookbehind-SAM k 2"]) == [0, 0, 1, 2]
    part = {**whole, "runs": whole["runs"][:-1]}
    path.write_text(json.dumps(part), encoding="utf-8")
    cifar10.study(str(folder), path, 1, **TINY)
    again = json.loads(path.read_text(encoding="utf-8"))
    for run in (*whole["runs"], *again["runs"]):
        run.pop("seconds")
    assert again == whole
    with pytest.raises(SystemExit, match="holds a study of other settings"):
        cifar10.study(str(folder), path, 1, **{**TINY, "gradients": 3})


def test_the_stored_cifar_study_is_whole(cifar10: Any) -> None:
    study = stored("cifar10")
    for name in cifar10.METHODS:
        seeds = [run["seed"] for run in study["runs"] if run["name"] == name]
        assert set(seeds) == set(cifar10.SEEDS)
    assert {name: study["common"][name] for name in cifar10.COMMON} == cifar10.COMMON


def test_the_flatness_study_measures_every_network_once(
    flatness: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, networks = tmp_path / "study.json", tmp_path / "networks"
    few = ("SGD", "Lookbehind-SAM k 2")
    monkeypatch.setattr(flatness, "METHODS", {name: flatness.METHODS[name] for name in few})
    flatness.study(str(folder), path, networks, **TINY)
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert [(run["name"], run["seed"]) for run in whole["runs"]] == [
        (name, seed) for name in few for seed in (0, 1, 2)
    ]
    check_lengths(flatness, whole)
    path.write_text(json.dumps({**whole, "runs": whole["runs"][1:]}), encoding="utf-8")
    monkeypatch.setattr("lookbehind.train.Run._step", lambda _: pytest.fail("trained again"))
    flatness.study(str(folder), path, networks, **TINY)
    assert json.loads(path.read_text(encoding="utf-8")) == whole


def check_lengths(flatness: Any, study: dict[str, Any]) -> None:
    """Every run has as many values as the head of the file has radii, levels and bits."""
    assert {name: study[name] for name in flatness.MEASURED} == flatness.MEASURED
    for run in study["runs"]:
        lists = {
            "radii": [run["rises"], run["rises_in_steps"]],
            "adaptive_radii": [run["adaptive_rises"]],
            "noise_levels": [run["noise"]["mean"], run["noise"]["std"]],
            "bits": [run["quantized"]],
        }
        for name, some in lists.items():
            for values in some:
                assert len(values) == len(study[name])
                assert all(map(math.isfinite, values))
        assert run["trace"]["error"] > 0
        assert run["eigenvalue"] > 0


def test_the_stored_flatness_study_is_whole(flatness: Any) -> None:
    study, chosen = stored("flatness"), stored("cifar10")
    check_lengths(flatness, study)
    assert study["common"] == chosen["common"]
    for name in flatness.METHODS:
        runs = [run for run in study["runs"] if run["name"] == name]
        names = ("method", "k", "rho", "alpha", "gradient", "seed")
        expected = [{n: run[n] for n in names} for run in chosen_runs(chosen, name)]
        assert [{n: run[n] for n in names} for run in runs] == expected


@pytest.mark.parametrize("name", ["cifar10", "digits", "flatness"])
def test_a_stored_study_says_what_it_was_made_with_and_no_path(name: str) -> None:
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    study = json.loads(text)
    assert all(study[key] for key in ("commit", "torch", "hardware", "seeds", "common"))
    assert "/" not in text.replace("images/s", "")
    assert len(text) < 100_000
