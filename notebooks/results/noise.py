"""The sweep behind notebook 08: radius and weight decay for noisy weights, on digits.

usage: python notebooks/results/noise.py [--out FILE] [--jobs N]

As digits.py at equal steps, and like it the file holds accuracies on the validation images only:
without noise, and the mean under five draws of relative and of absolute noise of the weights.
About a minute on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace
from functools import partial
from itertools import product

import stored
import torch
from digits import BUDGETS, COMMON, METHODS, SEEDS

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


def noisy(network, dataset, kind):
    """The mean accuracy on the validation images under five draws of one kind of noise."""
    batches = list(dataset.validation.batches(1000))
    options = {"relative": kind != "absolute", "draws": 5}
    return float(weight_noise(network, batches, [LEVELS[kind]], **options).mean[0])


def study(path, jobs):
    """One row a setting: for each kind of noise, the accuracies of all seeds."""
    recipes = [replace(EQUAL_STEPS, seed=s, **c) for (_, c), s in product(settings(), SEEDS)]
    measures = {kind: partial(noisy, kind=kind) for kind in LEVELS}
    torch.set_default_dtype(torch.float64)
    rows = iter(stored.trained(recipes, path, jobs, measures=measures, hardware=stored.CPU))
    runs = []
    for name, changes in settings():
        some = [next(rows) for _ in SEEDS]
        found = {kind: [accuracy(row, kind) for row in some] for kind in LEVELS}
        runs.append({"name": name, "settings": changes, **found})
    head = {"common": asdict(EQUAL_STEPS), "seeds": SEEDS, "levels": LEVELS}
    stored.write(path, head, runs, stored.CPU)


def accuracy(row, kind):
    return 0.0 if stored.diverged(row) else round(row[kind], 4)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
