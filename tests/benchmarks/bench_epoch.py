"""One epoch of Lookbehind-SAM: ours against the official recipe, and where the time goes.

usage: python tests/benchmarks/bench_epoch.py [--data FOLDER] [--rounds N] [--no-compile]

Naive: 2k gradients a step, float32 in the layout N, C, H, W, images through PIL in a `DataLoader`
with one worker. Ours: k + 1 gradients, channels last, compiled where there is a compiler, batches
cut from one tensor. Both train the same network on the same number of images with the same step
code, the naive side without its reuse of gradients: the official code's own step is slower. The
compilation happens before the clock starts; how long it takes is printed.
"""

import argparse
import itertools
import time

import torch
from bench import alternate, goal, medians, ratio
from bench_data import SIZE, drain, loader, some_images
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.hardware import choose_hardware, has_compiler
from lookbehind.models import make_model
from lookbehind.train import constant, fit

GOALS = {"resnet8": 2.5, "resnet18": 1.7}  # at k = 5
MINIBATCHES = {"resnet8": 8, "resnet18": 2}


class Side:
    """A network, its optimizer, and an epoch of its training."""

    def __init__(self, name, k, hardware, reuse):
        torch.manual_seed(0)
        self.model, self.k = hardware.place(make_model(name)), k
        base = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.optimizer = Lookbehind(base, Ball(0.05), k=k, reuse_gradients=reuse)
        self.hardware, self.gradients = hardware, k + 1 if reuse else 2 * k

    def closure(self, images, labels):
        def gradient():
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(images), labels)
            loss.backward()
            return loss

        return gradient


class Naive(Side):
    def __init__(self, name, k, split):
        super().__init__(name, k, choose_hardware(channels_last=False, bf16=False), reuse=False)
        self.batches = loader(split)

    def epoch(self):
        for images, labels in self.batches:
            images, labels = images.to(self.hardware.device), labels.to(self.hardware.device)
            self.optimizer.step(self.closure(images, labels))


class Ours(Side):
    def __init__(self, name, k, split, compile):
        super().__init__(name, k, choose_hardware(compile=compile), reuse=True)
        split = split.to(self.hardware.device)
        self.batches = split.batches(SIZE, 0, crop=4, flip=True)

    def epoch(self):
        options = {"splits": {}, "schedule": constant, "autocast": self.hardware.autocast}
        fit(self.model, self.optimizer, self.batches, epochs=1, **options)


def parts(side):
    """Seconds of an epoch without training, and of its forward and backward passes alone."""
    images, labels = next(iter(side.batches))
    closure = side.closure(images.to(side.hardware.device), labels.to(side.hardware.device))
    passes = len(side.batches) * side.gradients
    times = alternate({"data": lambda: drain(side.batches), "passes": closure}, 3)
    found = medians(times)
    return found["data"], found["passes"] * passes


def compare(name, k, split, rounds, compile):
    """Print one row of the table. Returns the median of naive / ours."""
    ours, naive = Ours(name, k, split, compile), Naive(name, k, split)
    start = time.perf_counter()
    ours.epoch()  # compiles
    first = time.perf_counter() - start
    naive.epoch()
    times = alternate({"naive": naive.epoch, "ours": ours.epoch}, rounds)
    gain = ratio(times, "naive", "ours")
    for side_name, side in (("naive", naive), ("ours", ours)):
        whole, (data, passes) = medians(times)[side_name], parts(side)
        rest = f"{passes / whole:10.0%} {data / whole:10.1%}"
        print(f"{name:9} {k:2}  {side_name:6} {whole:9.2f} {side.gradients:6}/step {rest}", end="")
        print(f"   first epoch {first:.1f} s" if side is ours else "", flush=True)
    print(f"{name:9} {k:2}  naive / ours {gain:.2f}; gradients alone {2 * k / (k + 1):.2f}")
    return gain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of images with train/ and test/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    compile = has_compiler() and not options.no_compile
    print(f"{choose_hardware(compile=compile)}, {torch.get_num_threads()} threads")
    print("network    k  side    seconds    gradients    passes   data alone")
    goals = []
    for (name, bound), k in itertools.product(GOALS.items(), (2, 5)):
        split = some_images(options.data, MINIBATCHES[name] * SIZE)
        gain = compare(name, k, split, options.rounds, compile)
        if k == 5:
            goals.append((f"{name} k=5 naive epoch / ours", gain, ">=", bound, "x"))
    print()
    met = [goal(*one) for one in goals]
    return all(met)


if __name__ == "__main__":
    raise SystemExit(not main())
