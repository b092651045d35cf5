"""One epoch of Lookbehind-SAM: ours against the official recipe, and where the time goes.

usage: python tests/benchmarks/bench_epoch.py [--data FOLDER] [--rounds N] [--no-compile]

Naive: 2k gradients a step, float32 in the layout N, C, H, W, images through PIL in a `DataLoader`
with one worker. Ours: k + 1 gradients, channels last, compiled where there is a compiler, batches
cut from one tensor, freed memory kept. Each side trains in a process of its own. Both train the
same network on the same number of images with the same step code, the naive side without its reuse
of gradients: the official code's own step is slower. The compilation happens before the clock
starts; how long it takes is printed.
"""

import argparse
import itertools
from functools import partial
from multiprocessing import get_context

import torch
from bench import alternate, goal, medians, ratio
from bench_data import SIZE, drain, loader, some_images
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.train import (
    Setup,
    choose_hardware,
    constant,
    fit,
    has_compiler,
    keep_freed_memory,
    make_model,
)

CONTEXT = get_context("spawn")
GOALS = {"resnet8": 2.5, "resnet18": 1.7}  # at k = 5
MINIBATCHES = {"resnet8": 8, "resnet18": 2}


class Side:
    """A network, its optimizer, and an epoch of its training."""

    def __init__(self, name, k, hardware, reuse):
        torch.manual_seed(0)
        self.model = make_model(name) if hardware is None else hardware.place(make_model(name))
        self.device = next(self.model.parameters()).device
        base = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.optimizer = Lookbehind(base, Ball(0.05), k=k, reuse_gradients=reuse)
        self.gradients = k + 1 if reuse else 2 * k

    def closure(self, images, labels):
        images, labels = images.to(self.device), labels.to(self.device)

        def gradient():
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(images), labels)
            loss.backward()
            return loss

        return gradient

    def parts(self):
        """Seconds of an epoch's data, and of its forward and backward passes, alone."""
        closure = self.closure(*next(iter(self.batches)))
        found = medians(alternate({"data": lambda: drain(self.batches), "passes": closure}, 3))
        return found["data"], found["passes"] * len(self.batches) * self.gradients


class Naive(Side):
    def __init__(self, name, k, split, compile):
        super().__init__(name, k, None, reuse=False)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.device = next(self.model.parameters()).device
        self.batches = loader(split)

    def epoch(self):
        for images, labels in self.batches:
            self.optimizer.step(self.closure(images, labels))


class Ours(Side):
    def __init__(self, name, k, split, compile):
        self.hardware = choose_hardware(compile=compile)
        super().__init__(name, k, self.hardware, reuse=True)
        keep_freed_memory()
        self.batches = split.to(self.device).batches(SIZE, 0, crop=4, flip=True)

    def epoch(self):
        options = {"splits": {}, "schedule": constant, "setup": Setup(self.hardware.autocast)}
        fit(self.model, self.optimizer, self.batches, epochs=1, **options)


class Remote:
    """A side in a process of its own, so that what one sets or leaves behind is not the other's."""

    def __init__(self, kind, *arguments):
        self.pipe, there = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(there, kind, *arguments))
        self.process.start()

    def call(self, name):
        self.pipe.send(name)
        return self.pipe.recv()

    def end(self):
        self.pipe.send(None)
        self.process.join()


def serve(pipe, kind, *arguments):
    side = kind(*arguments)
    while name := pipe.recv():
        value = getattr(side, name)
        pipe.send(value() if callable(value) else value)


def compare(name, k, split, rounds, compile):
    """Print what an epoch takes on both sides. Returns the median of naive / ours."""
    sides = {"naive": Remote(Naive, name, k, split, compile)}
    sides["ours"] = Remote(Ours, name, k, split, compile)
    first = alternate({n: partial(side.call, "epoch") for n, side in sides.items()}, 1)
    times = alternate({n: partial(side.call, "epoch") for n, side in sides.items()}, rounds)
    for side_name, side in sides.items():
        whole, (data, passes) = medians(times)[side_name], side.call("parts")
        gradients = f"{side.call('gradients'):6} a step"
        print(f"{name:9} {k:2}  {side_name:6}{whole:9.2f} s{gradients}", end="")
        print(f"{passes / whole:11.0%}{data / whole:8.1%}", end="")
        print(f"{first[side_name][0]:12.1f} s", flush=True)
        side.end()
    gain = ratio(times, "naive", "ours")
    print(f"{name:9} {k:2}  naive / ours {gain:.2f}; by the gradients alone {2 * k / (k + 1):.2f}")
    return gain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of images with train/ and test/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    compile = has_compiler() and not options.no_compile
    print(f"{choose_hardware(compile=compile)}, {torch.get_num_threads()} threads")
    print("network    k  side      epoch    gradients     passes    data     first epoch")
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
