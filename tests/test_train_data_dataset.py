# ruff: noqa: F811
"""`data`: the digits, what every dataset shares, and honest splits with seeded noise."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from images import fingerprint, root, same, splits  # noqa: F401
from sklearn.datasets import load_digits

from lookbehind.train.data import DataError, data_root, digits, load


def test_the_three_splits_hold_each_of_the_1797_digits_once():
    dataset = digits(train=500, validation=300)
    assert [len(s) for s in splits(dataset)] == [500, 300, 997]
    found = torch.cat([s.images for s in splits(dataset)]).flatten(1)
    expected, labels = load_digits(return_X_y=True)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.cat(fingerprint(dataset)[1::2]).bincount().tolist() == np.bincount(labels).tolist()


def test_digits_are_bytes_and_normalized_by_the_training_images():
    dataset = digits()
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
    assert list(digits().splits) == ["train", "validation", "test"]
    for split in splits(dataset):
        assert {tensor.device.type for tensor in vars(split).values()} == {"meta"}
    assert dataset.noisy.device.type == "meta"


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
    counts = shift.bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 1700 / 9 * 0.75
    assert counts[1:].max() < 1700 / 9 * 1.25


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"train": 0}, ValueError, r"train must be an int in \[1, 1796\], got 0"),
        ({"train": True}, TypeError, "train must be an int"),
        ({"train": 1700, "validation": 97}, ValueError, r"validation .* \[0, 96\], got 97"),
        ({"label_noise": 40}, ValueError, r"label_noise must be .* in \[0, 1\]; got 40"),
        ({"label_noise": float("nan")}, ValueError, "label_noise"),
        ({"label_noise": "40 %"}, ValueError, "label_noise must be a finite number .* got .40 %"),
        ({"seed": None}, TypeError, "seed must be an int ≥ 0, got None"),
    ],
)
def test_wrong_arguments_are_named(wrong, error, words):
    with pytest.raises(error, match=words):
        digits(**wrong)


def test_load_finds_a_dataset_by_its_name():
    assert same(load("digits", train=20, seed=4), digits(train=20, seed=4))
    with pytest.raises(DataError, match=r'"cifar10", "cifar100" or a folder .*, got .cifar.'):
        load("cifar")


def test_the_root_is_the_argument_then_the_variable_then_the_users_cache(monkeypatch, root):
    assert data_root("here") == Path("here")
    assert data_root("~/here") == Path.home() / "here"
    assert data_root() == root
    monkeypatch.setenv("LOOKBEHIND_DATA", "")
    assert data_root().name == "lookbehind" and data_root().is_absolute()
