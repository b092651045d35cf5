"""The stored results: each script still makes its file, and compares what it says that it does."""

import itertools
import json
import math
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from images import paint
from problems import double_precision  # noqa: F401
from sweeps import lines
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector as flat
from torch.nn.utils import vector_to_parameters

from lookbehind import Ball
from lookbehind.optim import METHODS, make_method
from lookbehind.study import sweep
from lookbehind.train import Recipe
from lookbehind.train.models import MODELS

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
# `measured` of tuned.py made them all; beside the test accuracy each tests some of the measures.
MEASURED = {
    "tuned": ("average_rise", "memorized"), "control": ("relative", "worst_rise"),
    "peers": ("absolute",), "forecast": ("lambda", "relative_rise"), "budgets": (),
    "radius": ("loss",),
}  # fmt: skip
TINY = {"dataset": "cifar10", "model": "mlp", "train": 8, "validation": 4, "test": 4}
TINY |= {"batch_size": 4, "gradients": 2}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The folder of the scripts can be imported from; what they register goes with them."""
    monkeypatch.syspath_prepend(str(RESULTS))
    with patch.dict(METHODS), patch.dict(MODELS):
        yield
    for path in RESULTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def stored(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_the_cifar_study_tunes_reports_and_goes_on_where_it_was(tmp_path, monkeypatch):
    cifar10, path = import_module("cifar10"), tmp_path / "study.jsonl"
    few = ("SGD", "Lookbehind-SAM k 2")
    monkeypatch.setattr(cifar10, "METHODS", {name: cifar10.METHODS[name] for name in few})
    monkeypatch.setattr(cifar10, "SEEDS", ((1,), ()))
    monkeypatch.setenv("LOOKBEHIND_DATA", str(tmp_path / "kept"))
    folder = str(paint(tmp_path / "images", per_class=6, size=(8, 8)))
    cifar10.study(path, folder, TINY)
    rows = lines(path)
    for name, noise in itertools.product(few, (0.4, 0.0)):
        mine = [r for r in rows if (r["name"], r["recipe"]["label_noise"]) == (name, noise)]
        [told], tried = ([r["recipe"] for r in mine if r["stage"] == stage]
                         for stage in ("report", "tuning"))  # fmt: skip
        values = [r["lr" if name == "SGD" else "rho"] for r in (told, *tried)]
        assert min(values[1:]) < values[0] < max(values[1:]) and told["seed"] == 1
        assert {r["seed"] for r in tried} == {0}
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(True)[:-1]))
    with patch.object(cifar10.Study, "made", autospec=True, side_effect=cifar10.Study.made) as made:
        cifar10.study(path, folder, TINY)
    assert made.call_count == 1
    assert [{**r, "seconds": 0} for r in lines(path)] == [{**r, "seconds": 0} for r in rows]


def test_the_rows_of_the_cifar_study_are_of_its_plan():
    cifar10, path = import_module("cifar10"), RESULTS / "cifar10.jsonl"
    for row in lines(path):
        settings = {**cifar10.COMMON, **cifar10.METHODS[row["name"]]}
        kept = settings.items() - {n: settings.get(n) for n in ("rho", "lr")}.items()
        assert kept <= row["recipe"].items()
        assert row["recipe"]["seed"] in ({0} if row["stage"] == "tuning" else {1, 2, 3, 4, 5})
        assert len(row["gradients"]) == len(row["test"]) == 6 and len(row["noisy"]) == 3
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("*.json")))
def test_a_stored_study_says_what_it_was_made_with_and_no_path(name):
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    study = json.loads(text)
    assert all(study[key] for key in ("commit", "torch", "hardware", "seeds", "common"))
    assert "/" not in text.replace("at lr/k", "").replace(f"notebooks/results/{name}.py", "")
    assert len(text) < {"atlas": 170_000, "lifelong": 125_000}.get(name, 150_000)


@pytest.mark.parametrize("name", MEASURED)
def test_a_network_of_a_study_trained_again_measures_the_same(name):
    script, study, chance = import_module(name), stored(name), random.Random(1)
    row, i = chance.choice(study["runs"]), chance.randrange(len(study["seeds"]))
    recipe = Recipe(**{**study["common"], **row["settings"]})
    assert recipe.label_noise == row["label_noise"]
    measures = getattr(script, "MEASURES", import_module("tuned").MEASURES)
    few = {n: measures[n] for n in MEASURED[name]}
    [found] = script.measured([recipe], sweep, [study["seeds"][i]], few)
    few = {n: [pytest.approx(row[n][i], rel=2e-3)] for n in ("test", *few)}
    assert found == {"diverged": 0, **few}


def test_the_lines_are_of_the_tuned_runs_and_lie_around_their_networks():
    script, study, whole = import_module("lines"), stored("lines"), stored("tuned")
    kept = [row for row in whole["runs"] if row["name"] in script.NAMES]
    assert len(study["runs"]) == len(kept) == 28
    for row, of in zip(study["runs"], kept, strict=True):
        assert {n: row[n] for n in script.KEPT} == {n: of[n] for n in script.KEPT}
        assert [row[n] for n in script.MEASURED] == [of[n][:5] for n in script.MEASURED]
    row, i = random.Random(2).choice(study["runs"]), 3
    recipe = Recipe(**{**study["common"], **row["settings"], "seed": study["seeds"][i]})
    [found] = sweep([recipe], measures={"around": script.around})
    expected = np.add(row["rise"][i], row["loss"][i])
    assert found["around"] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", ["tuned", "peers", "budgets"])
def test_what_was_chosen_lies_inside_the_grid_and_is_what_was_measured(name):
    study = stored(name)
    assert not {*study["seeds"]} & {*study["tuning_seeds"]}
    for grid in study["tuning"]:
        means = [sum(values) for values in grid["validation"]]
        assert means[grid["best"]] == pytest.approx(max(means))
        keys = ("name", "budget", "label_noise")
        [row] = [r for r in study["runs"] if all(r[n] == grid[n] for n in keys)]
        for axis in ("lr", "rho", "weight_decay"):
            if axis in grid:
                best = grid[axis][grid["best"]]
                assert min(grid[axis]) < best < max(grid[axis])
                assert row["settings"].get(axis, study["common"][axis]) == best


def test_the_controlled_are_the_winners():
    control, study = import_module("control"), stored("control")
    expected = [
        (of, recipe.label_noise, name)
        for of, recipe in control.winners()
        for name in [recipe.method, *(control.matched(recipe) if recipe.k > 1 else [])]
    ]
    assert [(row["of"], row["label_noise"], row["name"]) for row in study["runs"]] == expected


def test_a_step_of_one_size_on_every_k_of_the_grid():
    steps, study, chance = import_module("steps"), stored("steps"), random.Random(0)
    run, i, j = chance.choice(study["runs"]), chance.randrange(8), chance.randrange(8)
    recipe = steps.point(run["label_noise"], run["k"], study["radii"][i], study["steps"][j])
    assert recipe.alpha * recipe.k * recipe.lr == pytest.approx(study["steps"][j], rel=1e-3)
    rows = sweep([replace(recipe, seed=seed) for seed in study["seeds"]])
    for split in ("validation", "test"):
        found = [steps.accuracy(row, split) for row in rows]
        assert run[split][i][j] == pytest.approx(np.mean(found), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "count", "some", "seeds"),
    [
        ("atlas", 576, [random.Random(0).randrange(576)], slice(None)),
        ("memorized", 66, [1, 33], slice(2, 3)),
        ("noise", 40, [0], slice(4, 5)),
        ("landscape", 6, [0], slice(3, 4)),
    ],
)
def test_a_table_holds_what_training_gives(name, count, some, seeds, tmp_path, monkeypatch):
    script, path, whole = import_module(name), tmp_path / "study.json", stored(name)
    settings = script.settings()
    assert len(whole["runs"]) == len(settings) == count
    monkeypatch.setattr("stored.workers", ThreadPoolExecutor)
    monkeypatch.setattr(script, "settings", lambda: [settings[n] for n in some])
    monkeypatch.setattr(script, "SEEDS", script.SEEDS[seeds])
    script.study(path, 1)
    made = json.loads(path.read_text(encoding="utf-8"))
    for run, n in zip(made.pop("runs"), some, strict=True):
        kept = whole["runs"][n].items()
        assert run == {k: v[seeds] if isinstance(v, list) else v for k, v in kept}
    assert made.pop("seeds") == whole["seeds"][seeds]
    for key in made.keys() - {"commit", "torch", "hardware"}:
        assert made[key] == whole[key]


def test_ranks_as_members_of_an_ensemble_climb_apart_and_give_the_stored_accuracies():
    ranks, whole = import_module("ranks"), stored("ranks")
    points = itertools.product(ranks.settings(), ranks.LRS, ranks.RADII)
    for run, (s, lr, rho) in zip(whole["runs"], points, strict=True):
        assert ranks.named(s, lr=lr, rho=rho).items() <= run.items()
    row = ranks.best(whole["runs"], ("SAM", 0.4, 2))
    kept = next(r for r in whole["tested"] if (r["label_noise"], r["ranks"]) == (0.4, 2))
    assert (kept["lr"], kept["rho"]) == (row["lr"], row["rho"]) and len(kept["test"]) == 10
    recipe = ranks.recipe_of("SAM", 0.4, row["lr"])
    made = ranks.accuracies("test", recipe, ranks.TESTED_ON[:2], [row["rho"]], 2)
    assert made == [kept["test"][:2]]


def test_two_ranks_in_one_process_are_two_shares_by_hand():
    recipe = replace(import_module("ranks").COMMON, method="SAM", rho=0.1, epochs=1)
    [[network]], [data] = import_module("ranks").trained(recipe, [0], [0.1], 2)
    model = recipe.make_model(data)

    def gradient(at, images, labels):
        vector_to_parameters(at, model.parameters())
        loss = cross_entropy(model(images), labels)
        return flat(torch.autograd.grad(loss, [*model.parameters()]))

    w, v = flat(model.parameters()).detach(), 0
    for t, (images, labels) in enumerate(recipe.batches(data)):
        there = []
        for share in zip(images.chunk(2), labels.chunk(2), strict=True):
            own = gradient(w, *share)
            there.append(gradient(w + recipe.rho * own / own.norm(), *share))
        v = recipe.momentum * v + sum(there) / 2 + recipe.weight_decay * w
        w = w - recipe.lr * (1 + math.cos(math.pi * t / 10)) / 2 * v
    torch.testing.assert_close(flat(network.parameters()), w, rtol=0, atol=1e-10)


def test_the_stored_lifelong_study_is_whole_and_its_matrices_are_of_the_settings_chosen():
    study, kept = import_module("lifelong"), stored("lifelong")
    assert Recipe(**kept["common"]) == study.COMMON
    assert (kept["methods"], kept["sequences"]) == (study.METHODS, study.SEQUENCES)
    points = [(row["name"], row["budget"], row["sequence"], row["memory"]) for row in kept["runs"]]
    axes = study.METHODS, study.BUDGETS, study.SEQUENCES, study.MEMORIES
    assert points == [*itertools.product(*axes)]
    for row in kept["runs"]:
        pairs = study.pairs(row["name"])
        assert list(zip(row["lr"], row["rho"], strict=True)) == pairs
        assert np.shape(row["validation"]) == (len(pairs), len(study.SEEDS))
        assert len(row["forgetting"]) == len(pairs)
    for row in kept["tested"]:
        sequence, memory = row["sequence"], row["memory"]
        joint = row["name"] == "joint training"
        recipes = study.choose(kept["runs"], sequence, 50 if joint else memory)
        recipe = recipes["SGD" if joint else row["name"]]
        assert (row["lr"], row["rho"]) == (recipe.lr, recipe.rho)
        tasks = study.SEQUENCES[sequence]["tasks"]
        assert np.shape(row["accuracy"]) == (len(study.SEEDS), 1 if joint else tasks, tasks)
    again = kept["tested"][1]  # the shortest to train
    recipe = study.choose(kept["runs"], again["sequence"], again["memory"])[again["name"]]
    seed = kept["tested_seeds"][3]
    R, told = study.alone(replace(recipe, seed=seed), again["sequence"], again["memory"], False)
    assert (again["accuracy"][3], again["told"][3]) == (R, told)


@pytest.mark.parametrize("name", [path.stem for path in sorted(RESULTS.glob("[0-9]*.jsonl"))])
def test_the_rows_that_a_notebook_reads_are_what_training_gives(name):
    rows = random.Random(0).sample(lines(RESULTS / f"{name}.jsonl"), 2)
    for row, kept in zip(sweep([Recipe(**r["recipe"]) for r in rows]), rows, strict=True):
        assert row["gradients"] == kept["gradients"]
        for split in ("train", "validation", "test"):
            assert row[split] == pytest.approx(kept[split], abs=1e-9)


BOWL = torch.tensor([1.0, 5.0], dtype=torch.float64)


def bowl(w, _):
    return (BOWL * w * w).sum() / 2


def walk(method, loss, steps, **base):
    """The points (steps + 1, 2) of a method of SGD, on a loss of weights and number of the step."""
    w = torch.nn.Parameter(torch.tensor([1.0, 0.5]))
    optimizer, points = method(torch.optim.SGD([w], **base)), [w.detach().clone()]

    def closure():
        optimizer.zero_grad()
        value = loss(w, len(points) - 1)
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(closure)
        points.append(w.detach().clone())
    return torch.stack(points)


def test_looksam_at_every_minibatch_is_sam_and_between_them_keeps_the_part_aside():
    method = partial(import_module("peers").LookSAM, ball=Ball(0.2), every=2, alpha=0.7)
    for n, (point, after) in enumerate(itertools.pairwise(walk(method, bowl, 4, lr=0.1))):
        g = BOWL * point
        there = BOWL * (point + 0.2 * g / g.norm())
        if n % 2 == 0:
            aside = there - (there @ g) / (g @ g) * g
        else:
            there = g + 0.7 * g.norm() / aside.norm() * aside
        torch.testing.assert_close(after, point - 0.1 * there)


def test_momentum_sam_climbs_against_its_momentum():
    method, v = partial(import_module("peers").MomentumSAM, ball=Ball(0.2), k=1), 0 * BOWL
    for point, after in itertools.pairwise(walk(method, bowl, 4, lr=0.1, momentum=0.9)):
        aside = 0.2 * v / v.norm() if v.any() else v
        v = 0.9 * v + BOWL * (point - aside)
        torch.testing.assert_close(after, point - 0.1 * v)


def path_of(recipe, loss, steps):
    """The points (steps + 1, 2) of the recipe's method."""
    settings = {n: getattr(recipe, n) for n in ("rho", "k", "alpha", "gradient")}
    method = partial(make_method, recipe.method, **settings)
    return walk(method, loss, steps, lr=recipe.lr, momentum=recipe.momentum)


