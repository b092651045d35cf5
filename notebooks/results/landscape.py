"""What lies around networks of three methods, five seeds each: notebook 06.

usage: python notebooks/results/landscape.py [--out FILE] [--jobs N]

A row holds, of a method and a share of wrong labels, by seed: the test accuracy, the training loss
(nats) where training ended, the norm of the weights, and on all training images

    random      the mean rise at ±0.5 in ten random directions, filter-normalized
    gradient    the rise at 0.5 along the gradient
    climb       the rise after 0 … 5 ascents of ρ
    line        the rise at 0, ρ … 5 ρ along the first of them
    angles      degrees between the gradient after 0 … 10 ascents and the way to the maximum at
                distance ρ: in the plane of the gradient and the climb, and in the whole ball

About a minute on two CPU cores; interrupted, it goes on.
"""

import math

import stored
import torch

from lookbehind import measure
from lookbehind.train import Recipe

RHO, SEEDS, ASCENTS = 0.2, (0, 1, 2, 3, 4), 10
COMMON = {"lr": 0.1, "gradients": 600}
METHODS = {
    "SGD": {"method": "SGD"},
    "SAM": {"method": "SAM", "rho": 0.3},
    "Lookbehind-SAM": {"method": "Lookbehind-SAM", "k": 2, "rho": RHO, "alpha": 0.5},
}


def random_rise(network, objective):
    draws = [measure.gaussian_direction(network, seed=seed) for seed in range(10)]
    ends = [(a, measure.filter_normalized(network, d)) for d in draws for a in (-0.5, 0.5)]
    losses = [objective.loss(measure.moved(objective.weights, end)) for end in ends]
    return sum(losses) / len(losses) - objective.loss()


def maxima(objective, points):
    """The weights of the largest loss found at distance ρ: in the plane, and in the ball."""
    w = points[0]
    u, v = measure.solution_plane(w, points[1], points[-1])
    turns = [math.radians(degrees) for degrees in range(0, 360, 3)]
    circle = [measure.moved(w, (math.cos(t), u), (math.sin(t), v)) for t in turns]
    top = w
    for _ in range(30):
        top = measure.moved(w, (RHO, measure.unit(objective.gradient(top)[1])))
    return max(circle, key=objective.loss), top


def degrees(one, other):
    return math.degrees(math.acos(measure.dot(measure.unit(one), measure.unit(other))))


def around(network, dataset):
    objective = measure.Objective(network, dataset.train.batches(500))
    w = objective.weights
    loss, slope = objective.gradient()
    points, slopes = [w], [slope]
    for _ in range(ASCENTS):
        points.append(measure.moved(points[-1], (RHO, measure.unit(slopes[-1]))))
        slopes.append(objective.gradient(points[-1])[1])
    straight = [measure.moved(w, (RHO * i, measure.unit(slope))) for i in range(6)]
    ways = [measure.difference(w, top) for top in maxima(objective, points)]
    uphill = objective.loss(measure.moved(w, (0.5, measure.unit(slope))))
    return {
        "norm": round(measure.dot(w, w) ** 0.5, 3),
        "random": round(random_rise(network, objective), 4),
        "gradient": round(uphill - loss, 4),
        "climb": [round(objective.loss(point) - loss, 4) for point in points[:6]],
        "line": [round(objective.loss(point) - loss, 4) for point in straight],
        "angles": [[round(degrees(g, way), 1) for g in slopes] for way in ways],
    }


def settings():
    """(name, share of wrong labels) of the rows."""
    return [(name, noise) for noise in (0.4, 0.0) for name in METHODS]


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    recipes = [
        Recipe(**COMMON, **METHODS[name], label_noise=noise, seed=seed)
        for name, noise in settings()
        for seed in SEEDS
    ]
    found = iter(stored.trained(recipes, path, jobs, measures={"around": around}))
    runs = []
    for name, noise in settings():
        rows = [next(found) for _ in SEEDS]
        run = {"name": name, "label_noise": noise, "test": [r["test"]["accuracy"] for r in rows]}
        run["loss"] = [round(r["train"]["loss"], 4) for r in rows]
        runs.append(run | {key: [r["around"][key] for r in rows] for key in rows[0]["around"]})
    head = {"common": COMMON, "methods": METHODS, "seeds": SEEDS, "rho": RHO}
    stored.write(path, head, runs, stored.CPU)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
