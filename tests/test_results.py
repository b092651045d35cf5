"""The stored results: the script beside each still makes them, and the files hold what they say."""

import itertools
import json
import math
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from lookbehind.explore.shared import chosen_runs
from lookbehind.study import lifelong, sweep
from lookbehind.study.lifelong import learn, permuted
from lookbehind.train import Recipe

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
TINY = {"model": "mlp", "train": 8, "validation": 4, "test": 4, "batch_size": 4, "gradients": 2}


def stored(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the scripts can be imported from."""
    monkeypatch.syspath_prepend(str(RESULTS))
    yield
    for path in RESULTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


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
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    with monkeypatch.context() as patch:
        patch.setattr("stored.write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cifar10.study(str(folder), path, 1, **TINY)
    kept = path.with_suffix(".jsonl")
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    kept.write_text("".join(json.dumps({**row, "seconds": 99.0}) + "\n" for row in rows[:-1]))
    cifar10.study(str(folder), path, 1, **TINY)
    whole = json.loads(path.read_text(encoding="utf-8"))
    seeds = {name: [r["seed"] for r in whole["runs"] if r["name"] == name] for name in few}
    assert sorted(seeds["SGD"]) == [0, 1, 2]
    assert sorted(seeds["Lookbehind-SAM k 2"]) == [0, 0, 1, 2]
    assert [run["seconds"] for run in whole["runs"]].count(99.0) == len(rows) - 1 == 6
    assert whole["runs"][0].keys() == stored("cifar10")["runs"][0].keys()
    names = ["sharpness", "records"]
    assert {json.dumps([run[n] for n in names]) for run in whole["runs"]} == {
        json.dumps([row[n] for n in names]) for row in rows
    }
    assert not kept.exists()


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_the_stored_cifar_study_is_whole(cifar10: Any) -> None:
    study = stored("cifar10")
    for name in cifar10.METHODS:
        seeds = [run["seed"] for run in study["runs"] if run["name"] == name]
        assert set(seeds) == set(cifar10.SEEDS)
    assert {name: study["common"][name] for name in cifar10.COMMON} == cifar10.COMMON


def test_the_flatness_study_measures_every_network_once(
    flatness: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.json"
    few = ("SGD", "Lookbehind-SAM k 2")
    monkeypatch.setattr(flatness, "METHODS", {name: flatness.METHODS[name] for name in few})
    with monkeypatch.context() as patch:
        patch.setattr("stored.write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            flatness.study(str(folder), path, 1, **TINY)
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    monkeypatch.setattr("lookbehind.study.sweeps.train_block", lambda *_: pytest.fail("again"))
    flatness.study(str(folder), path, 1, **TINY)
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert [(run["name"], run["seed"]) for run in whole["runs"]] == [
        (name, seed) for name in few for seed in (0, 1, 2)
    ]
    check_lengths(flatness, whole)
    assert whole["runs"][0].keys() == stored("flatness")["runs"][0].keys()


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


@pytest.mark.parametrize("name", ["digits", "noise"])
def test_a_sweep_on_digits_has_a_row_a_setting_as_the_stored_one(
    name: str, scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, path, whole = import_module(name), tmp_path / "study.json", stored(name)
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    points = [{"name": point[0], "settings": point[-1]} for point in script.settings()]
    assert [{n: run[n] for n in ("name", "settings")} for run in whole["runs"]] == points
    some = [next(p for p in script.settings() if p[0] == n) for n in ("SGD", "Lookbehind-SAM k 5")]
    monkeypatch.setattr(script, "settings", lambda: some)
    monkeypatch.setattr(script, "SEEDS", (0, 3))
    script.study(path, 1)
    made = json.loads(path.read_text(encoding="utf-8"))
    assert made.keys() == whole.keys()
    for run in made["runs"]:
        names = run.keys() & {"name", "budget", "settings"}
        old = next(r for r in whole["runs"] if all(r[n] == run[n] for n in names))
        assert run.keys() == old.keys()
        for kind in run.keys() - names:
            assert run[kind] == [old[kind][0], old[kind][3]]


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [("atlas", 576, random.Random(0).sample(range(576), 3)), ("memorized", 66, [1, 46])],
)
def test_a_table_of_settings_holds_what_training_gives(
    name: str, count: int, some: list[int], scripts: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    script, path, whole = import_module(name), tmp_path / "study.json", stored(name)
    settings, size = script.settings(), (RESULTS / f"{name}.json").stat().st_size
    assert len(whole["runs"]) == len(settings) == count and size < 700 * count
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    monkeypatch.setattr(script, "settings", lambda: [settings[n] for n in some])
    script.study(path, 1)
    made = json.loads(path.read_text(encoding="utf-8"))
    assert made["runs"] == [whole["runs"][n] for n in some]
    for key in made.keys() - {"runs", "commit", "torch", "hardware"}:
        assert made[key] == whole[key]
    assert whole["commit"] and whole["torch"] and whole["hardware"]


def test_ranks_as_members_of_an_ensemble_climb_apart_and_give_the_stored_accuracies(
    scripts: None,
) -> None:
    ranks, whole = import_module("ranks"), stored("ranks")
    points = list(itertools.product(ranks.settings(), ranks.LRS, ranks.RADII))
    assert [run | ranks.named(s, lr=lr, rho=rho) for run, (s, lr, rho) in
            zip(whole["runs"], points, strict=True)] == whole["runs"]  # fmt: skip
    row = ranks.best(whole["runs"], ("SAM", 0.4, 2))
    kept = next(r for r in whole["tested"] if (r["label_noise"], r["ranks"]) == (0.4, 2))
    assert (kept["lr"], kept["rho"]) == (row["lr"], row["rho"]) and len(kept["test"]) == 10
    recipe = ranks.recipe_of("SAM", 0.4, row["lr"])
    made = ranks.accuracies("test", recipe, ranks.TESTED_ON[:2], [row["rho"]], 2)
    assert made == [kept["test"][:2]]


def test_two_ranks_in_one_process_are_two_shares_by_hand(scripts: None) -> None:
    torch.set_default_dtype(torch.float64)
    recipe = replace(import_module("ranks").COMMON, method="SAM", rho=0.1, epochs=1)
    [[network]], [data] = import_module("ranks").trained(recipe, [0], [0.1], 2)
    model = recipe.make_model(data)
    params = list(model.parameters())
    base = torch.optim.SGD(params, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)

    def gradient(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(cross_entropy(model(images), labels), params)

    for t, (images, labels) in enumerate(recipe.batches(data)):
        slow, found = [p.detach().clone() for p in params], []
        for share in zip(images.chunk(2), labels.chunk(2), strict=True):
            own = gradient(*share)
            length = torch.stack([(g**2).sum() for g in own]).sum().sqrt()
            for p, w, g in zip(params, slow, own, strict=True):
                p.data = w + recipe.rho * g / length
            found.append(gradient(*share))
            for p, w in zip(params, slow, strict=True):
                p.data = w.clone()
        for p, *both in zip(params, *found, strict=True):
            p.grad = (both[0] + both[1]) / 2
        base.param_groups[0]["lr"] = recipe.lr * (1 + math.cos(math.pi * t / 10)) / 2
        base.step()
    for ours, theirs in zip(params, network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.fixture
def study(scripts: None) -> Any:
    return import_module("lifelong")


def test_the_stored_lifelong_study_is_whole(study: Any) -> None:
    text = (RESULTS / "lifelong.json").read_text(encoding="utf-8")
    assert len(text) < 110_000
    kept = json.loads(text)
    assert all(kept[key] for key in ("commit", "torch", "hardware"))
    assert Recipe(**kept["common"]) == study.COMMON
    assert (kept["methods"], kept["sequences"]) == (study.METHODS, study.SEQUENCES)
    points = [
        tuple(row[n] for n in ("name", "budget", "sequence", "memory")) for row in kept["runs"]
    ]
    assert points == list(
        itertools.product(study.METHODS, study.BUDGETS, study.SEQUENCES, study.MEMORIES)
    )
    for row in kept["runs"]:
        pairs = study.pairs(row["name"])
        assert list(zip(row["lr"], row["rho"], strict=True)) == pairs
        assert [len(values) for values in row["validation"]] == [len(study.SEEDS)] * len(pairs)
        assert len(row["forgetting"]) == len(pairs)


def test_a_member_of_the_study_is_the_run_that_is_tested(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sequence = "Lookbehind-SAM k 2", "permuted"
    monkeypatch.setattr(study, "pairs", lambda _: [(0.03, 0.05), (0.1, 0.0)])
    monkeypatch.setitem(study.SEQUENCES, sequence, {**study.SEQUENCES[sequence], "gradients": 9})
    accuracies, forgettings = study.measured(name, "equal gradients", sequence, 50, 1)
    for e, (lr, rho) in enumerate(study.pairs(name)):
        recipe = replace(study.COMMON, lr=lr, rho=rho, seed=1, **study.METHODS[name])
        data = recipe.load()
        alone = learn(
            recipe.make_model(data), recipe.make_optimizer, permuted(data, 3), batch_size=20,
            gradients=9, memory=50, seed=1,
        )  # fmt: skip
        R = alone.accuracy["validation"]
        assert accuracies[e] == pytest.approx(float(lifelong.average_accuracy(R)))
        assert forgettings[e] == pytest.approx(float(lifelong.average_forgetting(R)))


def test_the_tested_matrices_are_of_the_settings_chosen(study: Any) -> None:
    kept = stored("lifelong")
    for row in kept["tested"]:
        sequence, memory = row["sequence"], row["memory"]
        joint = row["name"] == "joint training"
        recipes = study.choose(kept["runs"], sequence, 50 if joint else memory)
        recipe = recipes["SGD" if joint else row["name"]]
        assert (row["lr"], row["rho"]) == (recipe.lr, recipe.rho)
        tasks = kept["sequences"][sequence]["tasks"]
        assert np.shape(row["accuracy"]) == (len(study.SEEDS), 1 if joint else tasks, tasks)
    again = kept["tested"][1]  # the shortest to train
    recipe = study.choose(kept["runs"], again["sequence"], again["memory"])[again["name"]]
    R = study.alone(replace(recipe, seed=3), again["sequence"], again["memory"], False)
    assert again["accuracy"][3] == R


@pytest.mark.parametrize("name", [path.stem for path in sorted(RESULTS.glob("[0-9]*.jsonl"))])
def test_the_rows_that_a_notebook_reads_are_what_training_gives(name: str) -> None:
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(0).sample(lines, 4)]
    torch.set_default_dtype(torch.float64)
    for row, kept in zip(sweep([Recipe(**r["recipe"]) for r in rows]), rows, strict=True):
        assert row["gradients"] == kept["gradients"]
        for split in ("train", "validation", "test"):
            assert row[split] == pytest.approx(kept[split], abs=1e-9)
