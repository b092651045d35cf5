"""Does the average rise foretell what noise of the weights costs? Untuned networks: notebook 08.

usage: python notebooks/results/forecast.py [--out FILE] [--jobs N]

Five methods over one grid of the effective radius, all with lr 0.1 (a step of Lookbehind is then as
long as one of SAM, α = 1 / k) and 200 minibatches, at equal steps; nothing is chosen. "runs" are as
those of tuned.py, whose rises are measured with draws of their own, on the training images and
under less noise than the accuracies are; here the rise under relative noise, of level 0.2 against
0.7, stands beside it: "relative_rise". About two minutes on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace
from functools import partial
from itertools import product

import stored
import torch
import tuned
from tuned import COMMON, NOISE, NOISES, RADIUS, SIGMA, measured, on_train, settings_of

from lookbehind.measure import average_rise

SEEDS, LEVEL = (5, 6, 7, 8, 9), 0.2
RADII = (0.05, 0.1, 0.2, 0.28)
METHODS = {
    "SAM": {"method": "SAM", "k": 1},
    "Multistep-SAM k 2 mean": {"method": "Multistep-SAM", "gradient": "mean", "k": 2},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM", "k": 2, "alpha": 0.5},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2},
}


def relative_rise(network, batches):
    return average_rise(network, batches, LEVEL, seed=1, relative=True).mean


MEASURES = {**tuned.MEASURES, "relative_rise": partial(on_train, measure=relative_rise)}


def settings():
    """(name, label noise, recipe)."""
    for noise in NOISES:
        common = replace(COMMON, label_noise=noise)
        yield "SGD", noise, replace(common, method="SGD")
        for (name, of), radius in product(METHODS.items(), RADII):
            rho = float(f"{2 * radius / (of['k'] + 1):.4g}")
            yield name, noise, replace(common, **of, rho=rho)


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    points = list(settings())
    with stored.sweeps(path, jobs) as trained:
        runs = list(measured([recipe for *_, recipe in points], trained, SEEDS, MEASURES))
    rows = [
        {"name": name, "label_noise": noise, "settings": settings_of(recipe), **found}
        for (name, noise, recipe), found in zip(points, runs, strict=True)
    ]
    head = {"common": asdict(COMMON), "seeds": SEEDS, "radius": RADIUS, "sigma": SIGMA}
    stored.write(path, head | {"noise": NOISE, "level": LEVEL}, rows, stored.CPU)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
