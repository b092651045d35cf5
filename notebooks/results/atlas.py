"""The training atlas of notebook 10: Lookbehind-SAM along k, ρ, α and lr, clean and wrong labels.

usage: python notebooks/results/atlas.py [--out FILE] [--jobs N]

Every setting trains the MLP on digits from five seeds, and has a row in the order of
product(*axes.values()): "failed", how many of the seeds diverged, and of the others

    gradients  of a run                 accuracy, spread    on the test images, after each epoch
    loss       on the training images, after each epoch (nats, by the labels that were given)
    noisy      test accuracy with noisy weights: relative noise of level `noise`, five draws
    rise       worst rise of the training loss in a ball of `radius` (nats / 1000)

Accuracies in %; a mean over the seeds and the sample standard deviation, the spread. About ten
minutes on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace
from itertools import product

import numpy as np
import stored
import torch

from lookbehind import Ball
from lookbehind.measure import weight_noise, worst_rise
from lookbehind.train import Recipe

SEEDS, NOISE, RADIUS = (0, 1, 2, 3, 4), 0.5, 0.05
COMMON = Recipe(epochs=10, gradients=None)
AXES = {
    "label_noise": (0.0, 0.4), "lr": (0.03, 0.1, 0.3), "k": (1, 2, 3, 5),
    "rho": (0.0, 0.025, 0.05, 0.1, 0.2, 0.4), "alpha": (0.2, 0.5, 1.0, "adaptive"),
}  # fmt: skip


def noisy(network, dataset):
    batches = dataset.test.batches(1000)
    return 100 * float(weight_noise(network, batches, [NOISE], draws=5, seed=100).mean[0])


def rise(network, dataset):
    return 1000 * worst_rise(network, dataset.train.batches(1000), Ball(RADIUS))


def settings():
    return [dict(zip(AXES, some, strict=True)) for some in product(*AXES.values())]


def study(path, jobs):
    """One row a setting, from the rows of its seeds."""
    recipes = [replace(COMMON, seed=seed, **some) for some in settings() for seed in SEEDS]
    torch.set_default_dtype(torch.float64)
    options = {"measures": {"noisy": noisy, "rise": rise}, "records": COMMON.epochs}
    rows = iter(stored.trained(recipes, path, jobs, **options))
    runs = [summary([next(rows) for _ in SEEDS]) for _ in settings()]
    head = {"common": asdict(COMMON), "axes": AXES, "seeds": SEEDS, "noise": NOISE}
    head |= {"radius": RADIUS, "command": "python notebooks/results/atlas.py"}
    stored.write(path, head, runs, stored.CPU)


def summary(rows):
    good = [row for row in rows if not stored.diverged(row)]
    found = {"failed": len(rows) - len(good)}
    if len(good) < 2:
        return found
    curves = [[(r["test"]["accuracy"], r["train"]["loss"]) for r in row["records"]] for row in good]
    accuracy, loss = np.array(curves).transpose(2, 0, 1)
    found |= {"gradients": good[0]["gradients"], "accuracy": rounded(100 * accuracy.mean(0))}
    found |= {"spread": rounded(100 * accuracy.std(0, ddof=1)), "loss": rounded(loss.mean(0), 3)}
    ends = {name: np.array([row[name] for row in good]) for name in ("noisy", "rise")}
    return found | {name: rounded([v.mean(), v.std(ddof=1)]) for name, v in ends.items()}


def rounded(values, digits=1):
    return [round(float(value), digits) for value in values]


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
