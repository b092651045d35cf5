"""The stored results: the script beside each still makes them, and the files hold what they say."""

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lookbehind import Ball
from lookbehind.optim import make_method
from lookbehind.study import lifelong, sweep
from lookbehind.study.lifelong import learn, permuted
from lookbehind.train import Recipe

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
TINY = {
    "dataset": "cifar10",
    "model": "mlp",
    "train": 8,
    "validation": 4,
    "test": 4,
    "batch_size": 4,
    "gradients": 2,
}


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


def test_the_cifar_study_tunes_reports_and_goes_on_where_it_was(
    scripts: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar10, path = import_module("cifar10"), tmp_path / "study.jsonl"
    few = ("SGD", "Lookbehind-SAM k 2")
    monkeypatch.setattr(cifar10, "METHODS", {name: cifar10.METHODS[name] for name in few})
    monkeypatch.setattr(cifar10, "SEEDS", ((1,), ()))
    cifar10.study(path, str(folder), TINY)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for name in few:
        for noise in (0.4, 0.0):
            mine = [r for r in rows if (r["name"], r["recipe"]["label_noise"]) == (name, noise)]
            [told], tried = (
                [r for r in mine if r["stage"] == stage] for stage in ("report", "tuning")
            )
            axis = "lr" if name == "SGD" else "rho"
            value = {"SGD": told["recipe"]["lr"]}.get(name, told["recipe"]["rho"])
            ends = [r["recipe"][axis] for r in tried]
            assert min(ends) < value < max(ends) and told["recipe"]["seed"] == 1
            assert {r["recipe"]["seed"] for r in tried} == {0}
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    made, make = list[Recipe](), cifar10.Study.made
    monkeypatch.setattr(cifar10.Study, "made", lambda of, r: made.append(r) or make(of, r))
    cifar10.study(path, str(folder), TINY)
    assert len(made) == 1
    again = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in rows]


def test_the_rows_of_the_cifar_study_are_of_its_plan(scripts: None) -> None:
    cifar10, path = import_module("cifar10"), RESULTS / "cifar10.jsonl"
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        settings = {**cifar10.COMMON, **cifar10.METHODS[row["name"]]}
        tuned = {"rho", "lr"}
        assert {n: row["recipe"][n] for n in settings.keys() - tuned} == {
            n: v for n, v in settings.items() if n not in tuned
        }
        seeds = {0} if row["stage"] == "tuning" else {1, 2, 3, 4, 5}
        assert row["recipe"]["seed"] in seeds
        assert len(row["gradients"]) == len(row["test"]) == 6 and len(row["noisy"]) == 3
    assert path.stat().st_size < 150_000


MEASURED = ("tuned", "control", "peers", "forecast")


@pytest.mark.parametrize("name", [*MEASURED, "steps", "ascents"])
def test_a_stored_study_says_what_it_was_made_with_and_no_path(name: str) -> None:
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    study = json.loads(text)
    assert all(study[key] for key in ("commit", "torch", "hardware", "seeds", "common"))
    assert "/" not in text.replace("images/s", "")
    assert len(text) < 150_000


@pytest.mark.parametrize("name", MEASURED)
def test_a_network_of_a_study_trained_again_measures_the_same(scripts: None, name: str) -> None:
    script, study, chance = import_module(name), stored(name), random.Random(1)
    row, i = chance.choice(study["runs"]), chance.randrange(len(study["seeds"]))
    recipe = Recipe(**{**study["common"], **row["settings"]})
    assert recipe.label_noise == row["label_noise"]
    torch.set_default_dtype(torch.float64)
    measures = getattr(script, "MEASURES", import_module("tuned").MEASURES)
    [found] = script.measured([recipe], sweep, [study["seeds"][i]], measures)
    assert {n: v for n, v in found.items() if n != "diverged"} == {
        n: [pytest.approx(row[n][i], rel=2e-3)] for n in found if n != "diverged"
    }


