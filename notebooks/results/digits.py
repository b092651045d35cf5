"""The sweep behind notebook 05: every method, radius and budget on digits, 40 % of labels wrong.

usage: python notebooks/results/digits.py [--out FILE] [--jobs N]

The file holds accuracies on the validation images only: the notebook chooses by them, and makes
the chosen runs itself. About two minutes on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace
from itertools import product

import stored
import torch

from lookbehind.train import Recipe

SEEDS = (0, 1, 2, 3, 4)
COMMON = Recipe(label_noise=0.4, lr=0.1)
# 200 minibatches each, or 600 gradients each: the same for a method of three gradients a minibatch.
BUDGETS = {
    "equal steps": {"epochs": 20, "gradients": None},
    "equal gradients": {"epochs": None, "gradients": 600},
}
LRS = (0.003, 0.01, 0.03, 0.1, 0.3)
RADII = (0.0125, 0.018, 0.025, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56)
# α = 1 / k: a step of Lookbehind is then about as long as one of SAM with the same lr.
METHODS = {
    "SAM": {"method": "SAM"},
    "ASAM": {"method": "ASAM"},
    "Multistep-SAM k 2": {"method": "Multistep-SAM"},
    "Multistep-SAM k 2 mean": {"method": "Multistep-SAM", "gradient": "mean"},
    "Lookahead-SAM k 5": {"method": "Lookahead-SAM", "k": 5},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM"},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2},
    "Lookbehind-SAM k 2 adaptive": {"method": "Lookbehind-SAM", "alpha": "adaptive"},
    "Lookbehind-ASAM k 2": {"method": "Lookbehind-ASAM"},
}


def settings():
    """(name, budget, changes to `COMMON`) of every point of the sweep."""
    for budget in BUDGETS:
        yield "SGD", budget, {"method": "SGD"}
        for lr in LRS:
            yield "SGD, its own lr", budget, {"method": "SGD", "lr": lr}
        for name, method in METHODS.items():
            for rho in radii(name):
                yield name, budget, {**method, "rho": rho}


def radii(name):
    """From too small to too large: a longer climb takes smaller radii, ASAM's ball larger ones."""
    if "ASAM" in name:
        return (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
    return RADII[:10] if name == "Lookbehind-SAM k 5" else RADII[4:]


def study(path, jobs):
    """One row a setting, the accuracies of all seeds in it."""
    points = list(product(settings(), SEEDS))
    recipes = [
        replace(COMMON, seed=seed, **BUDGETS[budget], **changes)
        for (_, budget, changes), seed in points
    ]
    torch.set_default_dtype(torch.float64)
    rows = iter(stored.trained(recipes, path, jobs, hardware=stored.CPU))
    runs = [
        {"name": name, "budget": budget, "settings": changes,
         "validation": [accuracy(next(rows)) for _ in SEEDS]}
        for name, budget, changes in settings()
    ]  # fmt: skip
    head = {"common": asdict(COMMON), "budgets": BUDGETS, "seeds": SEEDS}
    stored.write(path, head, runs, stored.CPU)


def accuracy(row):
    """On the validation images, at the end of training."""
    return 0.0 if stored.diverged(row) else round(row["validation"]["accuracy"], 4)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
