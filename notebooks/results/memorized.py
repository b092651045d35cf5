"""What notebook 04 shows: how many wrong labels a network memorizes, along ρ, k and α.

usage: python notebooks/results/memorized.py [--out FILE] [--jobs N]

Every setting trains the MLP on 500 digits from five seeds, with clean labels and with 40 % of them
wrong. Its row has lists of the seeds, shares at the end of training:

    took       the gradients of each run (a number)
    test       of the test images that are classified rightly
    right      of the training images with a right label that are given this label
    wrong      of those with a wrong label that are given this very label: the memorized share

Nothing is tuned. About two minutes on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace

import stored
import torch

from lookbehind.train import Recipe

SEEDS = (0, 1, 2, 3, 4)
COMMON = Recipe(k=2, rho=0.2, alpha=0.5, lr=0.1, gradients=600)
AXES = {
    "rho": (0.0, 0.05, 0.1, 0.2, 0.4, 0.8),
    "k": (1, 2, 3, 5, 10),
    "alpha": (0.2, 0.3, 0.5, 0.8, 1.0, "adaptive"),
}
# SAM at every ρ of Lookbehind's but 0, and at ρ (k + 1) / 2, its mean radius, for every k.
SAM_RADII = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.1)
SGD_BUDGETS = (40, 80, 150, 300, 600)  # SGD that ends early


def settings():
    """Changes to `COMMON`, first for the references, then for each axis."""
    points = [{"method": "SGD", "gradients": budget} for budget in SGD_BUDGETS]
    points += [{"method": "SAM", "rho": rho} for rho in SAM_RADII]
    points += [{}]
    points += [{n: v} for n, some in AXES.items() for v in some if v != getattr(COMMON, n)]
    points += [{"k": k, "alpha": round(1 / k, 4)} for k in AXES["k"] if k != COMMON.k]
    points += [{"alpha": "adaptive", "lr": COMMON.lr / COMMON.k}]
    return [{"label_noise": noise, **point} for noise in (0.4, 0.0) for point in points]


def learned(network, dataset):
    """Shares of the right and of the wrong training labels that the network gives."""
    ((images, labels),) = dataset.train.batches(len(dataset.train))
    hits = (network(images).argmax(1) == labels).double()
    return [float(hits[chosen].mean()) for chosen in (~dataset.noisy, dataset.noisy)]


def study(path, jobs):
    """One row a setting, the shares of all seeds in it."""
    recipes = [replace(COMMON, seed=seed, **some) for some in settings() for seed in SEEDS]
    torch.set_default_dtype(torch.float64)
    rows = iter(stored.trained(recipes, path, jobs, measures={"learned": learned}))
    runs = [{"settings": some, **shares([next(rows) for _ in SEEDS])} for some in settings()]
    head = {"common": asdict(COMMON), "axes": AXES, "seeds": SEEDS}
    head |= {"command": "python notebooks/results/memorized.py"}
    stored.write(path, head, runs, stored.CPU)


def shares(rows):
    """Of the seeds' rows, and the gradients that each run took."""
    found = {"took": rows[0]["gradients"], "test": [], "right": [], "wrong": []}
    for row in rows:  # a run that failed has no scores: that ends the study
        right, wrong = row["learned"]
        values = {"test": row["test"]["accuracy"], "right": right, "wrong": wrong}
        for name, value in values.items():
            found[name].append(round(value, 4))
    if not rows[0]["recipe"]["label_noise"]:
        del found["wrong"]
    return found


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