@pytest.mark.parametrize("name", ["tuned", "peers"])
def test_what_was_chosen_lies_inside_the_grid_and_is_what_was_measured(
    scripts: None, name: str
) -> None:
    study, axes = stored(name), ("lr", "rho", "weight_decay")
    assert not {*study["seeds"]} & {*study["tuning_seeds"]}
    for grid in study["tuning"]:
        means = [sum(values) for values in grid["validation"]]
        assert means[grid["best"]] == pytest.approx(max(means))
        keys = ("name", "budget", "label_noise")
        [row] = [r for r in study["runs"] if all(r[n] == grid[n] for n in keys)]
        for axis in axes:
            if axis in grid:
                best = grid[axis][grid["best"]]
                assert min(grid[axis]) < best < max(grid[axis])
                assert row["settings"].get(axis, study["common"][axis]) == best


def test_the_controlled_are_the_winners(scripts: None) -> None:
    control, study = import_module("control"), stored("control")
    expected = [
        (of, recipe.label_noise, name)
        for of, recipe in control.winners()
        for name in [recipe.method, *(control.matched(recipe) if recipe.k > 1 else [])]
    ]
    assert [(row["of"], row["label_noise"], row["name"]) for row in study["runs"]] == expected


def test_a_step_of_one_size_on_every_k_of_the_grid(scripts: None) -> None:
    steps, study = import_module("steps"), stored("steps")
    torch.set_default_dtype(torch.float64)
    chance = random.Random(0)
    run, i, j = chance.choice(study["runs"]), chance.randrange(8), chance.randrange(8)
    recipe = steps.point(run["label_noise"], run["k"], study["radii"][i], study["steps"][j])
    assert recipe.alpha * recipe.k * recipe.lr == pytest.approx(study["steps"][j], rel=1e-3)
    rows = sweep([replace(recipe, seed=seed) for seed in study["seeds"]])
    for split in ("validation", "test"):
        found = [steps.accuracy(row, split) for row in rows]
        assert run[split][i][j] == pytest.approx(np.mean(found), abs=1e-4)


def test_ascents_meet_the_maximum_where_they_must(scripts: None) -> None:
    """On a slope all gradients point there; on a bowl the first ascent turns most of the way."""
    ascents = import_module("ascents")
    w = torch.tensor([1.0, 0.2], dtype=torch.float64)
    scale = torch.tensor([1.0, 9.0], dtype=torch.float64)
    assert max(ascents.angles(lambda p: (scale * p).sum(-1), w, 0.1)) < 1e-4
    first, *rest = ascents.angles(lambda p: (scale * p * p).sum(-1) / 2, w, 0.5)
    assert first > 2 * max(rest)
    study = stored("ascents")
    assert len(study["toys"]) == 2 * len(ascents.TOYS) and len(study["runs"]) == 90


def test_looksam_at_every_minibatch_is_sam_and_between_them_keeps_the_part_aside(
    scripts: None,
) -> None:
    peers = import_module("peers")
    H = torch.diag(torch.tensor([1.0, 5.0], dtype=torch.float64))
    w = torch.nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))
    optimizer = peers.LookSAM(torch.optim.SGD([w], lr=0.1), Ball(0.2), every=2, alpha=0.7)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = w @ H @ w / 2
        loss.backward()
        return loss

    point = w.detach().clone()
    for n in range(4):
        optimizer.step(closure)
        g = H @ point
        there = H @ (point + 0.2 * g / g.norm())
        if n % 2 == 0:
            aside = there - (there @ g) / (g @ g) * g
        else:
            there = g + 0.7 * g.norm() / aside.norm() * aside
        point = point - 0.1 * there
        torch.testing.assert_close(w.detach(), point)


def test_momentum_sam_climbs_against_its_momentum(scripts: None) -> None:
    peers = import_module("peers")
    w = torch.nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))
    base = torch.optim.SGD([w], lr=0.1, momentum=0.9)
    optimizer = peers.MomentumSAM(base, Ball(0.2), k=1)
    scale = torch.tensor([1.0, 5.0], dtype=torch.float64)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (scale * w * w).sum() / 2
        loss.backward()
        return loss

    point, v = w.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for _ in range(4):
        optimizer.step(closure)
        aside = 0.2 * v / v.norm() if v.any() else v
        v = 0.9 * v + scale * (point - aside)
        point = point - 0.1 * v
        torch.testing.assert_close(w.detach(), point)


