"""Six methods on CIFAR-10 with a small ResNet, tuned alike, at equal gradients.

usage: python notebooks/results/cifar10.py [DATASET] [--out FILE] [--paper]

What CIFAR-10 is here: 10,000 of its 50,000 training images, 2,500 more for validation and 5,000 of
its 10,000 test images, from a copy in JPEG, so pixels differ a little from the original's. The
images have 32 x 32 pixels; the first convolution has stride 2, so the network works at 16 x 16. It
is a ResNet-8 of width 8 (20 thousand parameters), trained with crops and flips for 15 gradients an
image: 15 epochs of SGD, 7.5 of SAM, 5 of Lookbehind-SAM with k = 2. That is short: a run is to take
less than a minute. With 25,000 images, a run of two minutes, SGD had .55 at 40 % wrong labels.

DATASET is cifar10 (downloaded where it is missing) or a folder of its images: train/<class>/...
and test/<class>/.... At 40 % wrong labels each method takes ρ, then lr, from the validation images
of seed 0, in steps of 2 until the best lies inside the steps tried; with clean labels ρ again (SGD:
lr). Then seeds 1, 2, 3, and later 4, 5, are what to report. One process on one thread, about an
hour and a half; interrupted, it goes on. A row of the file, JSON lines, is a run:

    name, stage, recipe, seconds   stage: "tuning" or "report"
    gradients                      after how many the accuracies in the lists were taken
    train, validation, test        accuracies; train is of the first 5,000 training images, and
                                   all wrong labels are among these
    memorized                      share of 2,000 wrong labels that the network gives back
    worst_rise, average_rise       nats, at each of RADII, of SIGMAS, on the same 1,000 images
    noisy                          accuracy on the first 1,000 test images under relative noise of
                                   each of LEVELS, 10 draws: not to be set beside `test`

--paper: ResNet-34, all images, 200 epochs of each method, lr cut by 10 thrice; only for a GPU, and
nobody has run it yet.
"""

import json
import time
from dataclasses import asdict, replace
from functools import partial

import stored
import torch

from lookbehind import Ball
from lookbehind.measure import average_rise, weight_noise, worst_rises
from lookbehind.study import Rows
from lookbehind.train import Recipe, choose_hardware, evaluate
from lookbehind.train.models import MODELS, resnet8

MODELS["nano-resnet8"] = partial(resnet8, width=8, stem_stride=2)
TUNING, SEEDS = 0, ((1, 2, 3), (4, 5))
RADII, SIGMAS, LEVELS = (0.05, 0.1, 0.2), (0.01, 0.02), (0.1, 0.2, 0.3)
COMMON = {
    "dataset": "cifar10", "model": "nano-resnet8", "train": 10_000, "validation": 2500,
    "test": 5000, "batch_size": 128, "augment": True, "gradients": 15 * 79,
}  # fmt: skip
PAPER = {
    "dataset": "cifar10", "model": "resnet34", "validation": 2500, "batch_size": 128,
    "augment": True, "gradients": None, "epochs": 200, "schedule": "multistep",
}  # fmt: skip
# With the radius and the learning rate where the search starts.
METHODS = {
    "SGD": {"method": "SGD", "lr": 0.1},
    "SAM": {"method": "SAM", "rho": 0.05, "lr": 0.1},
    "ASAM": {"method": "ASAM", "rho": 0.5, "lr": 0.1},
    "Multistep-SAM k 2 mean": {"method": "Multistep-SAM", "gradient": "mean", "rho": 0.025,
                               "lr": 0.1},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM", "rho": 0.025, "lr": 0.1},
    "Lookbehind-SAM k 2 adaptive": {"method": "Lookbehind-SAM", "alpha": "adaptive",
                                    "rho": 0.025, "lr": 0.1},
}  # fmt: skip


