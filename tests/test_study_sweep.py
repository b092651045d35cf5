"""`sweep`: which runs, each of them what it is alone, and what becomes of those that fail."""

import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from problems import double_precision  # noqa: F401
from sweeps import CPU, FOUR, SHORT, alone, close, lines, run_here, weight_sum
from torch import nn

from lookbehind.optim import METHODS
from lookbehind.study import block, essence, grid, sweeps
from lookbehind.train import Recipe


def test_a_grid_is_the_product_of_its_axes_and_the_last_changes_fastest():
    found = grid(SHORT, k=range(1, 3), alpha=[0.5, "adaptive"])
    assert found == [replace(SHORT, k=k, alpha=a) for k in (1, 2) for a in (0.5, "adaptive")]
    assert grid(SHORT) == [SHORT]
    found = grid(SHORT, rho=np.linspace(0, 1, 3), seed=np.arange(2))
    assert [type(found[0].rho), type(found[0].seed)] == [float, int] and len(found) == 6


def test_recipes_that_differ_in_what_their_method_does_not_have_are_one_run():
    axes = {"k": [1, 2], "rho": [0.1, 0.2], "alpha": [0.3, "adaptive"], "eta": [0.01, 0.1]}
    counts = {"SGD": 1, "SAM": 2, "ASAM": 4, "Multistep-SAM": 8, "Lookbehind-SAM": 8}
    for method, count in {**counts, "Lookbehind-ASAM": 16}.items():
        assert len(grid(SHORT, method=[method], gradient=["last", "mean"], **axes)) == count
    assert len(grid(SHORT, method=["SGD"], k=[1, 2], lr=[0.1, 0.2], seed=[0, 1])) == 4
    assert essence(replace(SHORT, eta=3.0)) == essence(SHORT) != essence(replace(SHORT, k=3))


@pytest.mark.parametrize(
    ("axes", "kind", "message"),
    [
        ({"depth": [1]}, ValueError, "an axis must be one of dataset, .*seed, got 'depth'"),
        ({"method": "SAM"}, TypeError, "method must be a sequence of values, got 'SAM'"),
        ({"k": 3}, TypeError, "k must be a sequence of values, got 3"),
        ({"k": []}, ValueError, "k must hold at least one value"),
        ({"k": [0]}, ValueError, "k must be"),
    ],
)
def test_a_wrong_axis_is_named(axes, kind, message):
    with pytest.raises(kind, match=message):
        grid(SHORT, **axes)


def test_every_run_of_a_sweep_is_what_it_is_alone(monkeypatch):
    monkeypatch.setattr(sweeps, "MEMBERS", 2)
    recipes = []
    for rho, lr, seed, alpha in ((0.05, 0.02, 0, 0.2), (0.2, 0.05, 3, 0.9), (0.1, 0.05, 0, 1)):
        recipes += grid(SHORT, method=METHODS, rho=[rho], lr=[lr], seed=[seed], alpha=[alpha])
    recipes += [replace(SHORT, alpha="adaptive", **some) for some in ({}, {"lr": 0.1})]
    recipes += [recipes[0], replace(SHORT, lr=0.0), replace(SHORT, rho=0)]
    other = {"epochs": 3, "gradients": None, "batch_size": 15, "schedule": "multistep"}
    other |= {"label_noise": 0.2, "label_smoothing": 0.1, "model": "tiny-cnn"}
    recipes += [replace(SHORT, **other, seed=seed, lr=lr) for seed, lr in ((0, 0.01), (1, 0.02))]
    rows = run_here(recipes, measures={"sum": weight_sum})
    close(rows, [alone(recipe) for recipe in recipes])


def test_records_are_the_scores_of_each_run_on_its_way(tmp_path):
    path = tmp_path / "rows.jsonl"
    run_here(FOUR, path)
    for row, recipe in zip(run_here(FOUR, path, records=7), FOUR, strict=True):
        history = recipe.run(hardware=CPU, records=7).history  # more than there are steps
        for split in ("train", "validation", "test"):
            expected = [(r.gradients, r.loss, r.accuracy) for r in history.of(split)[1:]]
            found = [(r["gradients"], *r[split].values()) for r in row["records"]]
            assert found == [pytest.approx(some, abs=1e-10) for some in expected]
        assert row["records"][-1]["test"] == row["test"]


def test_blocks_hold_what_can_train_together_and_at_most_so_many():
    recipes = grid(SHORT, method=["SGD", "SAM"], k=[1], lr=[0.1, 0.2], seed=range(5))
    assert [len(some) for some in block.blocks(recipes, 4)] == [3, 3, 4, 3, 3, 4]
    assert [len(some) for some in block.blocks(recipes, 99)] == [10, 10]
    assert len(block.blocks(grid(SHORT, alpha=[0.1, 0.2, "adaptive"], k=[1, 2]), 99)) == 4


