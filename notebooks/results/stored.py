"""The file of a study: what it was made with, then a line a run."""

import json
import os
import subprocess
from pathlib import Path

import torch


def write(path, head, rows, hardware):
    """Replace `path`, whole and at once: `head`, the commit, torch and the hardware, and `rows`."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    made = {"commit": commit.stdout.strip(), "torch": torch.__version__}
    head = {**head, **made, "hardware": f"{hardware}, {os.cpu_count()} cores"}
    lines = ",\n".join(json.dumps(row) for row in rows)
    part = path.with_suffix(".part")
    text = json.dumps(head, indent=1)[:-2] + ',\n "runs": [\n' + lines + "\n]}\n"
    part.write_text(text, encoding="utf-8")
    part.replace(path)
