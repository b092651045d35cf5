"""`python -m lookbehind train` in processes of its own: Ctrl-C, and two that train together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import torch
from test_command_line import SMALL, command, history_in, in_an_empty_folder  # noqa: F401
from training import same

from lookbehind.train import read_checkpoint
from lookbehind.train.journal import CHECKPOINT


def test_ctrl_c_keeps_the_run_and_resume_goes_on_bit_for_bit(tmp_path):
    """SIGINT to a run of its own process, once its first epoch is on the disk."""
    arguments, file = f"{SMALL} --epochs 30", tmp_path / "said"
    words = ["train", *arguments.split(), "--out", str(tmp_path / "a")]
    process = forks.start(forks.unhurried, *words, said=file)
    deadline = time.monotonic() + 120
    while not Path("a", CHECKPOINT).exists() and process.is_alive():
        assert time.monotonic() < deadline, "no checkpoint after two minutes"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    process.kill()
    said = file.read_text(encoding="utf-8")
    assert process.exitcode == 130
    assert "Stopped" in said and "the same command and --resume" in said
    stopped = history_in("a")
    assert stopped["summary"]["state"] == "stopped"
    assert 1 <= len(stopped["records"]) // 3 - 1 < 30
    assert command(arguments, "--out a --resume --quiet").exit_code == 0
    assert command(arguments, "--out b --quiet").exit_code == 0
    assert history_in("a") == history_in("b")
    assert same(*(read_checkpoint(Path(folder, CHECKPOINT))["model"] for folder in "ab"))


TRAIN = """
import sys, time
from contextlib import suppress
from pathlib import Path
from lookbehind.__main__ import main
from lookbehind.train import Ranks

def threads():
    count = 0
    for file in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            count += "gloo" in file.read_text()
    return count

leave, before = Ranks.leave, []
Ranks.leave = lambda ranks: (before.append(threads()), leave(ranks))
try:
    main()
except SystemExit as end:
    code = end.code
deadline = time.monotonic() + 5
while threads() and time.monotonic() < deadline:  # one that has ended is listed for a moment
    time.sleep(0.01)
sys.exit(code or threads() or (sys.platform == "linux" and not before[0] and "no threads"))
"""


def test_two_processes_of_torchrun_leave_what_one_does_and_no_thread():
    """One of them speaks and writes; a single process can go on with their checkpoint.

    A thread of gloo that lets go of a tensor while the interpreter ends aborts the process.
    """
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += ["--monitor-interval=0.1", "--no-python", sys.executable, "-c", TRAIN]
    words += ["train", *SMALL.split(), "--batch-size=24", "--device=cpu", "--out=two"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, env=env, timeout=300, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    alone = command(SMALL, "--batch-size 24 --out one").output
    lines = done.stdout.splitlines()
    assert len(lines) == len(alone.splitlines()) and lines[2].endswith(", in 2 processes")
    before = history_in("two")
    for ours, theirs in zip(before["records"], history_in("one")["records"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert command(SMALL, "--batch-size 24 --out two --resume").exit_code == 0
    assert history_in("two")["records"] == before["records"]
    one, two = (read_checkpoint(Path(folder, CHECKPOINT)) for folder in ("one", "two"))
    assert one["position"] == two["position"]
    torch.testing.assert_close(two["model"], one["model"], rtol=0, atol=1e-5)
