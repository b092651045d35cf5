"""`sweep`: every run is what it is alone, whoever trains it, and whatever is killed on the way."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import double_precision, one_thread  # noqa: F401
from torch import nn

from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS, Ball
from lookbehind.study import SweepError, essence, grid, on_train, sweep
from lookbehind.study import block as block_module
from lookbehind.study import sweeps as module
from lookbehind.study.axes import LogUniform, Uniform, sample
from lookbehind.train import Hardware, Recipe
from lookbehind.train.data import Dataset

CPU = Hardware(torch.device("cpu"))
SHORT = Recipe(train=40, batch_size=20, gradients=12, validation=20)
FOUR = grid(SHORT, rho=[0.05, 0.1], seed=[0, 1])


def weight_sum(model: nn.Module, dataset: Dataset) -> float:
    return float(sum(p.detach().sum() for p in model.parameters())) + len(dataset.train)


def deadly(flag: Path, model: nn.Module, dataset: Dataset) -> float:
    """Kills its own process, the first time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return weight_sum(model, dataset)


def process_settings(model: nn.Module, dataset: Dataset) -> float:
    return torch.get_num_threads() + 10 * torch.get_default_dtype().itemsize


def refuses(model: nn.Module, dataset: Dataset) -> float:
    raise ArithmeticError("no value")


run_here = partial(sweep, hardware=CPU)
# Workers that have imported torch when they start.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["lookbehind.study.sweeps", "torch._dynamo", "sklearn.datasets"])


