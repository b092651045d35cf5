"""Methods tuned alike, then noise of several levels on their weights: notebook 08.

usage: python notebooks/results/noise.py [--out FILE] [--jobs N]

The settings are those chosen in tuned.json and peers.json, the seeds the ten that nothing was
chosen by. "runs" hold the test accuracy, [seed][level], under relative and absolute noise of
"levels" (10 draws of seed 0; level 0 is none) and with weights of few bits; and the norm of all
weights. About five minutes on two CPU cores; interrupted, it goes on.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import peers  # makes Momentum-SAM known, here and in every process
import stored
import torch
from tuned import COMMON, SEEDS, settings_of

from lookbehind.measure import Objective, dot, quantized, weight_noise, weights_of

NAMES = ("SGD", "SGD, own weight decay", "SAM", "ASAM", "Multistep-SAM k 2 mean")
NAMES += ("Lookbehind-SAM k 2", "Lookbehind-SAM k 5", "Lookbehind-ASAM k 2", *peers.METHODS)
LEVELS = {
    "relative": (0.0, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4),
    "absolute": (0.0, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2),
    "bits": (2, 3, 4, 5, 6, 8),
}


def settings():
    """(name, budget, recipe) of what was chosen, at both budgets, with wrong and clean labels."""
    files = (Path(__file__).with_name(f"{name}.json") for name in ("tuned", "peers"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    rows = [row for text in texts for row in json.loads(text)["runs"] if row["name"] in NAMES]
    return [(r["name"], r["budget"], replace(COMMON, **r["settings"])) for r in rows]


def under(network, dataset, kind):
    batches, some = list(dataset.test.batches(1000)), LEVELS[kind]
    if kind == "bits":
        objective = Objective(network, batches)
        shares = [objective.score(quantized(network, bits)).accuracy for bits in some]
    else:
        shares = weight_noise(network, batches, some, relative=kind == "relative").mean
    return [round(float(share), 4) for share in shares]


def norm(network, _dataset):
    w = weights_of(network)
    return round(dot(w, w) ** 0.5, 3)


def study(path, jobs):
    torch.set_default_dtype(torch.float64)
    recipes = [replace(r, seed=s) for *_, r in settings() for s in SEEDS]
    measures = {kind: partial(under, kind=kind) for kind in LEVELS} | {"norm": norm}
    rows = iter(stored.trained(recipes, path, jobs, measures=measures))
    runs = []
    for name, budget, recipe in settings():
        some = [next(rows) for _ in SEEDS]
        found = {kind: [row[kind] for row in some] for kind in measures}
        head = {"name": name, "budget": budget, "label_noise": recipe.label_noise}
        runs.append(head | {"settings": settings_of(recipe)} | found)
    stored.write(
        path, {"common": asdict(COMMON), "seeds": SEEDS, "levels": LEVELS}, runs, stored.CPU
    )


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
