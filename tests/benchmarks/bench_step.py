"""What a step of Lookbehind costs beyond its k + 1 gradients, and a trajectory on a toy loss.

usage: python tests/benchmarks/bench_step.py [--seconds 150], for all timings of a step together

Its memory: `test_optim_costs.py`. Trajectories: one, and 250 in one call, on one core.
"""

import itertools
import time
from functools import partial

import torch
from bench import alternate, goal, medians, ratio, run
from problems import Problem
from torch import nn
from torch.optim import SGD

from lookbehind import Ball, Lookbehind
from lookbehind.toy import LOSSES, descend
from lookbehind.train.models import resnet8

STEPS, MEMBERS, ROUNDS = (1, 2, 5, 10), 250, 15
LOSS = LOSSES["valley"]


def resnet():
    return resnet8(), torch.randn(128, 3, 32, 32)


def mlp():
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU())
    return model.append(nn.Linear(256, 10)), torch.randn(512, 784)


def compare(make, k, seconds):
    """(our step / (k + 1) plain forward-backwards, the 2k protocol / ours), medians."""
    torch.manual_seed(0)
    model, x = make()
    closure = Problem(model, [(x, torch.randint(10, (len(x),)))]).closure()
    sgd = partial(SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    ours, official = (
        Lookbehind(sgd(model.parameters()), Ball(1e-3), k=k, reuse_gradients=reuse)
        for reuse in (True, False)
    )
    sides = {
        "plain": lambda: [closure() for _ in range(k + 1)],
        "ours": lambda: ours.step(closure),
        "2k": lambda: official.step(closure),
    }
    start = time.perf_counter()
    alternate(sides, 2)
    rounds = max(9, int(seconds / (time.perf_counter() - start) * 2))
    times = alternate(sides, rounds)
    return ratio(times, "ours", "plain"), ratio(times, "2k", "ours"), rounds


def trajectories(members):
    rho = torch.linspace(0.01, 0.2, members, dtype=torch.float64)
    make = lambda w: Lookbehind(SGD(w, lr=0.05), Ball(rho), k=5, alpha=0.2)  # noqa: E731
    descend(LOSS, [LOSS.start] * members, make, 40)


def main(seconds):
    torch.set_num_threads(1)  # two that wait for each other make a noisy figure of a busy machine
    print("net      k   step / (k + 1) forward-backwards   2k protocol / step   rounds")
    for (net, make), k in itertools.product({"ResNet-8": resnet, "MLP": mlp}.items(), STEPS):
        overhead, gain, rounds = compare(make, k, seconds / (len(STEPS) * 2))
        print(f"{net:8} {k:2}   {overhead:8.3f} {gain:36.3f} {rounds:16}", flush=True)
        if net == "ResNet-8":
            goal(f"{net} k={k} step / (k + 1) forward-backwards", overhead, "<=", 1.03)
        goal(f"{net} k={k} 2k protocol / step", gain, ">=", 0.97 * 2 * k / (k + 1))
    sides = {"one": partial(trajectories, 1), "many": partial(trajectories, MEMBERS)}
    one, many = medians(alternate(sides, ROUNDS)).values()
    print(f"a trajectory at a time, {MEMBERS} of them would take {MEMBERS * one:.1f} s")
    goal("one trajectory, 40 steps of k = 5", 1e3 * one, "<=", 60, " ms")
    goal("250 trajectories in one call", 1e3 * many, "<=", 250, " ms")


if __name__ == "__main__":
    run(main, __doc__, seconds=150.0)
