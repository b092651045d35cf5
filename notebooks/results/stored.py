"""What the scripts beside it share: their options, the rows of runs, and the file of a study."""

import argparse
import json
import os
import subprocess
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from lookbehind.files import written_whole
from lookbehind.study import sweep
from lookbehind.train import Hardware

CPU = Hardware(torch.device("cpu"))


def options(text, script):
    """A parser with --out, beside the script, and --jobs; `text` is the script's docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(script).with_suffix(".json"))
    jobs = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=jobs, help="processes")
    return parser


def workers(jobs):
    """Processes. Spawned: a fork of one that has used CUDA, or several threads, may hang."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def rows_of(path):
    """The file of finished runs, there until the study `path` is whole: the same call goes on."""
    return path.with_suffix(".jsonl")


@contextmanager
def sweeps(path, jobs):
    """A `sweep` on the CPU over processes, whose finished runs lie beside `path`."""
    with workers(jobs) as pool:
        options = {"executor": pool, "progress": True, "hardware": CPU}
        yield partial(sweep, path=rows_of(path), **options)


def trained(recipes, path, jobs, **options):
    """A row of `sweep`, whose `options` they are, for each recipe."""
    with sweeps(path, jobs) as run:
        return run(recipes, **options)


def diverged(row):
    """Whether its numbers were no longer finite; any other failure of a run ends the study."""
    error = row.get("error", "")
    if error and not error.startswith("FloatingPointError"):
        raise SystemExit(f"{row['recipe']} failed: {error}")
    return bool(error)


def write(path, head, runs, hardware, **more):
    """Replace `path`, whole and at once: `head`, the commit, torch and the hardware, and the `runs`
    and other lists, a row a line."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    made = {"commit": commit.stdout.strip(), "torch": torch.__version__}
    head = {**head, **made, "hardware": f"{hardware}, {os.cpu_count()} cores"}
    text = json.dumps(head, indent=1)[:-2]
    for name, rows in {"runs": runs, **more}.items():
        text += f',\n "{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]"
    with written_whole(path) as file:
        file.write((text + "}\n").encode())
    rows_of(path).unlink(missing_ok=True)
