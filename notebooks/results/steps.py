"""How much k, the radius and the step matter, each on its own scale: notebook 10.

usage: python notebooks/results/steps.py [--out FILE] [--jobs N]

Lookbehind-SAM at every k of K (k = 1 is SAM) over the same grid of the effective radius ρ(k + 1)/2
and the effective step αk·lr, with clean labels and with 40 % wrong ones, five seeds, 80 minibatches
each: equal steps. lr is 0.1 where α ≤ 1 can make the step, else as large as it takes with α = 1.
A few minutes on two CPU cores; interrupted, it goes on.

"runs" holds, of each k and label noise, "validation", "test" and their "spread" (sample standard
deviation over the seeds, of test) as tables, a row a radius, a column a step. "winners" holds the
settings that the validation accuracy chooses of each, and whether they lie "inside" the grid,
whose radius 0 is no end: k descents without a climb. control.py has their fresh seeds.
"""

from dataclasses import asdict, replace
from itertools import product

import numpy as np
import stored
import torch
from tuned import COMMON, NOISES, TUNING_SEEDS, accuracy, settings_of

K = (1, 2, 3, 5)
RADII = (0.0, 0.0125, 0.018, 0.025, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)
STEPS = (0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)
EIGHT_EPOCHS = replace(COMMON, epochs=8)


def point(noise, k, radius, step):
    alpha = min(1.0, step / (k * COMMON.lr))
    lr, rho = float(f"{step / (alpha * k):.4g}"), float(f"{2 * radius / (k + 1):.4g}")
    changes = {"label_noise": noise, "k": k, "rho": rho, "alpha": alpha, "lr": lr}
    return replace(EIGHT_EPOCHS, **changes)


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    tables = list(product(NOISES, K))
    points = [point(*of, *at) for of in tables for at in product(RADII, STEPS)]
    recipes = [replace(recipe, seed=seed) for recipe in points for seed in TUNING_SEEDS]
    rows = stored.trained(recipes, path, jobs)
    shape = (len(tables), len(RADII), len(STEPS), len(TUNING_SEEDS))
    found = {s: np.reshape([accuracy(row, s) for row in rows], shape)
             for s in ("validation", "test")}  # fmt: skip
    means = {split: values.mean(-1).round(4) for split, values in found.items()}
    means["spread"] = found["test"].std(-1, ddof=1).round(4)
    runs = [{"label_noise": noise, "k": k, **{name: m[i].tolist() for name, m in means.items()}}
            for i, (noise, k) in enumerate(tables)]  # fmt: skip
    head = {"common": asdict(EIGHT_EPOCHS), "seeds": TUNING_SEEDS, "radii": RADII, "steps": STEPS}
    winners = [winner(noise, k, means["validation"][i]) for i, (noise, k) in enumerate(tables)]
    stored.write(path, head, runs, stored.CPU, winners=winners)


def winner(noise, k, validation):
    i, j = (int(n) for n in np.unravel_index(validation.argmax(), validation.shape))
    inside = i < len(RADII) - 1 and 0 < j < len(STEPS) - 1  # no radius is below 0
    settings = settings_of(point(noise, k, RADII[i], STEPS[j]))
    return {"label_noise": noise, "k": k, "radius": RADII[i], "step": STEPS[j],
            "inside": inside, "settings": settings}  # fmt: skip


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
