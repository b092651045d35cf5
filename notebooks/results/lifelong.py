"""The sweep behind notebook 09: learning rate and radius for sequences of tasks, on digits.

usage: python notebooks/results/lifelong.py [--out FILE] [--jobs N]

Every method learns split-digits (task- and class-incremental) and permuted digits, with and
without replay, at equal gradients and at equal steps. The file holds what was measured on the
validation images only: the average accuracy, a value a seed, and the mean of the forgetting. The
notebook chooses by the accuracy, and makes the chosen runs itself. All learning rates and radii of
a method learn at once, as members of an ensemble: a few minutes on two CPU cores.
"""

from dataclasses import asdict, replace
from functools import partial
from itertools import product

import stored
import torch
from tqdm import tqdm

from lookbehind import param_groups
from lookbehind.optim import make_method
from lookbehind.study import Ensemble, evaluate_members, lifelong, member_cross_entropy, scale_lr
from lookbehind.train import Recipe
from lookbehind.train.data import digits

SEEDS = (0, 1, 2, 3, 4)
COMMON = Recipe(train=500, validation=500, batch_size=20)
MEMORIES = (0, 50)
# `gradients` of each task at equal gradients. At equal steps a third as many steps, the same for
# a method of three gradients a step.
SEQUENCES = {
    "split, task-incremental": {"tasks": 5, "incremental": "task", "gradients": 75},
    "split, class-incremental": {"tasks": 5, "incremental": "class", "gradients": 75},
    "permuted": {"tasks": 3, "incremental": "class", "gradients": 120},
}
# α = 1 / k: a step of Lookbehind is then about as long as one of SAM with the same lr.
METHODS = {
    "SGD": {"method": "SGD"},
    "SAM": {"method": "SAM"},
    "Multistep-SAM k 2": {"method": "Multistep-SAM"},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM"},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2},
}
# Gradients a step.
COSTS = {"SGD": 1, "SAM": 2, "Multistep-SAM k 2": 3, "Lookbehind-SAM k 2": 3}
COSTS["Lookbehind-SAM k 5"] = 6
BUDGETS = ("equal gradients", "equal steps")
LRS = (0.003, 0.01, 0.03, 0.1, 0.3)
RADII = (0.0125, 0.025, 0.05, 0.1, 0.2)


def pairs(name):
    """The learning rates and radii tried; at radius 0 Lookbehind is its k descents alone."""
    if name == "SGD":
        return list(product((0.001, *LRS), (0.0,)))
    return list(product(LRS, (0.0, *RADII) if "Lookbehind" in name else RADII))


def budget_of(name, budget, sequence):
    """The gradients of a task."""
    gradients = SEQUENCES[sequence]["gradients"]
    return gradients if budget == "equal gradients" else gradients // 3 * COSTS[name]


def make_optimizer(ensemble, name):
    """A member a learning rate and radius."""
    lrs, radii = torch.tensor(pairs(name)).unbind(1)
    options = {"momentum": COMMON.momentum, "weight_decay": COMMON.weight_decay}
    base = torch.optim.SGD(param_groups(ensemble), lr=1.0, **options)
    scale_lr(base, lrs)
    recipe = replace(COMMON, **METHODS[name])
    return make_method(recipe.method, base, rho=radii, k=recipe.k, alpha=recipe.alpha)


def measured(name, budget, sequence, memory, seed):
    """The average accuracies and forgettings on the validation images, a value a member."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    recipe, of = replace(COMMON, seed=seed), SEQUENCES[sequence]
    data = digits(train=recipe.train, validation=recipe.validation, seed=seed)
    unused = replace(data.test, images=data.test.images[:0], labels=data.test.labels[:0])
    data = replace(data, test=unused)
    make = lifelong.permuted if sequence == "permuted" else lifelong.split_classes
    found = lifelong.learn(
        Ensemble([recipe.make_model(data) for _ in pairs(name)]),
        partial(make_optimizer, name=name), make(data, of["tasks"]), memory=memory, seed=seed,
        gradients=budget_of(name, budget, sequence), batch_size=recipe.batch_size,
        incremental=of["incremental"], loss=member_cross_entropy, score=evaluate_members,
    )  # fmt: skip
    R = found.accuracy["validation"].nan_to_num(0.0)  # 0 where it diverged
    return lifelong.average_accuracy(R).tolist(), lifelong.average_forgetting(R).tolist()


def sweep(jobs):
    """One row a method, budget, sequence and memory, with a list a learning rate and radius."""
    points = list(product(METHODS, BUDGETS, SEQUENCES, MEMORIES))
    runs = [(*point, seed) for point in points for seed in SEEDS]
    with stored.workers(jobs) as pool:
        measures = pool.map(measured, *zip(*runs, strict=True))
        found = iter(list(tqdm(measures, total=len(runs), unit=" runs", mininterval=10)))
    for point in points:
        accuracies, forgettings = zip(*(next(found) for _ in SEEDS), strict=True)
        lrs, radii = zip(*pairs(point[0]), strict=True)
        yield {
            **dict(zip(("name", "budget", "sequence", "memory"), point, strict=True)),
            "lr": lrs,
            "rho": radii,
            "validation": [[round(v, 3) for v in some] for some in zip(*accuracies, strict=True)],
            "forgetting": [round(sum(f) / len(f), 3) for f in zip(*forgettings, strict=True)],
        }


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    made = {"common": asdict(COMMON), "seeds": SEEDS, "sequences": SEQUENCES}
    made |= {"methods": METHODS, "costs": COSTS}
    stored.write(given.out, made, list(sweep(given.jobs)), stored.CPU)
