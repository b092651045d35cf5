"""What the tests of data share: datasets compared, images that are known, a root of their own."""

import numpy as np
import pytest
import torch
from PIL import Image

from lookbehind.train.data import Split


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("LOOKBEHIND_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def splits(dataset):
    return [dataset.train, dataset.validation, dataset.test]


def fingerprint(dataset):
    return [tensor for split in splits(dataset) for tensor in (split.images, split.labels)]


def same(a, b):
    return all(map(torch.equal, fingerprint(a), fingerprint(b)))


def numbered(count):
    """Images of random pixels; the label of each is its number."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, 3, 6, 5), dtype=torch.uint8, generator=generator)
    mean, std = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([60.0, 50.0, 40.0])
    return Split(images, torch.arange(count), mean, std)


def pixels(split, images):
    """What was normalized, back in units of the pixels."""
    return images * split.std.view(-1, 1, 1) + split.mean.view(-1, 1, 1)


def paint(folder, per_class=3, mode="RGB", size=(5, 4)):
    """A folder of PNG images of random pixels, as many in train/ as in test/; returns it."""
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            draw(folder / name / f"{i}.png", rng, mode, size)
    return folder


def draw(file, seed=0, mode="RGB", size=(5, 4)):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file)
