"""The sweep behind notebook 11: perturbations of each rank's own, on digits, every climb tuned.

usage: python notebooks/results/ranks.py [--out FILE] [--jobs N]

The ranks of a network are members of an ensemble in one process: each climbs by the gradient of its
own share, and later gradients are averaged, as `fit` does it with processes. One rank is the global
perturbation. lr and ρ are chosen on the validation images of some seeds; the file holds their
accuracies, and the test accuracies of the choice for other seeds. About two minutes on two CPU
cores.
"""

from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import product

import stored
import torch
from torch.optim import SGD

from lookbehind.optim import make_method, param_groups
from lookbehind.study import Ensemble, member_cross_entropy
from lookbehind.train import Recipe, Setup, evaluate, evaluation_batches, fit, set_epoch
from lookbehind.train.ranks import Alone

TUNED_ON, TESTED_ON = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
COMMON = Recipe(epochs=20, gradients=None)  # 200 minibatches of 50 images
METHODS = ("SAM",)  # "Lookbehind-SAM" is that of k = 2, α = 1/2
LABELS = (0.0, 0.4)  # the share of wrong ones
RANKS = (1, 2, 10)
LRS = (0.1,)
RADII = (0.0125, 0.025, 0.05, 0.1, 0.14, 0.2, 0.28)


class Shares(Alone):
    """R ranks of each network, as neighbors among the members of `ensemble`."""

    def __init__(self, ensemble, ranks):
        self.ensemble, self.of, self.averaged = ensemble, ranks, True

    @contextmanager
    def apart(self, network):
        self.averaged = False
        yield
        self.averaged = True

    def backward(self, loss, share):
        loss.sum().backward()
        for p in self.ensemble.parameters() if self.averaged else ():
            gradients = p.grad.unflatten(0, (-1, self.of))
            gradients.copy_(gradients.mean(1, keepdim=True).expand_as(gradients))
        return loss


class Cut:
    """The minibatches of some streams, each cut into the shares of R ranks, for all radii."""

    def __init__(self, streams, ranks, radii):
        self.streams, self.of, self.radii = streams, ranks, radii

    def __len__(self):
        return len(self.streams[0])

    def set_epoch(self, epoch):
        for stream in self.streams:
            set_epoch(stream, epoch)

    def __iter__(self):
        for minibatches in zip(*self.streams, strict=True):
            images, labels = map(torch.stack, zip(*minibatches, strict=True))
            shares = [t.unflatten(1, (self.of, -1)).flatten(0, 1) for t in (images, labels)]
            yield tuple(torch.cat([t] * self.radii) for t in shares)


def trained(recipe, seeds, radii, ranks):
    """A network for each radius and seed, and the dataset of each seed."""
    recipes = [replace(recipe, seed=seed) for seed in seeds]
    datasets = [recipe.load() for recipe in recipes]
    firsts = [r.make_model(data) for r, data in zip(recipes, datasets, strict=True)]
    ensemble = Ensemble([first for _ in radii for first in firsts for _ in range(ranks)])
    base = SGD(
        param_groups(ensemble), lr=recipe.lr, momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    rho = torch.tensor(radii).repeat_interleave(len(seeds) * ranks)
    optimizer = make_method(recipe.method, base, rho=rho, k=recipe.k, alpha=recipe.alpha)
    streams = [r.batches(data) for r, data in zip(recipes, datasets, strict=True)]
    setup = Setup(perturbation="local", ranks=Shares(ensemble, ranks))
    fit(
        ensemble, optimizer, Cut(streams, ranks, len(radii)), splits={}, setup=setup,
        loss=member_cross_entropy, **recipe.plan(),
    )  # fmt: skip
    networks = [ensemble.member(e) for e in range(0, ensemble.members, ranks)]
    return [networks[i : i + len(seeds)] for i in range(0, len(networks), len(seeds))], datasets


def accuracies(split, recipe, seeds, radii, ranks):
    """By radius, then by seed."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    found, datasets = trained(recipe, seeds, radii, ranks)
    batches = [evaluation_batches(data)[split] for data in datasets]
    return [
        [round(evaluate(network, b).accuracy, 4) for network, b in zip(row, batches, strict=True)]
        for row in found
    ]


def settings():
    """(method, share of wrong labels, ranks), of which each is tuned."""
    return list(product(METHODS, LABELS, RANKS))


def recipe_of(method, labels, lr):
    return replace(COMMON, method=method, label_noise=labels, lr=lr)


def named(setting, **more):
    return dict(zip(("method", "label_noise", "ranks"), setting, strict=True)) | more


def best(runs, setting):
    """The row of the highest mean validation accuracy."""
    own = [run for run in runs if named(setting).items() <= run.items()]
    return max(own, key=lambda run: sum(run["validation"]))


def study(path, jobs):
    """A row a setting, learning rate and radius; then the test accuracies of each choice."""
    points = list(product(settings(), LRS))
    with stored.workers(jobs) as pool:
        tuned = [
            pool.submit(accuracies, "validation", recipe_of(*s[:2], lr), TUNED_ON, RADII, s[2])
            for s, lr in points
        ]
        runs = [
            named(s, lr=lr, rho=rho, validation=values)
            for (s, lr), job in zip(points, tuned, strict=True)
            for rho, values in zip(RADII, job.result(), strict=True)
        ]
        chosen = [best(runs, s) for s in settings()]
        tested = [
            pool.submit(
                accuracies, "test", recipe_of(*s[:2], row["lr"]), TESTED_ON, [row["rho"]], s[2]
            )
            for s, row in zip(settings(), chosen, strict=True)
        ]
        rows = [
            named(s, lr=row["lr"], rho=row["rho"], test=job.result()[0])
            for s, row, job in zip(settings(), chosen, tested, strict=True)
        ]
    head = {"common": asdict(COMMON), "seeds": [TUNED_ON, TESTED_ON], "lr": LRS, "rho": RADII}
    stored.write(path, head, runs, stored.CPU, tested=rows)


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    study(given.out, given.jobs)