def close(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        assert row["recipe"] == other["recipe"]
        for name in row.keys() - {"recipe"}:
            assert row[name] == pytest.approx(other[name], abs=1e-10)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Which runs


def test_a_grid_is_the_product_of_its_axes_and_the_last_changes_fastest() -> None:
    found = grid(SHORT, k=range(1, 3), alpha=[0.5, "adaptive"])
    assert found == [replace(SHORT, k=k, alpha=a) for k in (1, 2) for a in (0.5, "adaptive")]
    assert grid(SHORT) == [SHORT]


def test_recipes_that_differ_in_what_their_method_does_not_have_are_one_run() -> None:
    axes = {"k": [1, 2], "rho": [0.1, 0.2], "alpha": [0.3, "adaptive"], "eta": [0.01, 0.1]}
    counts = {m: len(grid(SHORT, method=[m], gradient=["last", "mean"], **axes))
              for m in METHODS if m != "Lookahead-SAM"}  # fmt: skip
    assert counts == {
        "SGD": 1, "SAM": 2, "ASAM": 4, "Multistep-SAM": 8, "Lookbehind-SAM": 8,
        "Lookbehind-ASAM": 16,
    }  # fmt: skip
    assert len(grid(SHORT, method=["SGD"], k=[1, 2], lr=[0.1, 0.2], seed=[0, 1])) == 4
    assert essence(replace(SHORT, eta=3.0)) == essence(SHORT) != essence(replace(SHORT, k=3))


def test_a_grid_takes_numpys_arrays() -> None:
    np = pytest.importorskip("numpy")
    found = grid(SHORT, rho=np.linspace(0, 1, 3), seed=np.arange(2))
    assert [type(found[0].rho), type(found[0].seed)] == [float, int] and len(found) == 6


def test_a_sample_is_drawn_by_its_seed_within_its_ranges() -> None:
    axes: dict[str, Any] = {"rho": LogUniform(0.01, 1), "lr": Uniform(0.1, 0.2), "k": [1, 2, 5]}
    found = sample(SHORT, 200, **axes)
    assert found == sample(SHORT, 200, **axes) != sample(SHORT, 200, seed=1, **axes)
    assert all(0.01 <= r.rho <= 1 and 0.1 <= r.lr <= 0.2 for r in found)
    assert 70 <= sum(r.rho < 0.1 for r in found) <= 130  # half of them: the median is at 0.1
    assert {r.k for r in found} == {1, 2, 5}
    assert len(sample(SHORT, 50, k=[1, 2])) == 2


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
def test_a_wrong_axis_is_named(axes: dict[str, Any], kind: type[Exception], message: str) -> None:
    for make in (grid, partial(sample, count=2)):
        with pytest.raises(kind, match=message):
            make(base=SHORT, **axes)
    with pytest.raises(ValueError, match="low must be > 0 and ≤ high, got 0 and 1"):
        LogUniform(0, 1)


# Each run is what it is alone


def alone(recipe: Recipe) -> dict[str, Any]:
    outcome = recipe.run(hardware=CPU, records=1)
    last = {name: outcome.history.last(name) for name in ("train", "validation", "test")}
    scores = {n: {"loss": r.loss, "accuracy": r.accuracy} for n, r in last.items()}
    sums = weight_sum(outcome.model, recipe.load())
    row = {"recipe": asdict(recipe), "gradients": last["train"].gradients, **scores}
    return {**row, "sum": sums}


def test_every_run_of_a_sweep_is_what_it_is_alone() -> None:
    values = [{"rho": 0.05, "lr": 0.02, "seed": 0, "alpha": 0.2},
              {"rho": 0.2, "lr": 0.05, "seed": 3, "alpha": 0.9},
              {"rho": 0.1, "lr": 0.05, "seed": 0, "alpha": 1}]  # fmt: skip
    recipes = [replace(SHORT, method=method, **some) for some in values for method in METHODS]
    recipes += [replace(SHORT, alpha="adaptive", **some) for some in ({}, {"lr": 0.1})]
    recipes += [recipes[0], replace(SHORT, lr=0.0), replace(SHORT, rho=0)]
    rows = run_here(recipes, measures={"sum": weight_sum}, members=2)
    close(rows, [alone(recipe) for recipe in recipes])


def test_a_budget_of_epochs_smoothing_noise_and_a_schedule_are_the_recipes() -> None:
    recipe = replace(
        SHORT, epochs=3, gradients=None, label_noise=0.2, label_smoothing=0.1,
        schedule="multistep", model="tiny-cnn", batch_size=15,
    )  # fmt: skip
    recipes = grid(recipe, seed=[0, 1], lr=[0.01, 0.02])
    close(run_here(recipes, measures={"sum": weight_sum}), [alone(r) for r in recipes])


def test_blocks_hold_what_can_train_together_and_at_most_so_many() -> None:
    recipes = grid(SHORT, method=["SGD", "SAM"], k=[1], lr=[0.1, 0.2], seed=range(5))
    assert [len(block) for block in block_module._blocks(recipes, 4)] == [3, 3, 4, 3, 3, 4]
    assert [len(block) for block in block_module._blocks(recipes, 99)] == [10, 10]
    assert len(block_module._blocks(grid(SHORT, alpha=[0.1, 0.2, "adaptive"], k=[1, 2]), 99)) == 4


def test_memory_bounds_an_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sizes, train = run_here(FOUR), [], block_module._train_ensemble
    room = block_module._room(SHORT, SHORT.load(), CPU.device)
    monkeypatch.setattr(block_module, "MEMORY", 2 * block_module.MEMORY // room)

    def note(recipes: list[Recipe], *args: Any) -> Any:
        sizes.append(len(recipes))
        return train(recipes, *args)

    monkeypatch.setattr(block_module, "_train_ensemble", note)
    close(run_here(FOUR), rows)
    assert sizes == [2, 2]


# Failures


def test_a_member_that_diverges_is_recorded_alone() -> None:
    recipes = [replace(SHORT, lr=lr, seed=s) for lr in (0.03, 1e150) for s in (0, 1)]
    for method in ("SGD", "SAM", "Lookbehind-SAM"):
        some = [replace(recipe, method=method) for recipe in recipes]
        rows = run_here(some, measures={"sum": weight_sum})
        close(rows[:2], [alone(recipe) for recipe in some[:2]])
        for row, recipe in zip(rows[2:], some[2:], strict=True):
            assert row.keys() == {"recipe", "error"} and row["recipe"] == asdict(recipe)
            assert row["error"].startswith("FloatingPointError: the loss ")
            with pytest.raises(FloatingPointError):
                alone(recipe)


def test_a_measure_that_raises_costs_its_own_run_only() -> None:
    calls = iter(range(4))

    def refuses_one(model: nn.Module, dataset: Dataset) -> float:
        assert not model.training
        return 1.0 if next(calls) != 2 else refuses(model, dataset)

    rows = run_here(FOUR, measures={"one": refuses_one})
    failed = {"recipe": asdict(FOUR[2]), "error": "ArithmeticError: no value"}
    assert [row.get("one", row) for row in rows] == [1.0, 1.0, failed, 1.0]


def test_a_dataset_that_cannot_be_had_is_the_error_of_its_runs(tmp_path: Path) -> None:
    missing = replace(SHORT, dataset=str(tmp_path / "none"))
    rows = run_here([missing, *FOUR])
    assert rows[0]["error"].startswith("DataError: dataset must be")
    assert not any("error" in row for row in rows[1:])


def test_a_block_that_fails_is_halved_until_the_guilty_are_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes, train, sizes = grid(SHORT, seed=range(8)), block_module._train_ensemble, []

    def short_of_memory(some: list[Recipe], *args: Any) -> Any:
        sizes.append(len(some))
        if any(recipe.seed in (2, 3) for recipe in some):
            raise MemoryError("too large")
        return train(some, *args)

    expected = run_here(recipes)
    monkeypatch.setattr(block_module, "_train_ensemble", short_of_memory)
    rows = run_here(recipes)
    assert [row.get("error") for row in rows[2:4]] == ["MemoryError: too large"] * 2
    close(rows[:2] + rows[4:], expected[:2] + expected[4:])
    assert sorted(sizes) == [1, 1, 2, 2, 4, 4, 8]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="recipes must be Recipes, got 'SAM'"):
        run_here(["SAM"])
    with pytest.raises(ValueError, match="members must be an int ≥ 1, got 0"):
        run_here(FOUR, members=0)
    with pytest.raises(ValueError, match="measures must be functions, under other names than"):
        run_here(FOUR, measures={"test": weight_sum})
    pool = ProcessPoolExecutor(1, mp_context=FORKS)
    with pytest.raises(TypeError, match="measures must be functions of a module for a Process"):
        run_here(FOUR, measures={"sum": lambda model, dataset: 1.0}, executor=pool)
    assert run_here([]) == []


# The file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "runs.jsonl"
    run_here(FOUR, path)
    return path


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*args: Any) -> None:
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr(module, "_trained", lambda blocks, *args: no() if blocks else [])


