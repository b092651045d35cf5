"""`search`: chosen on validation images, kept on disk, continued after a kill."""

import multiprocessing
import sqlite3
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from problems import double_precision, one_thread  # noqa: F401

from lookbehind.study import SweepError, sweep
from lookbehind.study import search as module
from lookbehind.study.axes import LogUniform, Uniform
from lookbehind.study.search import Found, search
from lookbehind.train import Hardware, Recipe

pytest.importorskip("optuna")

CPU = Hardware(torch.device("cpu"))
SHORT = Recipe(train=40, batch_size=20, gradients=12, validation=50)
AXES: dict[str, Any] = {"rho": LogUniform(0.01, 0.5), "alpha": [0.2, "adaptive"], "k": range(1, 3)}
look = partial(search, SHORT, hardware=CPU, seeds=(0, 1), **AXES)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Found]:
    path = tmp_path_factory.mktemp("search") / "a" / "search.db"
    return path, look(path, trials=20)


def test_the_best_trial_is_that_of_the_highest_mean_validation_accuracy(
    found: tuple[Path, Found],
) -> None:
    best = found[1]
    assert len(best.trials) == 20
    assert best.validation == max(trial["validation"] for trial in best.trials)
    for trial in best.trials[:2] + best.trials[-2:]:
        recipe = Recipe(**trial["recipe"])
        assert replace(recipe, k=2, alpha=0.5, rho=0.2) == SHORT
        rows = sweep([replace(recipe, seed=s) for s in (0, 1)], hardware=CPU)
        assert trial["accuracies"] == [row["validation"]["accuracy"] for row in rows]
        assert trial["validation"] == fmean(trial["accuracies"])
    chosen = [t for t in best.trials if Recipe(**t["recipe"]) == best.recipe]
    assert chosen[0]["validation"] == best.validation


def test_trials_stay_within_their_axes(found: tuple[Path, Found]) -> None:
    recipes = [Recipe(**trial["recipe"]) for trial in found[1].trials]
    assert all(0.01 <= r.rho <= 0.5 for r in recipes) and len({r.rho for r in recipes}) == 20
    assert {r.k for r in recipes} == {1, 2} and {r.alpha for r in recipes} == {0.2, "adaptive"}


def test_a_search_of_learning_rates_finds_the_one_that_learns(tmp_path: Path) -> None:
    base = replace(SHORT, gradients=60, method="SGD")
    best = search(base, tmp_path / "s.db", trials=10, seeds=[0], lr=[1e-6, 0.1, 1e160],
                  hardware=CPU)  # fmt: skip
    assert best.recipe.lr == 0.1 and best.validation > 0.4
    diverged = [t for t in best.trials if t["recipe"]["lr"] == 1e160]
    assert diverged and {t["validation"] for t in diverged} == {0.0}


def test_a_search_that_ended_is_read_and_goes_further(
    found: tuple[Path, Found], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, before = tmp_path / "search.db", found[1]
    path.write_bytes(found[0].read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(module, "sweep", None)
        assert look(path, trials=20) == before
        assert len(look(path, trials=5).trials) == 5
    assert look(path, trials=21).trials[:20] == before.trials


def test_a_search_of_another_setting_is_refused(found: tuple[Path, Found]) -> None:
    path, options = found[0], {"trials": 20, "hardware": CPU, "seeds": (0, 1)}
    others: list[tuple[str, dict[str, Any]]] = [
        ("axes", {**AXES, "rho": Uniform(0.01, 0.5)}),
        ("axes", {**AXES, "lr": [0.1]}),
        ("seeds", {**AXES, "seeds": (0, 2)}),
        ("base", {**AXES, "base": replace(SHORT, method="Multistep-SAM"), "alpha": None}),
        ("base", {**AXES, "base": replace(SHORT, lr=0.1)}),
    ]
    for name, other in others:
        with pytest.raises(SweepError, match=f"search.db holds a search with other .*{name}"):
            search(path=path, **{"base": SHORT, **options, **other})


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello, " * 200)
    with pytest.raises(SweepError, match=r"notes.txt is no search"):
        look(path, trials=1)
    assert path.read_text() == "hello, " * 200


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    go = partial(search, path=tmp_path / "s.db", trials=1, hardware=CPU)
    with pytest.raises(ValueError, match=r"axes of SAM are rho, lr; got .'k'"):
        go(replace(SHORT, method="SAM"), k=[1, 2])
    with pytest.raises(ValueError, match="axes of Lookbehind-SAM are k, rho, alpha, lr; got "):
        go(SHORT)
    with pytest.raises(ValueError, match="validation of base must be ≥ 1 to choose by, got 0"):
        go(replace(SHORT, validation=0), lr=[0.1])
    with pytest.raises(ValueError, match="trials must be an int ≥ 1, got 0"):
        go(SHORT, lr=[0.1], trials=0)
    with pytest.raises(ValueError, match="seeds must hold at least one"):
        go(SHORT, lr=[0.1], seeds=[])
    with pytest.raises(SweepError, match=r"a run failed .DataError: dataset must be"):
        go(replace(SHORT, dataset=str(tmp_path / "none")), lr=[0.1])


def endless(path: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    look(path, trials=100_000)


def test_a_search_that_is_killed_goes_on_and_no_two_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    searcher = multiprocessing.get_context("forkserver").Process(target=endless, args=(path,))
    searcher.start()
    while not complete(path):
        assert searcher.is_alive()
        time.sleep(0.05)
    with pytest.raises(SweepError, match=r"search.db is used by another search"):
        look(path, trials=1)
    searcher.kill()
    searcher.join()
    kept = complete(path)
    best = look(path, trials=kept + 3)
    assert len(best.trials) == kept + 3 == complete(path)


def complete(path: Path) -> int:
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        query = "SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'"
        return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0
    finally:
        connection.close()
