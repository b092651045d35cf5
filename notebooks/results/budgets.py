"""Six methods on digits, each tuned at several budgets of gradients: notebook 05.

usage: python notebooks/results/budgets.py [--out FILE] [--jobs N]

What tuned.py and peers.py do for 600 minibatch gradients, done for others too: each method takes
its lr and ρ (SGD: lr) by the mean accuracy on the validation images over five seeds, from a grid
that starts at what was chosen for 600 and grows until the best lies inside it. Then ten other seeds
are measured. The rows of 600 are copied. About ten minutes on a CPU core; interrupted, it goes on.

"runs" holds the test accuracies, "tuning" the grids; "validation" is here the mean over the seeds.
"""

import json
from dataclasses import replace
from pathlib import Path

import stored
import torch
from peers import METHODS as PEERS
from tuned import METHODS, Grid, axes_of, keep, measured, tune

from lookbehind.train import Recipe

HERE = Path(__file__).parent
BUDGETS, TUNED = (150, 300), 600
NAMES = (
    "SGD", "SAM", "Multistep-SAM k 2 mean", "Lookbehind-SAM k 2", "Lookbehind-SAM k 5",
    "Momentum-SAM",
)  # fmt: skip
MEASURES = {}  # but the test accuracy


def chosen_before():
    """What was chosen for 600 gradients, and its test accuracies, by (name, label_noise)."""
    for file in ("tuned", "peers"):
        study = json.loads((HERE / f"{file}.json").read_text(encoding="utf-8"))
        for row in study["runs"]:
            if row["name"] in NAMES and row["budget"] == "equal gradients":
                recipe = Recipe(**{**study["common"], **row["settings"]})
                recipe = replace(recipe, epochs=None, gradients=TUNED)
                found = {name: row[name] for name in ("diverged", "test")}
                yield (row["name"], row["label_noise"]), (recipe, found)


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    before = dict(chosen_before())
    grids = {
        (name, budget, noise): Grid(
            replace(recipe, gradients=budget), axes_of({**METHODS, **PEERS}[name])
        )
        for (name, noise), (recipe, _) in before.items()
        for budget in BUDGETS
    }
    with stored.sweeps(path, jobs) as trained:
        tune(list(grids.values()), trained)
        chosen = {point: grid.at(grid.best()) for point, grid in grids.items()}
        runs = list(measured(list(chosen.values()), trained, measures=MEASURES))
    for grid in grids.values():
        grid.scores = {n: [round(sum(v) / len(v), 5)] for n, v in grid.scores.items()}
    for (name, noise), (recipe, found) in before.items():
        chosen[name, TUNED, noise] = recipe
        runs.append(found)
    keep(path, grids, chosen, runs)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
