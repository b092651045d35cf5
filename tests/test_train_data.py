# ruff: noqa: F811
"""`data`: the digits, seeded splits and noise; minibatches, their order, crops and flips."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from images import fingerprint, numbered, pixels, root, same, splits  # noqa: F401
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits

from lookbehind.train.data import Split, data_root, digits

BATCHES = partial(numbered(23).batches, size=5)


def test_the_splits_hold_each_of_the_1797_digits_once_in_bytes_and_are_normalized_by_the_first():
    dataset = digits(train=500, validation=300)
    assert [len(s) for s in splits(dataset)] == [500, 300, 997]
    parts, expected = fingerprint(dataset), load_digits(return_X_y=True)
    found = torch.cat(parts[::2]).flatten(1), torch.cat(parts[1::2])
    ours, theirs = (sorted(zip(x.tolist(), y.tolist(), strict=True)) for x, y in (found, expected))
    assert ours == theirs
    images = dataset.train.images
    assert images.dtype == torch.uint8 and images.shape == (500, 1, 8, 8)
    assert dataset.train.labels.dtype == torch.int64
    for split in splits(dataset):
        torch.testing.assert_close(split.mean, images.double().mean().float()[None])
        torch.testing.assert_close(split.std, images.double().std().float()[None])


def test_a_dataset_says_what_it_holds_and_moves_to_a_device_with_all_of_it():
    dataset = digits(train=10, validation=0, label_noise=0.1, device="meta")
    assert (dataset.channels, dataset.size) == (1, (8, 8))
    assert dataset.classes == tuple("0123456789")
    assert list(dataset.splits) == ["train", "test"]
    none = dataset.validation.batches(5)
    assert len(none) == 0 and list(none) == []
    assert list(digits().splits) == ["train", "validation", "test"]
    tensors = [t for split in splits(dataset) for t in vars(split).values()]
    assert {t.device.type for t in (*tensors, dataset.noisy)} == {"meta"}


@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_noise_replaces_exactly_that_share_of_the_training_labels_only(share):
    clean, noisy = digits(seed=3), digits(label_noise=share, seed=3)
    wrong = clean.train.labels != noisy.train.labels
    assert torch.equal(wrong, noisy.noisy)
    assert wrong.sum() == round(share * 500)
    assert torch.equal(clean.train.images, noisy.train.images)
    assert all(map(torch.equal, fingerprint(clean)[2:], fingerprint(noisy)[2:]))
    assert same(noisy, digits(label_noise=share, seed=3))
    assert not same(noisy, digits(label_noise=share, seed=2))


def test_noise_goes_evenly_to_the_nine_wrong_classes():
    draw = partial(digits, train=1700, validation=50)
    shift = (draw(label_noise=1).train.labels - draw().train.labels) % 10
    none, *counts = shift.bincount(minlength=10).tolist()
    assert none == 0
    assert counts == pytest.approx([1700 / 9] * 9, rel=0.25)


@pytest.mark.parametrize(
    ("make", "wrong", "error", "words"),
    [
        (digits, {"train": 0}, ValueError, r"train must be an int in \[1, 1796\], got 0"),
        (digits, {"train": True}, TypeError, "train must be an int"),
        (digits, {"train": 1700, "validation": 97}, ValueError, r"validation .*\[0, 96\], got 97"),
        (digits, {"label_noise": 40}, ValueError, r"label_noise must be .* in \[0, 1\]; got 40"),
        (digits, {"label_noise": float("nan")}, ValueError, "label_noise"),
        (digits, {"label_noise": "40 %"}, ValueError, "label_noise must be a finite number .*40 %"),
        (digits, {"seed": None}, TypeError, "seed must be an int ≥ 0, got None"),
        (BATCHES, {"size": 0}, ValueError, "size must be an int ≥ 1, got 0"),
        (BATCHES, {"size": 24, "drop_last": True}, ValueError, r"size .*\[1, 23\], got 24"),
        (BATCHES, {"seed": 0.5}, TypeError, "seed must be an int"),
        (BATCHES, {"seed": 0, "crop": 6}, ValueError, r"crop must be an int in \[0, 5\], got 6"),
        (BATCHES, {"crop": 4}, ValueError, "seed must be an int ≥ 0 for random crops"),
        (BATCHES, {"flip": True}, ValueError, "for random crops and flips, got None"),
        (BATCHES().set_epoch, {"epoch": -1}, ValueError, "epoch must be an int ≥ 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(make, wrong, error, words):
    with pytest.raises(error, match=words):
        make(**wrong)


def test_the_root_is_the_argument_then_the_variable_then_the_users_cache(monkeypatch, root):
    assert data_root("here") == Path("here")
    assert data_root("~/here") == Path.home() / "here"
    assert data_root() == root
    monkeypatch.setenv("LOOKBEHIND_DATA", "")
    assert data_root().name == "lookbehind" and data_root().is_absolute()


def test_minibatches_are_normalized_and_of_the_default_float_type():
    split = numbered(20)
    expected = (split.images.double() - split.mean.view(-1, 1, 1)) / split.std.view(-1, 1, 1)
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        images = torch.cat([images for images, _ in split.batches(7)])
        assert images.dtype == dtype and images.is_contiguous()
        torch.testing.assert_close(images, expected.to(dtype))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"seed": 0}, [5, 5, 5, 5, 3]),
        ({"seed": 0, "drop_last": True}, [5] * 4),  # the same, but for the last
        ({}, [5, 5, 5, 5, 3]),  # in the order of the split
        ({"size": 5000}, [23]),
        ({"size": 23, "drop_last": True}, [23]),
    ],
)
def test_an_epoch_holds_every_image_once_with_its_own_label(options, sizes):
    split, options = numbered(23), {"size": 5} | options
    batches = split.batches(**options)
    epoch = list(batches)
    assert [len(labels) for _, labels in epoch] == sizes and len(batches) == len(sizes)
    order = torch.cat([labels for _, labels in epoch])
    whole = [labels for _, labels in split.batches(**options | {"drop_last": False})]
    assert torch.equal(order, torch.cat(whole)[: len(order)])
    assert sorted(torch.cat(whole).tolist()) == list(range(23))
    assert (order.tolist() == sorted(order.tolist())) == ("seed" not in options)
    found = pixels(split, torch.cat([images for images, _ in epoch]))
    assert torch.equal(found.round().byte(), split.images[order])


@pytest.mark.parametrize(("crop", "flip"), [(4, True), (2, False), (0, True)])
def test_a_crop_is_a_window_of_the_bordered_image_mirrored_or_not(crop, flip):
    """The oracle: every window of every image, padded and cut by NumPy."""
    split, border, seen = numbered(40), ((0, 0), (crop, crop), (crop, crop)), set()
    for images, labels in split.batches(16, seed=1, crop=crop, flip=flip):
        found = pixels(split, images).round().byte().numpy()
        for image, whole in zip(found, split.images[labels].numpy(), strict=True):
            windows = sliding_window_view(np.pad(whole, border), whole.shape)[0]
            windows = np.stack([windows, windows[..., ::-1]])  # mirrored, y, x, then an image
            (where,) = np.argwhere((windows == image).all((3, 4, 5))).tolist()
            seen.add(tuple(where))
    assert len(seen) > 12 * bool(crop)
    assert {mirrored for mirrored, _, _ in seen} == ({0, 1} if flip else {0})


def test_every_corner_and_both_sides_are_equally_likely_and_independent():
    """One image of distinct pixels, many times: 9 corners x 2 sides, chi-squared at p = 1e-4."""
    images = torch.arange(1, 26, dtype=torch.uint8).view(5, 5).expand(9000, 1, 5, 5)
    split = Split(images, torch.zeros(9000).long(), torch.zeros(1), torch.ones(1))
    images, _ = next(iter(split.batches(9000, seed=0, crop=1, flip=True)))
    found = Counter(map(tuple, images.flatten(1).tolist()))
    assert len(found) == 18
    assert sum((n - 500) ** 2 / 500 for n in found.values()) < 45.0


def test_an_epoch_depends_on_its_seed_and_number_alone():
    split = numbered(50)
    batches = split.batches(16, seed=5, crop=4, flip=True)
    epochs = [torch.cat([images for images, _ in batches]) for _ in range(4)]
    assert batches.epoch == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(epochs) for b in epochs[:i])
    again = split.batches(16, seed=5, crop=4, flip=True)
    again.set_epoch(2)
    next(iter(again))  # an epoch that is given up
    for number in (3, 0, 2):
        if number != 3:
            again.set_epoch(number)
        assert torch.equal(torch.cat([images for images, _ in again]), epochs[number])


def test_neighbouring_seeds_have_nothing_in_common_and_crops_leave_the_order():
    """`seed + epoch` would give seed 1, epoch 0 the order of seed 0, epoch 1."""
    split = numbered(50)
    ways = split.batches(50, 0), split.batches(50, 1), split.batches(50, 0, crop=3, flip=True)
    zero, one, moved = ([tuple(next(iter(way))[1].tolist()) for _ in range(2)] for way in ways)
    assert moved == zero and len({*zero, *one}) == 4


@pytest.mark.gpu
def test_a_gpu_gives_the_minibatches_of_the_cpu():
    split = numbered(50)
    options = {"size": 16, "seed": 3, "crop": 4, "flip": True}
    pairs = zip(split.batches(**options), split.to("cuda").batches(**options), strict=True)
    for ours, theirs in pairs:
        assert all(tensor.is_cuda for tensor in theirs)
        torch.testing.assert_close([tensor.cpu() for tensor in theirs], [*ours])


@pytest.mark.gpu
def test_within_an_epoch_the_gpu_is_never_waited_for():
    """What throughput needs, without a clock: an epoch is drawn at once, then only queued."""
    minibatches = iter(numbered(50).to("cuda").batches(8, 3, crop=4, flip=True))
    next(minibatches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(len(labels) for _, labels in minibatches) == 42
    finally:
        torch.cuda.set_sync_debug_mode("default")
