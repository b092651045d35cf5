"""What a plane of the loss costs beside the forward passes that it is made of.

A 21 x 21 plane of a ResNet-8 on 512 images has 441 points. A round times 49 of them, a 7 x 7 plane
by `plane` itself, and 49 plain forward passes of the same network over the same minibatches in
each layout, in turn. NCHW passes are what the loss-landscapes package takes for the same plane.

usage: python tests/benchmarks/bench_landscape.py [--rounds 5]
"""

import copy
import time

import torch
from bench import alternate, goal, medians, ratio, run

from lookbehind.measure import filter_normalized, gaussian_direction, plane
from lookbehind.train import make_model

IMAGES, BATCH, POINTS = 512, 256, 7
FORMATS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


def problem(name, channels, size, images, batch):
    """A network, minibatches, and two directions, filter-normalized."""
    torch.manual_seed(0)
    model = make_model(name, channels=channels, classes=10, size=size).eval()
    x, y = torch.randn(images, channels, *size), torch.randint(10, (images,))
    directions = [filter_normalized(model, gaussian_direction(model, seed=s)) for s in (0, 1)]
    return model, list(zip(x.split(batch), y.split(batch), strict=True)), directions


def passes(model, batches, layout, count):
    """So many passes over all images; weights and images are in the layout from the start."""
    model = copy.deepcopy(model).to(memory_format=layout)
    images = [x.contiguous(memory_format=layout) for x, _ in batches]

    @torch.no_grad()
    def run():
        for _ in range(count):
            for x in images:
                model(x)

    return run


def main(rounds):
    model, batches, directions = problem("resnet8", 3, (32, 32), IMAGES, BATCH)
    sides = {"plane": lambda: plane(model, batches, *directions, points=POINTS)}
    count = POINTS**2
    sides |= {name: passes(model, batches, f, count) for name, f in FORMATS.items()}
    alternate({name: passes(model, batches, f, 3) for name, f in FORMATS.items()}, 1)
    times = alternate(sides, rounds)
    found = medians(times)
    for name, seconds in found.items():
        print(f"{name}: {1000 * seconds / count:.0f} ms a point, median of {rounds} rounds")
    fastest = min(FORMATS, key=found.get)
    goal(f"plane / plain passes, {fastest}", ratio(times, "plane", fastest), "<=", 1.10)
    goal("plane / NCHW passes (loss-landscapes)", ratio(times, "plane", "NCHW"), "<=", 0.75)
    model, batches, directions = problem("tiny-cnn", 1, (8, 8), 500, 500)
    seen, start = [], time.perf_counter()
    plane(model, batches, *directions, update=lambda _: seen.append(time.perf_counter() - start))
    goal("first picture, tiny-cnn on 500 digits", seen[0], "<=", 1.0, "s")


if __name__ == "__main__":
    run(main, __doc__, rounds=5)