@pytest.mark.parametrize("k", [2, 5])
def test_the_matched_control_moves_as_far_by_a_minibatch_and_forgets_as_fast(k):
    """A gradient at the first minibatch only, and how it goes on to move the weights."""
    ours, slope, found = Recipe(k=k, alpha=1 / k, lr=0.1, rho=0.05), torch.tensor([3.0, 4.0]), {}
    for name, recipe in {"ours": ours, **import_module("control").matched(ours)}.items():
        points = path_of(recipe, lambda w, n: (slope * w).sum() * (n == 0), 150)
        moves = points.diff(dim=0)[:, 1]
        found[name] = float(moves.sum()), float(moves[3] / moves[2])
    total, decay = found["ours"]
    assert decay == pytest.approx(0.9**k)
    for name in ("SAM, matched", "mean-Multistep, matched"):
        assert found[name] == pytest.approx((total, decay))
    for name in ("SAM, old momentum", "mean-Multistep, old momentum"):
        assert found[name] == pytest.approx((total, 0.9))


def test_the_matched_control_has_the_same_path_on_a_quadratic_to_first_order():
    def apart(recipe, steps):
        control = import_module("control").matched(recipe)["SAM, matched"]
        distance = path_of(recipe, bowl, steps) - path_of(control, bowl, steps)
        return float(distance.norm(dim=1).max())

    ours = Recipe(k=3, alpha=0.5, lr=0.002, rho=0.02)
    far, near = apart(ours, 40), apart(replace(ours, lr=0.001), 80)
    assert near < 0.6 * far < 0.6 * 0.03


def test_ascents_meet_the_maximum_where_they_must():
    """On a slope all gradients point there; on a bowl the first ascent turns most of the way."""
    angles = import_module("ascents").angles
    w, scale = torch.tensor([1.0, 0.2]), torch.tensor([1, 9])
    assert max(angles(lambda p: (scale * p).sum(-1), w, 0.1)) < 1e-4
    first, *rest = angles(lambda p: (scale * p * p).sum(-1) / 2, w, 0.5)
    assert first > 2 * max(rest)
