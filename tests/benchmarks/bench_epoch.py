"""One epoch of Lookbehind-SAM: ours against the official recipe, and where the time goes.

usage: python tests/benchmarks/bench_epoch.py [--data FOLDER] [--rounds N] [--no-compile]

Naive: 2k gradients a step, float32 in the layout N, C, H, W, images through PIL in a `DataLoader`
with one worker. Ours: k + 1 gradients, channels last, compiled where there is a compiler, batches
cut from one tensor, freed memory kept. Each side trains in a process of its own. Both train the
same network on the same number of images with the same step code, the naive side without its reuse
of gradients: the official code's own step is slower. The compilation happens before the clock
starts; how long it takes is printed.
"""

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from bench import alternate, goal, medians, ratio, run
from bench_data import SIZE, drain, loader, some_images
from torch.nn.functional import cross_entropy

from lookbehind import Ball, Lookbehind
from lookbehind.train import (
    Hardware,
    Setup,
    choose_hardware,
    constant,
    fit,
    has_compiler,
    keep_freed_memory,
    make_model,
)

GOALS = {"resnet8": 2.5, "resnet18": 1.7}  # at k = 5
MINIBATCHES = {"resnet8": 8, "resnet18": 2}


class Side:
    """A network, its optimizer, and an epoch of its training."""

    def __init__(self, ours, name, k, split, compile):
        torch.manual_seed(0)
        fastest = choose_hardware(compile=compile)
        self.ours, self.hardware = ours, fastest if ours else Hardware(fastest.device)
        self.model = self.hardware.place(make_model(name))
        base = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.optimizer = Lookbehind(base, Ball(0.05), k=k, reuse_gradients=ours)
        self.gradients = k + 1 if ours else 2 * k
        self.batches = loader(split)
        if ours:
            keep_freed_memory()
            self.batches = split.to(fastest.device).batches(SIZE, 0, crop=4, flip=True)

    def closure(self, *minibatch):
        images, labels = (t.to(self.hardware.device) for t in minibatch)

        def gradient():
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(images), labels)
            loss.backward()
            return loss

        return gradient

    def epoch(self):
        if self.ours:
            options = {"splits": {}, "schedule": constant, "setup": Setup(self.hardware.autocast)}
            fit(self.model, self.optimizer, self.batches, epochs=1, **options)
            return
        for minibatch in self.batches:
            self.optimizer.step(self.closure(*minibatch))

    def parts(self):
        """Seconds of an epoch's data, and of its forward and backward passes, alone."""
        closure = self.closure(*next(iter(self.batches)))
        found = medians(alternate({"data": lambda: drain(self.batches), "passes": closure}, 3))
        return found["data"], found["passes"] * len(self.batches) * self.gradients


def make(*arguments):
    global side
    side = Side(*arguments)


def ask(name):
    return getattr(side, name)()


def remote(*arguments):
    """A side in a process of its own, so that what one sets or leaves behind is not the other's."""
    spawn = get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=make, initargs=arguments)
    return lambda name: pool.submit(ask, name).result()


def compare(name, k, split, rounds, compile):
    """Print what an epoch takes on both sides. Returns the median of naive / ours."""
    sides = {one: remote(one == "ours", name, k, split, compile) for one in ("naive", "ours")}
    epochs = {one: lambda call=call: call("epoch") for one, call in sides.items()}
    first, times = alternate(epochs, 1), alternate(epochs, rounds)
    for one, gradients in {"naive": 2 * k, "ours": k + 1}.items():
        whole, (data, passes) = medians(times)[one], sides[one]("parts")
        print(f"{name:9} {k:2}  {one:6}{whole:9.2f} s{gradients:6} a step", end="")
        print(f"{passes / whole:11.0%}{data / whole:8.1%}{first[one][0]:12.1f} s", flush=True)
    gain = ratio(times, "naive", "ours")
    print(f"{name:9} {k:2}  naive / ours {gain:.2f}; by the gradients alone {2 * k / (k + 1):.2f}")
    return gain


def main(data, rounds, no_compile):
    compile = has_compiler() and not no_compile
    print(f"{choose_hardware(compile=compile)}, {torch.get_num_threads()} threads")
    print("network    k  side      epoch    gradients     passes    data     first epoch")
    for (name, bound), k in itertools.product(GOALS.items(), (2, 5)):
        split = some_images(data, MINIBATCHES[name] * SIZE)
        gain = compare(name, k, split, rounds, compile)
        if k == 5:
            goal(f"{name} k=5 naive epoch / ours", gain, ">=", bound, "x")


if __name__ == "__main__":
    run(main, __doc__, data="", rounds=3, no_compile=False)