class Study:
    """The rows, and how a recipe becomes one."""

    def __init__(self, path, folder):
        self.rows, self.folder, self.hardware = Rows(path), folder, choose_hardware()
        self.loaded = None, None

    def row(self, name, stage, recipe):
        """As it is kept, or made now. The file doesn't say where the images lie."""
        if self.rows.of(recipe) is None:
            head = {"name": name, "stage": stage, "recipe": asdict(recipe)}
            self.rows.append([{**head, **self.made(recipe)}])
        return self.rows.of(recipe)

    def made(self, recipe):
        dataset, start = self.dataset(recipe), time.perf_counter()
        try:
            outcome = recipe.run(hardware=self.hardware, dataset=dataset, records=5)
        except FloatingPointError:
            return {"diverged": True, "validation": [0.0], "test": [0.0]}
        seconds = {"seconds": round(time.perf_counter() - start)}
        return {**seconds, **scores(outcome.history), **flatness(outcome, dataset)}

    def dataset(self, recipe):
        """Kept while the next run has the same seed and the same share of wrong labels."""
        if self.loaded[0] != (drawn := (recipe.seed, recipe.label_noise)):
            there = replace(recipe, dataset=self.folder)
            self.loaded = drawn, there.load(device=self.hardware.device)
        return self.loaded[1]

    def best(self, name, recipe, axis):
        """The recipe with the value of `axis` that is best on the validation images of its seed, of
        those in steps of 2 around its own, as many as it takes until the best isn't at an end."""
        start, steps, found = getattr(recipe, axis), [-1, 0, 1], {}
        while True:
            for n in steps:
                if n not in found:
                    point = replace(recipe, **{axis: start * 2.0**n})
                    found[n] = self.row(name, "tuning", point)["validation"][-1]
            top = max(found, key=lambda n: (found[n], -abs(n)))
            if min(found) < top < max(found):
                return replace(recipe, **{axis: start * 2.0**top})
            steps = [top - 1, top + 1]


def scores(history):
    found = {split: [round(r.accuracy, 4) for r in history.of(split)]
             for split in ("train", "validation", "test")}  # fmt: skip
    return {"gradients": [r.gradients for r in history.of("test")], **found}


def flatness(outcome, dataset):
    """The wrong labels come first, so images are taken evenly from all of the training split."""
    rows = torch.linspace(0, len(dataset.train) - 1, min(1000, len(dataset.train))).long()
    splits = dataset.train.take(rows), dataset.test
    seen, unseen = ([*split.batches(500)] for split in splits)
    model = outcome.model
    wrong = [next(iter(dataset.train.batches(min(2000, int(dataset.noisy.sum()) or 1))))]
    return {
        "memorized": evaluate(model, wrong).accuracy if dataset.noisy.any() else None,
        "worst_rise": rounded(worst_rises(model, seen, [Ball(rho) for rho in RADII])),
        "average_rise": rounded(
            average_rise(model, seen, s, draws=10, seed=1).mean for s in SIGMAS
        ),
        "noisy": rounded(weight_noise(model, unseen[:2], LEVELS, draws=10).mean),
    }


def rounded(values):
    return [float(f"{value:.4g}") for value in values]


def study(path, folder, common):
    """All runs, in the order in which they are worth having."""
    made, noisy = Study(path, folder), {}
    for name, settings in METHODS.items():
        recipe = Recipe(**common, **settings, label_noise=0.4, seed=TUNING)
        for axis in ("lr",) if name == "SGD" else ("rho", "lr"):
            recipe = made.best(name, recipe, axis)
        noisy[name] = recipe
    report(made, noisy, SEEDS[0])
    clean = {
        name: made.best(name, replace(r, label_noise=0.0), "lr" if name == "SGD" else "rho")
        for name, r in noisy.items()
    }
    report(made, clean, SEEDS[0])
    for recipes in (noisy, clean):
        report(made, recipes, SEEDS[1])


def report(made, recipes, seeds):
    for seed in seeds:
        for name, recipe in recipes.items():
            row = made.row(name, "report", replace(recipe, seed=seed))
            print(name, recipe.label_noise, seed, json.dumps(row["test"][-1]), flush=True)


if __name__ == "__main__":
    parser = stored.options(__doc__, __file__)
    parser.add_argument("dataset", nargs="?", default="cifar10")
    parser.add_argument("--paper", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    end = "-paper.jsonl" if given.paper else ".jsonl"
    path = given.out.with_name(given.out.stem + end)
    study(path, given.dataset, PAPER if given.paper else COMMON)
