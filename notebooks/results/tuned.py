"""Every method on digits, tuned alike, then measured on fresh seeds: notebooks 05, 07, 08 and 10.

usage: python notebooks/results/tuned.py [--out FILE] [--jobs N]

The MLP learns digits with clean labels and with 40 % wrong ones, at equal steps (200 minibatches)
and at equal gradients (600). Each method takes its lr and ρ (SGD: lr, or lr and weight decay) by
the mean accuracy on the validation images over five seeds, from a grid in steps of 2 for lr and
weight decay and of √2 for ρ, which grows until the best lies inside it. α = 1 / k, so a step of
Lookbehind is about as long as one of SAM with the same lr. Then ten other seeds are measured.
About ten minutes on two CPU cores; interrupted, it goes on.

"tuning" holds of each method the points of its grid and the accuracy of each of "tuning_seeds",
and "runs" what was measured at the chosen point, a list over "seeds" each:

    test           accuracy on the test images
    memorized      share of the wrong labels that the network gives back (null with clean labels)
    lambda         largest eigenvalue of the Hessian on the training images, by the labels given
    worst_rise     of the training loss in a ball of "radius" (nats), one ascent step
    average_rise   of the training loss under noise of "sigma" (nats), 20 draws of seed 1
    relative, absolute   test accuracy under noise of the level in "noise", 10 draws of seed 0

"adaptive at lr" and "adaptive at lr/k" are Lookbehind-SAM k 2 with adaptive α at the point that
was chosen for α = 1 / 2, and at half of its lr: the rest are tuned in their own right.
"""

from dataclasses import asdict, replace
from functools import partial
from itertools import product

import stored
import torch

from lookbehind import Ball
from lookbehind.measure import average_rise, hessian_eigenpairs, weight_noise, worst_rise
from lookbehind.optim import METHODS as KNOWN
from lookbehind.train import Recipe

TUNING_SEEDS, SEEDS = (0, 1, 2, 3, 4), tuple(range(5, 15))
COMMON = Recipe(gradients=None, epochs=20, lr=0.1)
GRADIENTS_A_MINIBATCH = 60  # 600 in all, of 10 minibatches an epoch
BUDGETS, NOISES = ("equal steps", "equal gradients"), (0.4, 0.0)
RADIUS, SIGMA, NOISE = 0.05, 0.05, {"relative": 0.7, "absolute": 0.1}
# With ρ, or weight decay, where the search starts.
METHODS = {
    "SGD": {"method": "SGD"},
    "SGD, own weight decay": {"method": "SGD", "weight_decay": 0.01},
    "SAM": {"method": "SAM", "rho": 0.28},
    "ASAM": {"method": "ASAM", "rho": 2.0},
    "Multistep-SAM k 2": {"method": "Multistep-SAM", "rho": 0.14},
    "Multistep-SAM k 2 mean": {"method": "Multistep-SAM", "gradient": "mean", "rho": 0.2},
    "Lookahead-SAM k 5": {"method": "Lookahead-SAM", "k": 5, "rho": 0.28},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM", "rho": 0.2},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2, "rho": 0.1},
    "Lookbehind-SAM k 2 adaptive": {"method": "Lookbehind-SAM", "alpha": "adaptive", "rho": 0.14},
    "Lookbehind-ASAM k 2": {"method": "Lookbehind-ASAM", "rho": 1.4},
}
# The factor between neighbors of a grid.
STEPS = {"lr": 2.0, "weight_decay": 2.0, "rho": 2**0.5}


