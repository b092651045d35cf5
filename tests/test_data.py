"""`data`: real digits, honest splits, seeded noise, minibatches that hold every image once."""

import pytest
import torch
from sklearn.datasets import load_digits

from lookbehind.data import Dataset, digits


def fingerprint(dataset: Dataset) -> list[torch.Tensor]:
    splits = (dataset.train, dataset.validation, dataset.test)
    return [tensor for split in splits for tensor in (split.images, split.labels)]


def same(a: Dataset, b: Dataset) -> bool:
    pairs = zip(fingerprint(a), fingerprint(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_three_splits_hold_each_of_the_1797_digits_once() -> None:
    dataset = digits(train=500, validation=300)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [500, 300, 997]
    found = torch.cat([s.images for s in (dataset.train, dataset.validation, dataset.test)])
    pixels, labels = load_digits(return_X_y=True)
    expected = torch.tensor(pixels, dtype=torch.get_default_dtype())
    mean, std = dataset.train.images.mean(), dataset.train.images.std()
    assert mean.abs() < 1e-5
    assert std == pytest.approx(1, abs=1e-5)
    restored = found.flatten(1) - found.min()
    restored = (restored * 16 / restored.max()).round()
    assert sorted(map(tuple, restored.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.cat(fingerprint(dataset)[1::2]).bincount().tolist() == (
        torch.tensor(labels).bincount().tolist()
    )


def test_images_are_one_channel_of_the_default_float_type() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        images = digits().test.images
    finally:
        torch.set_default_dtype(torch.float32)
    assert images.shape == (997, 1, 8, 8)
    assert images.dtype == torch.float64
    assert digits().train.images.dtype == torch.float32
    assert digits().train.labels.dtype == torch.int64


@pytest.mark.parametrize("share", [0, 0.1, 0.4, 1])
def test_noise_replaces_exactly_that_share_of_the_training_labels_only(share: float) -> None:
    clean, noisy = digits(seed=3), digits(label_noise=share, seed=3)
    wrong = clean.train.labels != noisy.train.labels
    assert torch.equal(wrong, noisy.noisy)
    assert wrong.sum() == round(share * 500)
    assert torch.equal(clean.train.images, noisy.train.images)
    for a, b in zip(fingerprint(clean)[2:], fingerprint(noisy)[2:], strict=True):
        assert torch.equal(a, b)


def test_noise_goes_evenly_to_the_nine_wrong_classes() -> None:
    clean, noisy = digits(train=1700, validation=50), digits(
        train=1700, validation=50, label_noise=1
    )  # fmt: skip
    shift = (noisy.train.labels - clean.train.labels) % 10
    counts = shift.bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 1700 / 9 * 0.75
    assert counts[1:].max() < 1700 / 9 * 1.25


def test_a_seed_gives_the_same_dataset_another_seed_another() -> None:
    assert same(digits(label_noise=0.4, seed=1), digits(label_noise=0.4, seed=1))
    assert not same(digits(label_noise=0.4, seed=1), digits(label_noise=0.4, seed=2))


def test_a_seed_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(digits(label_noise=0.4).train.batches(50, seed=1)))
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_holds_every_image_once_with_its_own_label() -> None:
    test = digits().test
    batches = test.batches(50, seed=0)
    epoch = list(batches)
    assert len(batches) == len(epoch) == 20
    assert [len(labels) for _, labels in epoch] == [50] * 19 + [47]
    rows = torch.cat([images.flatten(1) for images, _ in epoch])
    order = (rows[:, None] - test.images.flatten(1)[None]).abs().sum(-1).argmin(1)
    assert sorted(order.tolist()) == list(range(997))
    assert torch.equal(torch.cat([labels for _, labels in epoch]), test.labels[order])


def test_epochs_differ_and_are_the_seeds() -> None:
    test = digits().test
    one, two = test.batches(997, seed=5), test.batches(997, seed=5)
    first, second = next(iter(one))[1], next(iter(one))[1]
    assert not torch.equal(first, second)
    assert torch.equal(first, next(iter(two))[1])
    assert torch.equal(second, next(iter(two))[1])


def test_a_size_beyond_the_split_gives_it_whole() -> None:
    assert [len(labels) for _, labels in digits().test.batches(5000)] == [997]


def test_without_a_seed_the_order_is_the_splits() -> None:
    test = digits().test
    assert torch.equal(torch.cat([labels for _, labels in test.batches(100)]), test.labels)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"train": 0}, ValueError, r"train must be an int in \[1, 1795\], got 0"),
        ({"train": 50.0}, TypeError, "train must be an int"),
        ({"train": True}, TypeError, "train must be an int"),
        ({"train": 1700, "validation": 97}, ValueError, r"validation .* \[1, 96\], got 97"),
        ({"label_noise": 40}, ValueError, r"label_noise must be in \[0, 1\], got 40"),
        ({"label_noise": -0.1}, ValueError, "label_noise"),
        ({"label_noise": float("nan")}, ValueError, "label_noise"),
        ({"label_noise": "40 %"}, TypeError, "label_noise must be a number"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        digits(**wrong)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_a_wrong_batch_size_is_named(size: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"size must be an int ≥ 1, got"):
        digits().test.batches(size)
