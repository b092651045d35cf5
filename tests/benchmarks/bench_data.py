"""Augmented images per second: whole batches of a tensor against torchvision in a `DataLoader`.

    python tests/benchmarks/bench_data.py [--data FOLDER] [--images N]

FOLDER holds train/<class>/* and test/<class>/*, as `image_folder` reads it. Without it the images
are random pixels of CIFAR's shape: the clock does not see what they show.

Both sides crop at random with a border of 4, mirror half of the images, normalize, and give
minibatches of 128 in float32 in a new order each epoch. Theirs is the official script's: an image
at a time from an array through PIL, in one worker, which starts once a round, as it does once an
epoch. Ours runs in one thread. The figures are the median of each side and of their ratio.
"""

import torch
from bench import alternate, goal, medians, ratio, run
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lookbehind.train.data import Split, image_folder

GOAL = 15
SIZE = 128


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


def main(data, images, rounds):
    torch.set_num_threads(1)
    split = some_images(data, images)
    ours, theirs = split.batches(SIZE, 0, crop=4, flip=True), loader(split)
    sides = {"ours": lambda: drain(ours), "torchvision": lambda: drain(theirs)}
    alternate(sides, 1)  # warm up
    times = alternate(sides, rounds)
    for name, seconds in medians(times).items():
        print(f"{name:12} {len(split) / seconds:10,.0f} images/s")
    factor = ratio(times, "torchvision", "ours")
    goal("augmented images/s over torchvision DataLoader", factor, ">=", GOAL)


if __name__ == "__main__":
    run(main, __doc__, data="", images=20_000, rounds=5)