def start(name, budget, noise):
    """The recipe in the middle of the grid."""
    recipe = replace(COMMON, label_noise=noise, **METHODS[name])
    cost = KNOWN[recipe.method].cost(recipe.k)
    return replace(recipe, epochs=GRADIENTS_A_MINIBATCH // cost) if "grad" in budget else recipe


def axes_of(settings):
    """What is tuned beside lr; SGD may have nothing else."""
    return ("lr", *(axis for axis in ("weight_decay", "rho") if axis in settings))


class Grid:
    """The points around a recipe that were tried, by their numbers of steps along each axis."""

    def __init__(self, recipe, axes):
        self.recipe, self.axes = recipe, axes
        self.rungs = [{-1, 0, 1} for _ in axes]
        self.scores = {}

    def points(self):
        return {n: self.at(n) for n in product(*map(sorted, self.rungs))}

    def at(self, numbers):
        moves = zip(self.axes, numbers, strict=True)
        values = {a: float(f"{getattr(self.recipe, a) * STEPS[a] ** n:.3g}") for a, n in moves}
        return replace(self.recipe, **values)

    def best(self):
        """The numbers of the best point; of equals, the nearest to the start."""
        means = {n: sum(values) / len(values) for n, values in self.scores.items()}
        return max(means, key=lambda n: (round(means[n], 9), -sum(map(abs, n)), n))

    def grown(self):
        """Whether the best lay at an end, which then was moved on."""
        before = sum(map(len, self.rungs))
        for rungs, n in zip(self.rungs, self.best(), strict=True):
            rungs |= {n - 1, n + 1}
        return sum(map(len, self.rungs)) > before


def tune(grids, trained):
    """Fill the grids, all at once, until the best of each lies inside."""
    open_grids = grids
    while open_grids:
        wanted = [p for g in open_grids for p in g.points().values()]
        rows = iter(trained([replace(p, seed=s) for p in wanted for s in TUNING_SEEDS]))
        for grid in open_grids:
            for n in grid.points():
                grid.scores[n] = [accuracy(next(rows), "validation") for _ in TUNING_SEEDS]
        open_grids = [grid for grid in open_grids if grid.grown()]


def accuracy(row, split):
    return 0.0 if stored.diverged(row) else round(row[split]["accuracy"], 4)


def memorized(network, dataset):
    if not dataset.noisy.any():
        return None
    [(images, labels)] = dataset.train.batches(len(dataset.train))
    return float((network(images).argmax(1) == labels)[dataset.noisy].double().mean())


def on_train(network, dataset, measure):
    return float(measure(network, list(dataset.train.batches(1000))))


def eigenvalue(network, batches):
    return hessian_eigenpairs(network, batches).values[0]


def rise(network, batches):
    return average_rise(network, batches, SIGMA, seed=1).mean


def noisy(network, dataset, kind):
    batches = list(dataset.test.batches(1000))
    return float(weight_noise(network, batches, [NOISE[kind]], relative=kind == "relative").mean[0])


MEASURES = {
    "memorized": memorized,
    "lambda": partial(on_train, measure=eigenvalue),
    "worst_rise": partial(on_train, measure=partial(worst_rise, ball=Ball(RADIUS))),
    "average_rise": partial(on_train, measure=rise),
    "relative": partial(noisy, kind="relative"),
    "absolute": partial(noisy, kind="absolute"),
}


def measured(recipes, trained, seeds=SEEDS, measures=MEASURES):
    """Of each recipe a dictionary of what was measured, a list over the seeds each."""
    rows = iter(trained([replace(r, seed=s) for r in recipes for s in seeds], measures=measures))
    for _ in recipes:
        some = [next(rows) for _ in seeds]
        found = {"diverged": sum(map(stored.diverged, some))}
        found["test"] = [accuracy(row, "test") for row in some]
        yield found | {name: [short(row.get(name)) for row in some] for name in measures}


def short(value):
    return None if value is None else float(f"{value:.4g}")


def settings_of(recipe):
    """What tells a recipe from `COMMON`, the seed apart."""
    common = asdict(COMMON)
    return {n: v for n, v in asdict(recipe).items() if v != common[n] and n != "seed"}


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    grids, chosen, runs = {}, {}, []
    with stored.sweeps(path, jobs) as trained:
        for noise in NOISES:
            names = product(METHODS, BUDGETS, (noise,))
            some = {point: Grid(start(*point), axes_of(METHODS[point[0]])) for point in names}
            tune(list(some.values()), trained)
            best = dict(with_adaptive({p: grid.at(grid.best()) for p, grid in some.items()}))
            runs += measured(list(best.values()), trained)
            grids, chosen = grids | some, chosen | best
    keep(path, grids, chosen, runs)


def keep(path, grids, chosen, runs):
    """Write the study: the grids, and the recipe and run of each point (name, budget, noise)."""

    def row(point, **values):
        return {**dict(zip(("name", "budget", "label_noise"), point, strict=True)), **values}

    head = {"common": asdict(COMMON), "seeds": SEEDS, "tuning_seeds": TUNING_SEEDS}
    head |= {"radius": RADIUS, "sigma": SIGMA, "noise": NOISE, "steps": STEPS}
    rows = [
        row(point, settings=settings_of(recipe), **found)
        for (point, recipe), found in zip(chosen.items(), runs, strict=True)
    ]
    tuning = [row(point, **table(grid)) for point, grid in grids.items()]
    stored.write(path, head, rows, stored.CPU, tuning=tuning)


def table(grid):
    """The points tried as columns."""
    points = [grid.at(n) for n in grid.scores]
    columns = {axis: [getattr(point, axis) for point in points] for axis in grid.axes}
    best = [*grid.scores].index(grid.best())
    return {**columns, "validation": [*grid.scores.values()], "best": best}


def with_adaptive(chosen):
    """And adaptive α where α = 1 / 2 was chosen, with the same lr and with half of it."""
    for point, recipe in chosen.items():
        yield point, recipe
        if point[0] == "Lookbehind-SAM k 2":
            for words, share in (("lr", 1.0), ("lr/k", 0.5)):
                adaptive = replace(recipe, alpha="adaptive", lr=recipe.lr * share)
                yield (f"adaptive at {words}", *point[1:]), adaptive


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