def test_a_finished_sweep_is_read_from_its_file(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    before = finished.read_bytes()
    order = [*FOUR[::-1], replace(FOUR[0], eta=0.7)]
    assert run_here(order, finished) == [*lines(finished)[::-1], lines(finished)[0]]
    assert finished.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 100, -12, -1])
def test_a_line_that_was_cut_short_is_made_again(finished: Path, tmp_path: Path, cut: int) -> None:
    path, whole = tmp_path / "runs.jsonl", finished.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(whole[: last + cut] if cut > 0 else whole[:cut])
    close(run_here(FOUR, path), lines(finished))
    close(lines(path), lines(finished))


@pytest.mark.parametrize(
    "text", ["hello", "a,b\n1,2\n", '{"recipe": {}, "x"\n', '{"recipe": {"depth": 3}}\n', "[1]\n",
             '{"recipe": 3}\n', "\n", '{"recipes": []}', '{"recipe": {"k": 0}}\n', "\xff\n"]
)  # fmt: skip
def test_a_file_of_anything_else_is_refused_and_left(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(SweepError, match=r"must hold rows of a sweep only, got .* byte 0"):
        run_here(FOUR, path)
    assert path.read_bytes() == text.encode("latin1")


def test_failed_runs_are_repeated_where_asked(tmp_path: Path) -> None:
    path, recipe = tmp_path / "a" / "runs.jsonl", replace(SHORT, dataset=str(tmp_path / "none"))
    (failed,) = run_here([recipe], path)
    assert "error" in failed
    fixed = {**alone(replace(SHORT, seed=1)), "recipe": asdict(recipe)}
    assert run_here([recipe], path) == lines(path) == [failed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_train", lambda recipes, task: [fixed])
        assert run_here([recipe], path, retry_failed=True) == [fixed]
    assert lines(path) == [failed, fixed]
    assert run_here([recipe], path) == [fixed]


def test_a_row_that_lacks_a_measure_is_made_again_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    run_here(FOUR[:1], path, measures={"sum": weight_sum})
    (row,) = run_here(FOUR[:1], path, measures={"settings": process_settings})
    assert {"sum", "settings", "test"} <= row.keys() and len(lines(path)) == 2
    both = {"sum": weight_sum, "settings": process_settings}
    assert run_here(FOUR[:1], path, measures=both) == [row] == lines(path)[1:]


def elsewhere(recipes: list[Recipe], path: Path) -> Any:
    """A process of its own, that sweeps one run at a time."""
    process = FORKS.Process(target=sweep_slowly, args=(recipes, path))
    process.start()
    return process


def sweep_slowly(recipes: list[Recipe], path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    run_here(recipes, path, members=1)


def wait_for_lines(path: Path, count: int, process: Any) -> None:
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.is_alive()
        time.sleep(0.01)


def test_two_sweeps_may_share_a_file(tmp_path: Path) -> None:
    path, recipes = tmp_path / "runs.jsonl", grid(replace(SHORT, gradients=60), seed=range(12))
    other = elsewhere(recipes, path)
    wait_for_lines(path, 1, other)
    rows = run_here(recipes[::-1], path, members=1)
    other.join()
    assert other.exitcode == 0
    found = lines(path)
    assert len(found) == 12
    close(sorted(found, key=lambda row: row["recipe"]["seed"]), rows[::-1])


# Kills


def test_a_sweep_that_is_killed_goes_on(tmp_path: Path) -> None:
    path, long = tmp_path / "runs.jsonl", replace(SHORT, gradients=300)
    sweeper = elsewhere(grid(long, seed=range(200)), path)
    wait_for_lines(path, 2, sweeper)
    sweeper.kill()
    sweeper.join()
    kept = lines(path)
    assert 2 <= len(kept) < 200
    recipes = grid(long, seed=range(len(kept) + 2))
    rows = run_here(recipes, path)
    assert rows[: len(kept)] == kept
    close(rows, run_here(recipes))


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    runs = count()

    def press(model: nn.Module, dataset: Dataset) -> float:
        if next(runs) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)  # the signal ends it
        return weight_sum(model, dataset)

    with pytest.raises(KeyboardInterrupt):
        run_here(FOUR, path, members=1, measures={"sum": press})
    assert [row["recipe"] for row in lines(path)] == [asdict(recipe) for recipe in FOUR[:2]]
    assert not any("error" in row for row in lines(path))
    rows = run_here(FOUR, path, measures={"sum": weight_sum})
    assert rows[:2] == lines(path)[:2]


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=FORKS)


def test_a_sharpness_is_measured_on_the_training_images_by_any_process() -> None:
    measures = {"rise": on_train(worst_rise, ball=Ball(0.1))}
    with pool() as two:
        rows = run_here(FOUR, executor=two, measures=measures)
    for recipe, row in zip(FOUR, rows, strict=True):
        outcome = recipe.run(hardware=CPU, records=1)
        expected = worst_rise(outcome.model, recipe.load().train.batches(7), Ball(0.1))
        assert row["rise"] == pytest.approx(expected, rel=1e-8)


def test_a_broken_pool_is_no_failure_of_the_runs_and_a_new_one_goes_on(tmp_path: Path) -> None:
    path, flag = tmp_path / "runs.jsonl", tmp_path / "flag"
    deadly_once = partial(deadly, flag)
    measures = {"sum": deadly_once, "settings": process_settings}
    with pool() as first:
        run_here(FOUR[:1], path, executor=first, measures={"settings": process_settings})
        message = r"killed; 0 of 4 runs are in .*runs.jsonl: the same call with a new executor"
        with pytest.raises(SweepError, match=message):
            run_here(FOUR, path, executor=first, measures=measures)
    assert not any("error" in row for row in lines(path))
    with pool() as second:
        rows = run_here(FOUR, path, executor=second, measures=measures, members=3)
        failed = run_here(FOUR, executor=second, measures={"none": refuses})
    close(rows, [{**alone(recipe), "settings": 1 + 80} for recipe in FOUR])
    assert [row["error"] for row in failed] == ["ArithmeticError: no value"] * 4


@pytest.fixture
def cluster() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
            protocol="tcp://", dashboard_address=None, silence_logs=60,
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):  # fmt: skip
        yield client.get_executor()


def test_a_dask_worker_that_is_killed_loses_nothing(cluster: Executor, tmp_path: Path) -> None:
    flag, path = tmp_path / "flag", tmp_path / "runs.jsonl"
    measures = {"sum": partial(deadly, flag), "settings": process_settings}
    rows = run_here(FOUR, path, executor=cluster, measures=measures, members=1)
    assert flag.exists()
    close(rows, [{**alone(recipe), "settings": 1 + 80} for recipe in FOUR])
    assert len(lines(path)) == 4
