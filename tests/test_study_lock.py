"""`study`: the lock beside the file of a sweep, and places where none can be made."""

import threading
import time
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


@pytest.mark.usefixtures("hasty")
def test_a_lock_that_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    with filelock.FileLock(tmp_path / ".rows.jsonl.lock"):
        refused(path, "rows.jsonl.lock")
    assert len(sweep([SHORT], path=path)) == 1  # the others' lock was left to them
    (tmp_path / ".folder.jsonl.lock").mkdir()
    refused(tmp_path / "folder.jsonl", "Is a directory")
    if Path("/proc/self").exists():  # a folder where no file can be made
        refused(Path("/proc/rows.jsonl"), "lock")

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("flock")  # a disk without locks

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    refused(path, "flock")


def test_a_lock_that_others_have_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    lock, start = filelock.FileLock(tmp_path / ".rows.jsonl.lock", thread_local=False), time.time()
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    assert len(sweep([SHORT], path=tmp_path / "rows.jsonl")) == 1
    assert time.time() > start + 0.5


def test_an_error_while_the_lock_is_held_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is full"), rows._locked(tmp_path / "rows.jsonl"):
        raise OSError("disk is full")
