"""Lookbehind-SAM against its complete control with a radius that is free: notebook 07.

usage: python notebooks/results/radius.py [--out FILE] [--jobs N]

The matched controls of control.py have the winner's effective radius, its step and its memory. Here
their radius is multiplied by "factor" as well, so that they can be compared with the winner at the
training loss that it reaches. The winners are those of tuned.py. "runs" holds, as there, lists over
ten seeds that nothing was chosen by: test accuracy, average rise, and the training loss. About a
quarter of an hour on two CPU cores; interrupted, it goes on.
"""

from dataclasses import asdict, replace
from functools import partial

import stored
import torch
import tuned
from control import matched, winners
from tuned import COMMON, SEEDS, SIGMA, measured, settings_of

from lookbehind.measure import Objective

FACTORS = (0.9, 1.0, 1.1, 1.2, 1.4, 1.7, 2.0)
CONTROLS = ("SAM, matched", "mean-Multistep, matched")


def loss(network, batches):
    return Objective(network, batches).loss()


MEASURES = {
    "loss": partial(tuned.on_train, measure=loss),
    "average_rise": tuned.MEASURES["average_rise"],
}


def points():
    """(of, name, factor, recipe): the winners, and their controls at every factor."""
    for of, recipe in winners():
        if of.startswith("Lookbehind") and of != "Lookbehind-SAM k 2, equal gradients":
            yield of, recipe.method, 1.0, recipe  # k 2 chose the same at both budgets
            for name in CONTROLS:
                control = matched(recipe)[name]
                for factor in FACTORS:
                    rho = float(f"{control.rho * factor:.4g}")
                    yield of, name, factor, replace(control, rho=rho)


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    some = list(points())
    with stored.sweeps(path, jobs) as trained:
        runs = list(measured([recipe for *_, recipe in some], trained, SEEDS, MEASURES))
    rows = [
        {"of": of, "label_noise": recipe.label_noise, "name": name, "factor": factor}
        | {"settings": settings_of(recipe), **run}
        for (of, name, factor, recipe), run in zip(some, runs, strict=True)
    ]
    head = {"common": asdict(COMMON), "seeds": SEEDS, "sigma": SIGMA}
    stored.write(path, head, rows, stored.CPU)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
