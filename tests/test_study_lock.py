"""`study`: the lock beside the file of a sweep, and places where none can be made."""

import multiprocessing
from pathlib import Path

import filelock
import pytest

from lookbehind.study import SweepError, rows, sweep
from lookbehind.train import Recipe

SHORT = Recipe(train=60, gradients=4)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PATIENCE", 0.3)


def refused(path: Path, words: str) -> None:
    with pytest.raises(SweepError, match=rf"{path} cannot be locked \(.*{words}.*give a path in"):
        sweep([SHORT], path=path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder where no file can be made")
@pytest.mark.usefixtures("hasty")
def test_a_folder_where_no_file_can_be_made_is_said() -> None:
    refused(Path("/proc/rows.jsonl"), "lock")


@pytest.mark.usefixtures("hasty")
def test_a_lock_that_others_keep_is_said_and_left_to_them(tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".rows.jsonl.lock"):
        refused(tmp_path / "rows.jsonl", "rows.jsonl.lock")
    assert len(sweep([SHORT], path=tmp_path / "rows.jsonl")) == 1


def test_a_lock_that_is_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / ".rows.jsonl.lock").mkdir()
    refused(tmp_path / "rows.jsonl", "Is a directory")


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), NotImplementedError("flock")])
def test_a_disk_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    refused(tmp_path / "rows.jsonl", str(error.args[-1]))


def keep(path: Path, seconds: float, kept: object) -> None:
    import time

    with filelock.FileLock(path):
        kept.set()  # type: ignore[attr-defined]
        time.sleep(seconds)


def test_a_lock_that_others_have_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    kept = context.Event()
    process = context.Process(target=keep, args=(tmp_path / ".rows.jsonl.lock", 0.5, kept))
    process.start()
    assert kept.wait(120)
    assert len(sweep([SHORT], path=tmp_path / "rows.jsonl")) == 1
    process.join()


def test_an_error_while_the_lock_is_held_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is full"), rows._locked(tmp_path / "rows.jsonl"):
        raise OSError("disk is full")
