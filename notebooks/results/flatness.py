"""How flat the minima of the CIFAR-10 study are, for notebooks 07 and 08.

usage: python notebooks/results/flatness.py [DATASET] [--out FILE] [--jobs N]

The runs of cifar10.json at the radii chosen there are made once more, three seeds a method, and
their networks are measured: the loss around the weights on `images` of the training images with
the labels that were given, accuracies on `test_images` of the test. DATASET as for cifar10.py. An
interrupted study goes on where it was. About half an hour on two CPU cores.

A row of "runs" has "name", the settings and "seed" as in cifar10.json, and

    train, test      {"loss", "accuracy"} of those training images, of those test images
    rises            worst rise of the loss in a Ball of each of "radii", one ascent step
    rises_in_steps   the same in "steps" ascent steps
    adaptive_rises   the same in an AdaptiveBall of each of "adaptive_radii", one step
    eigenvalue       λ_max of the Hessian of the training loss
    trace            {"mean", "error"} of its trace, by Hutchinson's estimate
    noise            {"mean", "std"}: test accuracies under each of "noise_levels", over "draws"
    quantized        test accuracy with weights of each of "bits" bits
    norm             ‖w‖ of all parameters together

with the lists in quotes at the head of the file.
"""

import json
from dataclasses import replace
from pathlib import Path

import stored
import torch
from cifar10 import METHODS, key

from lookbehind import AdaptiveBall, Ball
from lookbehind.explore.shared import chosen_runs
from lookbehind.measure import (
    hessian_eigenpairs,
    hessian_trace,
    quantization,
    weight_noise,
    worst_rises,
)
from lookbehind.train import EVALUATION_BATCH, Recipe, choose_hardware, evaluate
from lookbehind.weights import weights_of

CHOSEN = Path(__file__).with_name("cifar10.json")
MEASURED = {
    "images": 256, "test_images": 1000, "radii": [0.01, 0.02, 0.05, 0.1, 0.2], "steps": 5,
    "adaptive_radii": [0.1, 0.2, 0.5, 1.0], "trace_draws": 10,
    "noise_levels": [0.05, 0.1, 0.2, 0.3, 0.5], "draws": 5, "bits": [2, 3, 4, 5, 6, 7, 8],
}  # fmt: skip


def recipes(dataset, **changes):
    """(name, recipe) of every run of cifar10.json at the radius that was chosen there."""
    study = json.loads(CHOSEN.read_text(encoding="utf-8"))
    for name in METHODS:
        for run in chosen_runs(study, name):
            settings = {n: run[n] for n in ("method", "k", "rho", "alpha", "gradient", "seed")}
            yield name, Recipe(dataset=dataset, **{**study["common"], **settings, **changes})


def some_of(split, count):
    """Minibatches of `count` images spread evenly: the wrong labels come first, as classes may."""
    picked = torch.linspace(0, len(split) - 1, min(count, len(split))).long()
    part = replace(split, images=split.images[picked], labels=split.labels[picked])
    return part.batches(EVALUATION_BATCH)


def flatness(model, dataset):
    """The measures of one network on training images and on test images."""
    seen = some_of(dataset.train, MEASURED["images"])
    unseen = some_of(dataset.test, MEASURED["test_images"])
    balls = [Ball(rho) for rho in MEASURED["radii"]]
    adaptive = [AdaptiveBall(rho) for rho in MEASURED["adaptive_radii"]]
    trace = hessian_trace(model, seen, draws=MEASURED["trace_draws"])
    noise = weight_noise(model, unseen, MEASURED["noise_levels"], draws=MEASURED["draws"])
    return {
        "train": score(model, seen),
        "test": score(model, unseen),
        "rises": rounded(worst_rises(model, seen, balls)),
        "rises_in_steps": rounded(worst_rises(model, seen, balls, steps=MEASURED["steps"])),
        "adaptive_rises": rounded(worst_rises(model, seen, adaptive)),
        "eigenvalue": rounded(hessian_eigenpairs(model, seen).values)[0],
        "trace": dict(zip(("mean", "error"), rounded([trace.mean, trace.error]), strict=True)),
        "noise": {"mean": rounded(noise.mean), "std": rounded(noise.std)},
        "quantized": rounded(quantization(model, unseen, MEASURED["bits"]).accuracies),
        "norm": rounded([norm(model)])[0],
    }


def norm(model):
    return sum(float(w.square().sum()) for w in weights_of(model).values()) ** 0.5


def score(model, batches):
    found = evaluate(model, batches)
    return dict(zip(("loss", "accuracy"), rounded([found.loss, found.accuracy]), strict=True))


def rounded(values):
    """Five significant digits, which is more than the measures have."""
    return [float(f"{float(value):.5g}") for value in values]


def study(dataset, path, jobs, **changes):
    """Make every run that is not kept yet, `jobs` at a time, and keep each as it comes."""
    head = json.loads(CHOSEN.read_text(encoding="utf-8"))
    plan = list(recipes(dataset, **changes))
    runs, measures = [recipe for _, recipe in plan], {"flatness": flatness}
    found = stored.trained(runs, path, jobs, measures=measures, members=1)
    rows = []
    for (name, recipe), row in zip(plan, found, strict=True):
        if "error" in row:
            raise SystemExit(f"{name}, {recipe} failed: {row['error']}")
        rows.append({"name": name, **key(recipe), **row["flatness"]})
    made = {"common": {**head["common"], **changes}, "seeds": head["seeds"], **MEASURED}
    stored.write(path, made, rows, choose_hardware())


if __name__ == "__main__":
    parser = stored.options(__doc__, __file__)
    parser.add_argument("dataset", nargs="?", default="cifar10")
    given = parser.parse_args()
    study(given.dataset, given.out, given.jobs)
