"""The sweep behind notebook 09: learning rate and radius for sequences of tasks, on digits.

usage: python notebooks/results/lifelong.py [--out FILE] [--jobs N]

Every method learns split-digits (task- and class-incremental) and permuted digits, with and
without replay, at equal gradients and at equal steps. Of these "runs" the file holds what was
measured on the validation images only: the average accuracy, a value a seed, and the mean of the
forgetting. All learning rates and radii of a method learn at once, as members of an ensemble.

The settings that the accuracy chooses, a control and joint training then learn from five other
seeds, alone: "tested" holds their accuracy matrices on the test images, and "told", how much the
same networks know of each task in the end when they are told which task an image is of: the logits
of other tasks' classes are left out, in measuring only. Of Multistep-SAM and of Lookbehind-SAM the
better of two k is tested. A few minutes on two CPU cores.
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

SEEDS, TESTED_SEEDS = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
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
    "Multistep-SAM k 5": {"method": "Multistep-SAM", "k": 5},
    "Lookbehind-SAM k 2": {"method": "Lookbehind-SAM"},
    "Lookbehind-SAM k 5": {"method": "Lookbehind-SAM", "k": 5, "alpha": 0.2},
}
# Gradients a step.
COSTS = {"SGD": 1, "SAM": 2, "Multistep-SAM k 2": 3, "Lookbehind-SAM k 2": 3}
COSTS |= {"Multistep-SAM k 5": 6, "Lookbehind-SAM k 5": 6}
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


def learned(model, make_optimizer, data, recipe, sequence, **options):
    """What `learn` found; `data` is cut into the tasks of the sequence."""
    of = SEQUENCES[sequence]
    make = lifelong.permuted if sequence == "permuted" else lifelong.split_classes
    options = {"gradients": of["gradients"], "incremental": of["incremental"], **options}
    given = {"seed": recipe.seed, "batch_size": recipe.batch_size, **options}
    return lifelong.learn(model, make_optimizer, make(data, of["tasks"]), **given)


def measured(name, budget, sequence, memory, seed):
    """The average accuracies and forgettings on the validation images, a value a member."""
    in_double_precision()
    recipe = replace(COMMON, seed=seed)
    data = recipe.load()
    unused = replace(data.test, images=data.test.images[:0], labels=data.test.labels[:0])
    data = replace(data, test=unused)
    ensemble = Ensemble([recipe.make_model(data) for _ in pairs(name)])
    found = learned(
        ensemble, partial(make_optimizer, name=name), data, recipe, sequence, memory=memory,
        gradients=budget_of(name, budget, sequence),
        loss=member_cross_entropy, score=evaluate_members,
    )  # fmt: skip
    R = found.accuracy["validation"].nan_to_num(0.0)  # 0 where it diverged
    return lifelong.average_accuracy(R).tolist(), lifelong.average_forgetting(R).tolist()


def in_double_precision():
    """Of the process that is to train, on one thread."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)


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


def choose(runs, sequence, memory):
    """The setting of each method that knows most on the validation images, of each two k the better
    one, and SAM with the effective radius ρ(k + 1)/2 of Lookbehind and its learning rate.
    """
    rows = [r for r in runs if (r["sequence"], r["memory"]) == (sequence, memory)]
    tops = {}
    for row in (r for r in rows if r["budget"] == "equal gradients"):
        known = [
            (sum(values), -i)
            for i, (values, rho) in enumerate(zip(row["validation"], row["rho"], strict=True))
            if rho or row["name"] == "SGD"
        ]
        score, i = max(known)
        settings = {"lr": row["lr"][-i], "rho": row["rho"][-i], **METHODS[row["name"]]}
        tops[row["name"]] = (score, replace(COMMON, **settings))
    for method in ("Multistep-SAM", "Lookbehind-SAM"):
        del tops[min((f"{method} k {k}" for k in (2, 5)), key=lambda name: tops[name][0])]
    recipes = {name: recipe for name, (_, recipe) in tops.items()}
    ours = recipes[next(name for name in recipes if "Lookbehind" in name)]
    effective = replace(ours, method="SAM", rho=ours.rho * (ours.k + 1) / 2)
    return {**recipes, "SAM, effective ρ": effective}


def alone(recipe, sequence, memory, joint):
    """The accuracy matrix of one run on the test images, and what its network knows when told."""
    in_double_precision()
    data, of = recipe.load(), SEQUENCES[sequence]
    gradients = of["gradients"] * (of["tasks"] if joint else 1)
    options = {"memory": memory, "joint": joint, "gradients": gradients}
    model = recipe.make_model(data)
    found = learned(model, recipe.make_optimizer, data, recipe, sequence, **options)
    tasks = lifelong.split_classes(data, of["tasks"]) if "split" in sequence else []
    R = [[round(a, 4) for a in row] for row in found.accuracy["test"].tolist()]
    return R, [round(told(model, task), 4) for task in tasks]


@torch.no_grad()
def told(model, task):
    """The accuracy on the test images of a task among its own classes."""
    [(images, labels)] = task.data.test.batches(len(task.data.test))
    own = torch.tensor(task.classes)
    return float((own[model.eval()(images)[:, own].argmax(1)] == labels).double().mean())


def tested(runs, jobs):
    """One row a chosen setting, with the accuracy matrix of each seed."""
    points = []
    for sequence, memory in product(list(SEQUENCES)[1:], MEMORIES):
        recipes = choose(runs, sequence, memory)
        points += [(name, recipe, sequence, memory, False) for name, recipe in recipes.items()]
        if memory:
            points.append(("joint training", recipes["SGD"], sequence, 0, True))
    every = [(replace(r, seed=seed), *rest) for _, r, *rest in points for seed in TESTED_SEEDS]
    with stored.workers(jobs) as pool:
        found = iter(list(tqdm(pool.map(alone, *zip(*every, strict=True)), total=len(every))))
    for name, recipe, sequence, memory, _ in points:
        accuracy, knows = zip(*(next(found) for _ in TESTED_SEEDS), strict=True)
        yield {
            "name": name, "sequence": sequence, "memory": memory, "lr": recipe.lr,
            "rho": recipe.rho, "accuracy": accuracy, "told": knows,
        }  # fmt: skip


if __name__ == "__main__":
    given = stored.options(__doc__, __file__).parse_args()
    made = {"common": asdict(COMMON), "seeds": SEEDS, "tested_seeds": TESTED_SEEDS}
    made |= {"sequences": SEQUENCES}
    made |= {"methods": METHODS, "costs": COSTS}
    runs = list(sweep(given.jobs))
    stored.write(given.out, made, runs, stored.CPU, tested=list(tested(runs, given.jobs)))