def path_of(recipe: Recipe, loss: Callable[[Tensor, int], Tensor], steps: int) -> Tensor:
    """The points (steps + 1, 2) of the recipe's method on a loss of the weights and the step."""
    w = torch.nn.Parameter(torch.tensor([1.0, -0.5], dtype=torch.float64))
    base = torch.optim.SGD([w], lr=recipe.lr, momentum=recipe.momentum)
    settings = {n: getattr(recipe, n) for n in ("rho", "k", "alpha", "gradient")}
    optimizer, points = make_method(recipe.method, base, **settings), [w.detach().clone()]

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(w, len(points) - 1)
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)
        points.append(w.detach().clone())
    return torch.stack(points)


@pytest.mark.parametrize("k", [2, 5])
def test_the_matched_control_moves_as_far_by_a_minibatch_and_forgets_as_fast(
    scripts: None, k: int
) -> None:
    """A gradient at the first minibatch only, and how it goes on to move the weights."""
    ours = Recipe(k=k, alpha=1 / k, lr=0.1, rho=0.05)
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = {}
    for name, recipe in {"ours": ours, **import_module("control").matched(ours)}.items():
        points = path_of(recipe, lambda w, n: (slope * w).sum() * (n == 0), 120)
        moves = points.diff(dim=0)[:, 1]
        found[name] = float(moves.sum()), float(moves[3] / moves[2])
    total, decay = found["ours"]
    assert decay == pytest.approx(0.9**k)
    for name in ("SAM, matched", "mean-Multistep, matched"):
        assert found[name] == pytest.approx((total, decay))
    for name in ("SAM, old momentum", "mean-Multistep, old momentum"):
        assert found[name] == pytest.approx((total, 0.9))


def test_the_matched_control_has_the_same_path_on_a_quadratic_to_first_order(
    scripts: None,
) -> None:
    ours = Recipe(k=3, alpha=0.5, lr=0.002, rho=0.02)
    scale = torch.tensor([1.0, 4.0], dtype=torch.float64)

    def apart(recipe: Recipe, steps: int) -> float:
        paths = [
            path_of(some, lambda w, _: (scale * w * w).sum() / 2, steps)
            for some in (recipe, import_module("control").matched(recipe)["SAM, matched"])
        ]
        return float((paths[0] - paths[1]).norm(dim=1).max())

    far, near = apart(ours, 40), apart(replace(ours, lr=0.001), 80)
    assert near < 0.6 * far < 0.6 * 0.03


def test_the_atlas_holds_what_training_gives(
    scripts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas, path, whole = import_module("atlas"), tmp_path / "atlas.json", stored("atlas")
    settings, size = atlas.settings(), (RESULTS / "atlas.json").stat().st_size
    assert len(whole["runs"]) == len(settings) == 576 and size < 400_000
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    some = random.Random(0).sample(range(len(settings)), 3)
    monkeypatch.setattr(atlas, "settings", lambda: [settings[n] for n in some])
    atlas.study(path, 1)
    made = json.loads(path.read_text(encoding="utf-8"))
    assert made["runs"] == [whole["runs"][n] for n in some]
    for name in ("common", "axes", "seeds", "noise", "radius", "command"):
        assert made[name] == whole[name]
    assert whole["commit"] and whole["torch"] and whole["hardware"]


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
    seed = kept["tested_seeds"][3]
    R, told = study.alone(replace(recipe, seed=seed), again["sequence"], again["memory"], False)
    assert (again["accuracy"][3], again["told"][3]) == (R, told)


@pytest.mark.parametrize("name", [path.stem for path in sorted(RESULTS.glob("[0-9]*.jsonl"))])
def test_the_rows_that_a_notebook_reads_are_what_training_gives(name: str) -> None:
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in random.Random(0).sample(lines, 4)]
    torch.set_default_dtype(torch.float64)
    for row, kept in zip(sweep([Recipe(**r["recipe"]) for r in rows]), rows, strict=True):
        assert row["gradients"] == kept["gradients"]
        for split in ("train", "validation", "test"):
            assert row[split] == pytest.approx(kept[split], abs=1e-9)
