"""The file of a sweep: what was finished is kept, whoever trains, and whatever is killed."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import Mock, patch

import filelock
import forks
import pytest
import torch
from problems import double_precision  # noqa: F401
from sweeps import FOUR, SHORT, alone, close, lines, run_here, weight_sum

from lookbehind.study import SweepError, grid, sweeps


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "runs.jsonl"
    run_here(FOUR, path)
    return path


def test_a_finished_sweep_is_read_from_its_file(finished, monkeypatch):
    monkeypatch.setattr(sweeps, "train_block", lambda *_: pytest.fail("trained again"))
    before = finished.read_bytes()
    order = [*FOUR[::-1], replace(FOUR[0], eta=0.7)]
    assert run_here(order, finished) == [*lines(finished)[::-1], lines(finished)[0]]
    assert finished.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 100, -12, -1])
def test_a_line_that_was_cut_short_is_made_again(finished, tmp_path, cut):
    path, whole = tmp_path / "runs.jsonl", finished.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(whole[: last + cut] if cut > 0 else whole[:cut])
    close(run_here(FOUR, path), lines(finished))
    close(lines(path), lines(finished))


@pytest.mark.parametrize(
    "text", ["hello", "a,b\n1,2\n", '{"recipe": {}, "x"\n', '{"recipe": {"depth": 3}}\n', "[1]\n",
             '{"recipe": 3}\n', "\n", '{"recipes": []}', '{"recipe": {"k": 0}}\n', "\xff\n"]
)  # fmt: skip
def test_a_file_of_anything_else_is_refused_and_left(text, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(SweepError, match=r"must hold rows of a sweep only, got .* byte 0"):
        run_here(FOUR, path)
    assert path.read_bytes() == text.encode("latin1")


def test_a_run_without_its_dataset_fails_alone_and_is_repeated_once_its_line_is_deleted(tmp_path):
    path, recipe = tmp_path / "a" / "runs.jsonl", replace(SHORT, dataset=str(tmp_path / "none"))
    recipes = [recipe, replace(SHORT, seed=2**64), *FOUR]  # of one block but the first
    failed, other, *good = rows = run_here(recipes, path)
    assert failed["error"].startswith("DataError: dataset must be")
    assert "Overflow" in other["error"]
    assert not any("error" in row for row in good)
    assert run_here(recipes, path) == rows
    assert len(lines(path)) == 6 and failed in lines(path)
    path.write_text("")
    fixed = {**alone(replace(SHORT, seed=1)), "recipe": asdict(recipe)}
    with patch.object(sweeps, "train_block", lambda recipes, *_: [fixed]):
        assert run_here([recipe], path) == lines(path) == [fixed]


def process_settings(model, dataset):
    return torch.get_num_threads() + 10 * torch.get_default_dtype().itemsize


def test_a_row_that_lacks_a_measure_is_made_again_and_keeps_the_others(tmp_path):
    path = tmp_path / "runs.jsonl"
    run_here(FOUR[:1], path, measures={"sum": weight_sum})
    (row,) = run_here(FOUR[:1], path, measures={"settings": process_settings})
    assert {"sum", "settings", "test"} <= row.keys() and len(lines(path)) == 2
    both = {"sum": weight_sum, "settings": process_settings}
    assert run_here(FOUR[:1], path, measures=both) == [row] == lines(path)[1:]


def elsewhere(recipes, path, count):
    """A process that sweeps one run at a time, and has written `count` lines, or ended."""
    process = forks.CONTEXT.Process(target=sweep_slowly, args=(recipes, path))
    process.start()
    while process.is_alive() and not (path.exists() and path.read_bytes().count(b"\n") >= count):
        time.sleep(0.01)
    return process


def sweep_slowly(recipes, path):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    sweeps.MEMBERS = 1
    run_here(recipes, path)


def test_two_sweeps_may_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "MEMBERS", 1)
    path, recipes = tmp_path / "runs.jsonl", grid(SHORT, seed=range(6))
    other = elsewhere(recipes, path, 1)
    rows = run_here(recipes[::-1], path)
    other.join()
    assert other.exitcode == 0
    close(sorted(lines(path), key=lambda row: row["recipe"]["seed"]), rows[::-1])


def refused(path, words):
    with pytest.raises(SweepError, match=rf"{path} cannot be locked \(.*{words}.*give a path in"):
        run_here(FOUR[:1], path)


def test_a_lock_that_cannot_be_had_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "PATIENCE", 0.3)
    path = tmp_path / "rows.jsonl"
    with filelock.FileLock(tmp_path / ".rows.jsonl.lock"):
        refused(path, "rows.jsonl.lock")
    assert len(run_here(FOUR[:1], path)) == 1  # the others' lock was left to them
    (tmp_path / ".folder.jsonl.lock").mkdir()
    refused(tmp_path / "folder.jsonl", "Is a directory")
    if Path("/proc/self").exists():  # a folder where no file can be made
        refused(Path("/proc/rows.jsonl"), "lock")
    no_locks = Mock(side_effect=NotImplementedError("flock"))  # of a disk
    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    refused(path, "flock")


def test_a_lock_that_others_have_for_a_moment_is_waited_for(tmp_path):
    lock, start = filelock.FileLock(tmp_path / ".rows.jsonl.lock", thread_local=False), time.time()
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    assert len(run_here(FOUR[:1], tmp_path / "rows.jsonl")) == 1
    assert time.time() > start + 0.5


def test_an_error_while_the_lock_is_held_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="disk is full"), sweeps._locked(tmp_path / "rows.jsonl"):
        raise OSError("disk is full")


def test_a_sweep_that_is_killed_goes_on(tmp_path):
    path, long = tmp_path / "runs.jsonl", replace(SHORT, gradients=60)
    sweeper = elsewhere(grid(long, seed=range(200)), path, 2)
    sweeper.kill()
    sweeper.join()
    kept = lines(path)
    assert 2 <= len(kept) < 200
    recipes = grid(long, seed=range(len(kept) + 2))
    rows = run_here(recipes, path)
    assert rows[: len(kept)] == kept
    close(rows, run_here(recipes))


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "MEMBERS", 1)
    path, runs = tmp_path / "runs.jsonl", count()

    def press(model, dataset):
        if next(runs) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)  # the signal ends it
        return weight_sum(model, dataset)

    with pytest.raises(KeyboardInterrupt):
        run_here(FOUR, path, measures={"sum": press})
    assert [row["recipe"] for row in lines(path)] == [asdict(recipe) for recipe in FOUR[:2]]
    assert not any("error" in row for row in lines(path))
    assert run_here(FOUR, path, measures={"sum": weight_sum})[:2] == lines(path)[:2]


pool = partial(ProcessPoolExecutor, 2, mp_context=forks.CONTEXT)


def deadly(flag, model, dataset):
    """Kills its own process, the first time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return weight_sum(model, dataset)


def test_a_broken_pool_is_no_failure_of_the_runs_and_a_new_one_goes_on(tmp_path):
    path = tmp_path / "runs.jsonl"
    measures = {"sum": partial(deadly, tmp_path / "flag"), "settings": process_settings}
    with pool() as first:
        run_here(FOUR[:1], path, executor=first, measures={"settings": process_settings})
        with pytest.raises(SweepError) as broken:
            run_here(FOUR, path, executor=first, measures=measures)
    done = sum("sum" in row for row in lines(path))  # the other worker may have been faster
    words = rf"killed; {done} of 4 runs are in .*runs.jsonl: the same call with a new executor"
    assert done <= 2 and re.search(words, str(broken.value))
    assert not any("error" in row for row in lines(path))
    with pool() as second:
        rows = run_here(FOUR, path, executor=second, measures=measures)
        failed = run_here(FOUR, executor=second, measures={"none": len})
    close(rows, [{**alone(recipe), "settings": 1 + 80} for recipe in FOUR])
    assert all(row["error"].startswith("TypeError: len() takes") for row in failed)
