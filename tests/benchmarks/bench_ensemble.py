"""Many networks trained as one: how many runs a second, beside one network at a time.

usage: python tests/benchmarks/bench_ensemble.py [--rounds N]

Both sides train an MLP by `fit` with the methods of `Recipe`, on digits, in float32: as an ensemble
of two sizes on all threads of this machine, and alone on one or all of them, whichever is quicker.
"""

from dataclasses import replace
from functools import partial

import torch
from bench import alternate, goal, medians, ratio, run

from lookbehind.optim import make_method, param_groups
from lookbehind.study import Ensemble, member_cross_entropy
from lookbehind.study.ensemble import MemberBatches
from lookbehind.train import Recipe, choose_hardware, constant, fit, keep_freed_memory

THREADS = torch.get_num_threads()
MEMBERS, GOAL, STEPS, SEEDS = (120, 240), 20, 30, 5


def trainer(model, optimizer, batches, gradients, **options):
    """Train on, for so many gradients."""

    def train():
        fit(model, optimizer, batches, gradients=gradients, splits={}, schedule=constant, **options)

    return train


def alone(recipe):
    keep_freed_memory()
    dataset = recipe.load()
    model = choose_hardware("cpu").place(recipe.make_model(dataset))
    return trainer(model, recipe.make_optimizer(model), recipe.batches(dataset), recipe.gradients)


def together(recipe, members):
    datasets = [replace(recipe, seed=seed).load() for seed in range(SEEDS)]
    models = [replace(recipe, seed=seed).make_model(datasets[0]) for seed in range(members)]
    ensemble = Ensemble(models)
    rho, alpha = torch.linspace(0.05, 0.25, members), torch.linspace(0.2, 0.8, members)
    options = {name: getattr(recipe, name) for name in ("lr", "momentum", "weight_decay")}
    base = torch.optim.SGD(param_groups(ensemble), **options)
    optimizer = make_method(recipe.method, base, rho=rho, k=recipe.k, alpha=alpha)
    streams = [replace(recipe, seed=s).batches(dataset) for s, dataset in enumerate(datasets)]
    batches = MemberBatches(streams, of=[e % SEEDS for e in range(members)])
    return trainer(ensemble, optimizer, batches, recipe.gradients, loss=member_cross_entropy)


def on_threads(count, train):
    torch.set_num_threads(count)
    train()


def compare(recipe, rounds):
    """Print both sides' time. Returns runs a second as an ensemble over those alone."""
    sides = {f"alone, {n} threads": partial(on_threads, n, alone(recipe)) for n in {1, THREADS}}
    for members in MEMBERS:
        sides[members] = partial(on_threads, THREADS, together(recipe, members))
    alternate(sides, 1)
    times = alternate(sides, rounds)
    found = medians(times)
    one = min((side for side in sides if side not in MEMBERS), key=found.__getitem__)
    for side, seconds in found.items():
        each = 1e3 * seconds / recipe.gradients / (side if side in MEMBERS else 1)
        name = f"{side} together" if side in MEMBERS else side
        print(f"{recipe.method:15} {name:26} {each:8.4f} ms a gradient of a network", flush=True)
    return max(members * ratio(times, one, members) for members in MEMBERS)


def main(rounds):
    for method, k in (("SAM", 1), ("Lookbehind-SAM", 2)):
        gain = compare(Recipe(method=method, k=k, gradients=STEPS * (k + 1)), rounds)
        goal(f"{method} runs a second, together / alone", gain, ">=", GOAL)


if __name__ == "__main__":
    run(main, __doc__, rounds=9)
