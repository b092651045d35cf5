"""What a step of Lookbehind costs beyond its k + 1 gradients; its memory: `test_optim_costs.py`.

usage: python tests/benchmarks/bench_step.py [--seconds 150], for all timings together
"""

import itertools
import time

import torch
from bench import alternate, goal, ratio, run
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.train.models import resnet8

STEPS = (1, 2, 5, 10)


def resnet():
    return resnet8(), torch.randn(128, 3, 32, 32)


def mlp():
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU())
    return model.append(nn.Linear(256, 10)), torch.randn(512, 784)


def closure_of(model, x):
    y = torch.randint(10, (len(x),))

    def closure():
        model.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        return loss

    return closure


def sgd(params):
    return torch.optim.SGD(params, lr=1e-4, momentum=0.9, weight_decay=5e-4)


def compare(make, k, seconds):
    """(our step / (k + 1) plain forward-backwards, the 2k protocol / ours), medians."""
    torch.manual_seed(0)
    model, x = make()
    closure = closure_of(model, x)
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


def main(seconds):
    torch.set_num_threads(1)  # two that wait for each other make a noisy figure of a busy machine
    print("net      k   step / (k + 1) forward-backwards   2k protocol / step   rounds")
    for (net, make), k in itertools.product({"ResNet-8": resnet, "MLP": mlp}.items(), STEPS):
        overhead, gain, rounds = compare(make, k, seconds / (len(STEPS) * 2))
        print(f"{net:8} {k:2}   {overhead:8.3f} {gain:36.3f} {rounds:16}", flush=True)
        if net == "ResNet-8":
            goal(f"{net} k={k} step / (k + 1) forward-backwards", overhead, "<=", 1.03)
        goal(f"{net} k={k} 2k protocol / step", gain, ">=", 0.97 * 2 * k / (k + 1))


if __name__ == "__main__":
    run(main, __doc__, seconds=150.0)
