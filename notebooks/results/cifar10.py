"""The CIFAR-10 study that notebooks 04 and 05 show: every method on equal gradients, three seeds.

usage: python notebooks/results/cifar10.py [DATASET] [--out FILE] [--jobs N]

DATASET is cifar10 (downloaded where it is missing) or a folder of its images: train/<class>/...
and test/<class>/.... A small ResNet trains on 3,000 images, 40 % of them under a wrong label. An
interrupted study goes on where it was. About twenty minutes on two CPU cores.
"""

import os
import time
from concurrent.futures import as_completed
from dataclasses import asdict, replace

import stored
import torch
from tqdm import tqdm

from lookbehind import Ball
from lookbehind.explore.shared import values
from lookbehind.measure import worst_rise
from lookbehind.study import Rows
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


def other_runs(plan, kept):
    """The same at the other seeds, with the radius that was best at the first."""
    for name in METHODS:
        mine = [recipe for n, recipe in plan if n == name]
        best = max(mine, key=lambda recipe: values(kept.of(recipe), "validation")[-1])
        for seed in SEEDS[1:]:
            yield name, replace(best, seed=seed)


def measure(recipe, threads):
    """A run as a row: scores at every record, which `sweep` doesn't give, sharpness, seconds."""
    torch.set_num_threads(threads)
    hardware = choose_hardware()
    dataset = recipe.load(device=hardware.device)
    start = time.perf_counter()
    outcome = recipe.run(hardware=hardware, dataset=dataset, records=5)
    seconds = time.perf_counter() - start
    batches = evaluation_batches(dataset)["train"]
    sharpness = worst_rise(outcome.model, batches, Ball(SHARPNESS_RADIUS))
    return {
        "recipe": asdict(recipe), "seconds": round(seconds, 1), "sharpness": sharpness,
        "records": outcome.history.rows(),
    }  # fmt: skip


def key(recipe):
    """What tells one run of the study from the others."""
    names = ("method", "k", "rho", "alpha", "gradient", "seed")
    return {name: getattr(recipe, name) for name in names}


def study(dataset, path, jobs, **changes):
    """Make every run that is not kept yet, `jobs` at a time, and keep each as it comes."""
    plan = list(first_runs(dataset, **changes))
    kept = Rows(stored.rows_of(path))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with stored.workers(jobs) as pool:
        for runs in (lambda: plan, lambda: other_runs(plan, kept)):
            left = [recipe for _, recipe in runs() if kept.of(recipe) is None]
            made = [pool.submit(measure, recipe, threads) for recipe in left]
            for run in tqdm(as_completed(made), total=len(made), unit=" runs"):
                kept.append([run.result()])
    write(path, [*plan, *other_runs(plan, kept)], kept)


def write(path, runs, kept):
    order, mine = [*METHODS], {*key(runs[0][1]), "dataset"}
    runs = sorted(runs, key=lambda run: (order.index(run[0]), run[1].rho, run[1].seed))
    common = {name: v for name, v in asdict(runs[0][1]).items() if name not in mine}
    head = {"common": common, "sharpness_radius": SHARPNESS_RADIUS, "seeds": SEEDS}
    rows = [{"name": name, **key(recipe), **kept.of(recipe)} for name, recipe in runs]
    rows = [{name: v for name, v in row.items() if name != "recipe"} for row in rows]
    stored.write(path, head, rows, choose_hardware())


if __name__ == "__main__":
    parser = stored.options(__doc__, __file__)
    parser.add_argument("dataset", nargs="?", default="cifar10")
    given = parser.parse_args()
    study(given.dataset, given.out, given.jobs)
