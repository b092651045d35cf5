"""The sweep behind notebook 08: radius and weight decay for noisy weights, on digits.

usage: python notebooks/results/noise.py [--out FILE] [--jobs N]

As digits.py at equal steps, and like it the file holds accuracies on the validation images only:
without noise, and the mean under five draws of relative and of absolute noise of the weights.
About three minutes on two CPU cores.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import stored
import torch
from digits import BUDGETS, COMMON, CPU, METHODS, SEEDS
from tqdm import tqdm

from lookbehind.measure import weight_noise

EQUAL_STEPS = replace(COMMON, **BUDGETS["equal steps"])
DECAYS = (0.0005, 0.005, 0.01, 0.02, 0.04)
RADII = {
    "SGD": (0.2,),  # it has none
    "SAM": (0.1, 0.14, 0.2, 0.28, 0.4),
    "Lookbehind-SAM k 5": (0.035, 0.05, 0.07, 0.1, 0.14),
}
LEVELS = {"none": 0.0, "relative": 0.7, "absolute": 0.1}


def settings():
    """(name, changes to `EQUAL_STEPS`) of every point of the sweep."""
    for name, radii in RADII.items():
        method = METHODS.get(name, {"method": name})
        for decay, rho in product(DECAYS, radii):
            yield name, {**method, "rho": rho, "weight_decay": decay}


def accuracies(recipe):
    """On the validation images, at the end of training, a value a kind of noise."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    dataset = recipe.load()
    try:
        model = recipe.run(hardware=CPU, records=1, dataset=dataset).model
    except FloatingPointError:  # it diverged
        return [0.0 for _ in LEVELS]
    batches = list(dataset.validation.batches(1000))
    found = [
        weight_noise(model, batches, [level], relative=kind != "absolute", draws=5).mean[0]
        for kind, level in LEVELS.items()
    ]
    return [round(float(value), 4) for value in found]


def sweep(jobs):
    """One row a setting: for each kind of noise, the accuracies of all seeds."""
    points = list(settings())
    recipes = [replace(EQUAL_STEPS, seed=s, **changes) for _, changes in points for s in SEEDS]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        runs = pool.map(accuracies, recipes, chunksize=5)
        found = list(tqdm(runs, total=len(recipes), unit=" runs"))
    for number, (name, changes) in enumerate(points):
        some = zip(*found[number * len(SEEDS) : (number + 1) * len(SEEDS)], strict=True)
        yield {"name": name, "settings": changes, **dict(zip(LEVELS, some, strict=True))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    options = parser.parse_args()
    head = {"common": asdict(EQUAL_STEPS), "seeds": SEEDS, "levels": LEVELS}
    stored.write(options.out, head, list(sweep(options.jobs)), CPU)


if __name__ == "__main__":
    main()
