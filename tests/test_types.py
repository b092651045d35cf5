"""The types: mypy runs beside the other tests, as it takes one core for half a minute."""

import subprocess
import sys
from pathlib import Path


def test_mypy_finds_nothing() -> None:
    command = [sys.executable, "-m", "mypy", "--no-error-summary"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
