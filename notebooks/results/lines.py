"""What lies around the networks of tuned.py: what the explorer of notebook 07 shows.

usage: python notebooks/results/lines.py [--out FILE] [--jobs N]

The settings that tuned.py chose, of `NAMES`, are trained again from the first five of its fresh
seeds. A row holds what tuned.json says of them, and by seed

    loss    the training loss where training ended, in nats
    rise    how far it rises at each of the distances "at" along one direction, to either side:
            Gaussian, filter-normalized, of one seed for all, so that a step of 1 is as long as the
            weights

About two minutes on two CPU cores; interrupted, it goes on.
"""

import json
from pathlib import Path

import stored
import torch

from lookbehind.measure import filter_normalized, gaussian_direction, line
from lookbehind.train import Recipe

HERE = Path(__file__).parent
SEEDS, POINTS, SPAN = (5, 6, 7, 8, 9), 21, (-1.0, 1.0)
NAMES = (
    "SGD", "SAM", "ASAM", "Multistep-SAM k 2 mean", "Lookbehind-SAM k 2", "Lookbehind-SAM k 5",
    "Lookbehind-ASAM k 2",
)  # fmt: skip
KEPT = ("name", "budget", "label_noise", "settings")
MEASURED = ("test", "average_rise", "lambda")


def around(network, dataset):
    """The training loss along the line."""
    direction = filter_normalized(network, gaussian_direction(network, seed=0))
    batches = dataset.train.batches(1000)
    return line(network, batches, direction, span=SPAN, points=POINTS).loss.tolist()


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    whole = json.loads((HERE / "tuned.json").read_text(encoding="utf-8"))
    chosen = [row for row in whole["runs"] if row["name"] in NAMES]
    first = whole["seeds"].index(SEEDS[0])
    recipes = [
        Recipe(**{**whole["common"], **row["settings"], "seed": seed})
        for row in chosen
        for seed in SEEDS
    ]
    found = iter(stored.trained(recipes, path, jobs, measures={"around": around}))
    rows = []
    for row in chosen:
        of = {n: row[n] for n in KEPT}
        of |= {n: row[n][first : first + len(SEEDS)] for n in MEASURED}
        lines = [next(found)["around"] for _ in SEEDS]
        loss = [some[POINTS // 2] for some in lines]
        rise = [[round(v - at, 4) for v in some] for some, at in zip(lines, loss, strict=True)]
        rows.append(of | {"loss": [round(value, 4) for value in loss], "rise": rise})
    at = torch.linspace(*SPAN, POINTS).tolist()
    head = {"common": whole["common"], "seeds": SEEDS, "sigma": whole["sigma"]}
    stored.write(path, head | {"at": [round(a, 2) + 0.0 for a in at]}, rows, stored.CPU)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
