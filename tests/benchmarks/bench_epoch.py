"""One epoch of Lookbehind-SAM, and its augmented images, against the official recipe.

usage: python tests/benchmarks/bench_epoch.py [--data FOLDER] [--images N] [--rounds N]
           [--no-compile]

Naive: 2k gradients a step, float32 in the layout N, C, H, W, an image at a time through PIL in a
`DataLoader` with one worker, which starts once an epoch. Ours: k + 1 gradients, channels last,
compiled where there is a compiler, batches cut from one tensor, freed memory kept. Each side trains
in a process of its own. Both train the same network on the same number of images with the same step
code, the naive side without its reuse of gradients: the official code's own step is slower. The
compilation happens before the clock starts; how long it takes is printed.

FOLDER holds train/<class>/* and test/<class>/*, as `image_folder` reads it. Without it the images
are random pixels of CIFAR's shape. Both sides crop at random with a border of 4, mirror half of the
images, normalize, and give minibatches of 128 in a new order each epoch; alone, N images at a time.
"""

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from bench import alternate, goal, medians, ratio, run
from problems import Problem
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lookbehind import Ball, Lookbehind, train
from lookbehind.train.data import Split, image_folder

SIZE, FASTER = 128, 15
GOALS = {"resnet8": 2.5, "resnet18": 1.7}  # at k = 5
MINIBATCHES = {"resnet8": 8, "resnet18": 2}


def loader(split):
    mean, std = (split.mean / 255).tolist(), (split.std / 255).tolist()
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    images = datasets.CIFAR10.__new__(datasets.CIFAR10)  # as it is once its files are read
    images.data = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    images.targets, images.target_transform = split.labels.tolist(), None
    images.transform = transforms.Compose(augment + tensor)
    # "fork" is the default of a script on Linux, but not of a process that was spawned.
    options = {"shuffle": True, "num_workers": 1, "multiprocessing_context": "fork"}
    return DataLoader(images, batch_size=SIZE, **options)


def some_images(folder, count):
    if folder:
        print(f"the training images of {folder}")
        return image_folder(folder, train=count).train
    print("random pixels (--data FOLDER takes real images)")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    figures = torch.full((3,), 125.0), torch.full((3,), 62.0)
    return Split(images, torch.arange(count) % 10, *figures)


def drain(batches):
    for images, _ in batches:
        last = images
    return last


class Side:
    """A network, its optimizer, and an epoch of its training."""

    def __init__(self, ours, name, k, split, compile):
        torch.manual_seed(0)
        fastest = train.choose_hardware(compile=compile)
        self.ours, self.hardware = ours, fastest if ours else train.Hardware(fastest.device)
        self.model = self.hardware.place(train.make_model(name))
        base = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        self.optimizer = Lookbehind(base, Ball(0.05), k=k, reuse_gradients=ours)
        self.gradients = k + 1 if ours else 2 * k
        self.batches = loader(split)
        if ours:
            train.keep_freed_memory()
            self.batches = split.to(fastest.device).batches(SIZE, 0, crop=4, flip=True)

    def closure(self, *minibatch):
        return Problem(self.model, [[t.to(self.hardware.device) for t in minibatch]]).closure()

    def epoch(self):
        if self.ours:
            setup = train.Setup(self.hardware.autocast)
            options = {"epochs": 1, "splits": {}, "schedule": train.constant, "setup": setup}
            train.fit(self.model, self.optimizer, self.batches, **options)
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


def compare_data(split, rounds):
    """Print how many images a second both sides make. Returns the median of ours / theirs."""
    ours, theirs = split.batches(SIZE, 0, crop=4, flip=True), loader(split)
    sides = {"ours": lambda: drain(ours), "torchvision": lambda: drain(theirs)}
    alternate(sides, 1)  # warm up
    times = alternate(sides, rounds)
    for name, seconds in medians(times).items():
        print(f"{name:12} {len(split) / seconds:10,.0f} images/s")
    return ratio(times, "torchvision", "ours")


def main(data, images, rounds, no_compile):
    compile = train.has_compiler() and not no_compile
    print(f"{train.choose_hardware(compile=compile)}, {torch.get_num_threads()} threads")
    torch.set_num_threads(1)  # in this process; a side of an epoch has its own
    gain = compare_data(some_images(data, images), rounds + 2)
    goal("augmented images/s over torchvision DataLoader", gain, ">=", FASTER)
    print("network    k  side      epoch    gradients     passes    data     first epoch")
    for (name, bound), k in itertools.product(GOALS.items(), (2, 5)):
        split = some_images(data, MINIBATCHES[name] * SIZE)
        gain = compare(name, k, split, rounds, compile)
        if k == 5:
            goal(f"{name} k=5 naive epoch / ours", gain, ">=", bound, "x")


if __name__ == "__main__":
    run(main, __doc__, data="", images=20_000, rounds=3, no_compile=False)
