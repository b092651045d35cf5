"""The CIFAR-10 study that notebooks 04 and 05 show: every method on equal gradients, three seeds.

usage: python notebooks/results/cifar10.py [DATASET] [--out FILE] [--jobs N]

DATASET is cifar10 (downloaded where it is missing) or a folder of its images: train/<class>/...
and test/<class>/.... A small ResNet trains on 3,000 images, 40 % of them under a wrong label. Runs
that FILE holds already are not made again, so an interrupted study goes on where it was. About
twenty minutes on two CPU cores.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import stored
import torch
from tqdm import tqdm

from lookbehind import Ball
from lookbehind.explore.shared import values
from lookbehind.measure import worst_rise
from lookbehind.train import Recipe, choose_hardware, evaluation_batches

SEEDS = (0, 1, 2)
SHARPNESS_RADIUS = 0.05
COMMON = {
    "model": "micro-resnet8", "train": 3000, "validation": 1000, "test": 3000,
    "label_noise": 0.4, "lr": 0.1, "batch_size": 128, "gradients": 900,
}  # fmt: skip
# The method's settings, and the radii of which the validation images of the first seed choose one.
METHODS = {
    "SGD": ({"method": "SGD"}, [0.0]),
    "SAM": ({"method": "SAM"}, [0.1, 0.2]),
    "ASAM": ({"method": "ASAM"}, [1.0, 2.0]),
    "Multistep-SAM k 2": ({"method": "Multistep-SAM"}, [0.05, 0.1]),
    "Lookbehind-SAM k 2": ({"method": "Lookbehind-SAM"}, [0.1, 0.2]),
    "Lookbehind-SAM k 2 adaptive": ({"method": "Lookbehind-SAM", "alpha": "adaptive"}, [0.1, 0.2]),
    "Lookbehind-SAM k 5": ({"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2}, [0.05, 0.1]),
    "Lookbehind-ASAM k 2": ({"method": "Lookbehind-ASAM"}, [1.0, 2.0]),
}


def first_runs(dataset, **changes):
    """(name, recipe) of every method and radius, at the first seed."""
    common = {**COMMON, "dataset": dataset, "seed": SEEDS[0]}
    for name, (settings, radii) in METHODS.items():
        for rho in radii:
            yield name, Recipe(**{**common, **settings, "rho": rho, **changes})


def other_runs(plan, rows):
    """The same at the other seeds, with the radius that was best at the first."""
    for name in METHODS:
        mine = [row for row in rows if row["name"] == name and row["seed"] == SEEDS[0]]
        best = max(mine, key=lambda row: values(row, "validation")[-1])
        recipe = next(recipe for n, recipe in plan if n == name and recipe.rho == best["rho"])
        for seed in SEEDS[1:]:
            yield name, replace(recipe, seed=seed)


def measure(name, recipe, threads):
    """One run as a row of the file: settings, scores at every record, sharpness, seconds."""
    torch.set_num_threads(threads)
    hardware = choose_hardware()
    dataset = recipe.load(device=hardware.device)
    start = time.perf_counter()
    outcome = recipe.run(hardware=hardware, dataset=dataset, records=5)
    seconds = time.perf_counter() - start
    batches = evaluation_batches(dataset)["train"]
    sharpness = worst_rise(outcome.model, batches, Ball(SHARPNESS_RADIUS))
    return {
        "name": name, **key(recipe), "seconds": round(seconds, 1), "sharpness": sharpness,
        "records": outcome.history.rows(),
    }  # fmt: skip


def key(recipe):
    """What tells one run of the study from the others."""
    names = ("method", "k", "rho", "alpha", "gradient", "seed")
    return {name: getattr(recipe, name) for name in names}


def read(path, common):
    """The rows of an earlier, interrupted study; refuses a file of another one."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["common"] != common:
        raise SystemExit(f"{path} holds a study of other settings: choose another --out")
    return found["runs"]


def write(path, common, rows):
    order = [*METHODS]
    rows = sorted(rows, key=lambda row: (order.index(row["name"]), row["rho"], row["seed"]))
    head = {"common": common, "sharpness_radius": SHARPNESS_RADIUS, "seeds": SEEDS}
    stored.write(path, head, rows, choose_hardware())


def study(dataset, path, jobs, **changes):
    """Make every run that `path` doesn't hold yet, `jobs` at a time, and write each as it comes."""
    plan = list(first_runs(dataset, **changes))
    mine = {*key(plan[0][1]), "dataset"}
    common = {name: value for name, value in asdict(plan[0][1]).items() if name not in mine}
    rows = read(path, common)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Spawned: a fork of a process that has used CUDA, or several threads, may hang.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for runs in (lambda: plan, lambda: other_runs(plan, rows)):
            done = [{name: row[name] for name in key(plan[0][1])} for row in rows]
            left = [(name, recipe) for name, recipe in runs() if key(recipe) not in done]
            made = [pool.submit(measure, name, recipe, threads) for name, recipe in left]
            for run in tqdm(as_completed(made), total=len(made), unit=" runs"):
                rows.append(run.result())
                write(path, common, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="cifar10")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    jobs = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=jobs, help="runs at a time")
    options = parser.parse_args()
    study(options.dataset, options.out, options.jobs)


if __name__ == "__main__":
    main()