def test_memory_bounds_an_ensemble(monkeypatch):
    rows, room = run_here(FOUR), block._room(SHORT, SHORT.load(), CPU.device)
    monkeypatch.setattr(block, "MEMORY", 2 * block.MEMORY // room)
    with patch.object(block, "_train_ensemble", wraps=block._train_ensemble) as train:
        close(run_here(FOUR), rows)
    assert [len(call.args[0]) for call in train.call_args_list] == [2, 2]


def test_a_member_that_diverges_is_recorded_alone():
    recipes = [replace(SHORT, lr=lr, seed=s) for lr in (0.03, 1e150) for s in (0, 1)]
    for method in ("SGD", "SAM", "Lookbehind-SAM"):
        some = [replace(recipe, method=method) for recipe in recipes]
        rows = run_here(some, measures={"sum": weight_sum})
        close(rows[:2], [alone(recipe) for recipe in some[:2]])
        for row, recipe in zip(rows[2:], some[2:], strict=True):
            assert row == {"recipe": asdict(recipe), "error": row["error"]}
            assert row["error"].startswith("FloatingPointError: the loss ")
            with pytest.raises(FloatingPointError):
                alone(recipe)


# What a measure gives, and how it is read again.
RESULTS = {
    "tensor": (torch.tensor(0.5), 0.5),
    "with a gradient": (torch.tensor(0.5, requires_grad=True), 0.5),
    "vector": (torch.arange(3), [0, 1, 2]),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(3), 3),
    "array": (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
    "list": ([np.float64(1), torch.ones(1), (1, 2)], [1.0, [1.0], [1, 2]]),
    "none": (None, None),
}


def test_what_a_measure_gives_is_plain_as_it_is_read_again(tmp_path):
    measures = {name: lambda *_, value=value: value for name, (value, _) in RESULTS.items()}
    path = tmp_path / "runs.jsonl"
    (row,) = run_here(FOUR[:1], path, measures=measures)
    assert [repr(row[name]) for name in RESULTS] == [repr(plain) for _, plain in RESULTS.values()]
    assert run_here(FOUR[:1], path, measures=measures) == [row]


NO_VALUE = ArithmeticError("no value")


@pytest.mark.parametrize("value", [nn.Linear(1, 1), {1, 2}, 1j, {(1, 2): 3}, Path("a"), NO_VALUE])
def test_what_a_measure_cant_give_is_the_error_of_its_run_only(value):
    measure = Mock(side_effect=[1.0, value, 1.0, 1.0])  # given, or raised
    rows = run_here(FOUR, measures={"it": measure})
    assert not any(call.args[0].training for call in measure.call_args_list)
    assert [row.get("it") for row in rows] == [1.0, None, 1.0, 1.0]
    assert rows[1].keys() == {"recipe", "error"} and rows[1]["recipe"] == asdict(FOUR[1])
    assert rows[1]["error"].startswith(("TypeError: ", "ArithmeticError: no value"))


def test_a_block_that_fails_is_halved_until_the_guilty_are_alone(monkeypatch):
    recipes, train, sizes = grid(SHORT, seed=range(8)), block._train_ensemble, []

    def short_of_memory(some, *args):
        sizes.append(len(some))
        if any(recipe.seed in (2, 3) for recipe in some):
            raise MemoryError("too large")
        return train(some, *args)

    expected = run_here(recipes)
    monkeypatch.setattr(block, "_train_ensemble", short_of_memory)
    rows = run_here(recipes)
    assert [row.get("error") for row in rows[2:4]] == ["MemoryError: too large"] * 2
    close(rows[:2] + rows[4:], expected[:2] + expected[4:])
    assert sorted(sizes) == [1, 1, 2, 2, 4, 4, 8]


def test_wrong_arguments_are_named():
    local = {"measures": {"sum": lambda *_: 1.0}, "executor": ProcessPoolExecutor(1)}
    for recipes, options, message in (
        (["SAM"], {}, "recipes must be Recipes, got 'SAM'"),
        (FOUR, {"records": -1}, "records must be an int ≥ 0, got -1"),
        (FOUR, {"measures": {"test": weight_sum}}, "measures must be functions, under other names"),
        (FOUR, local, "measures must be functions of a module for a Process"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            run_here(recipes, **options)
    assert run_here([]) == []


def test_the_readme_finds_a_setting_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """A dozen lines of Optuna over `sweep`, run as they stand there."""
    pytest.importorskip("optuna")
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import optuna.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 14
    monkeypatch.chdir(tmp_path)
    short = partial(Recipe, train=40, batch_size=20, gradients=12)
    monkeypatch.setattr("lookbehind.train.Recipe", short)
    exec(code, {})
    rows = lines(Path("rows.jsonl"))
    best = max(rows, key=lambda row: row["validation"]["accuracy"])
    printed = capsys.readouterr().out
    assert len(rows) == 40 and printed == f"{ {'rho': best['recipe']['rho']} }\n"
    monkeypatch.setattr(sweeps, "train_block", lambda *_: pytest.fail("trained again"))
    exec(code, {})
    assert capsys.readouterr().out == printed
