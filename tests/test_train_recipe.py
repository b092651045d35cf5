"""`recipe`: one frozen description is one run, down to the bit."""

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from images import paint
from torch.nn.functional import cross_entropy
from training import weights

from lookbehind.optim import METHODS
from lookbehind.train import SCHEDULES, Hardware, Recipe, evaluation_batches

SHORT = Recipe(train=60, batch_size=20, epochs=2, gradients=None, method="SGD")
SETTINGS = replace(SHORT, method="Lookbehind-ASAM", rho=0.5, lr=0.1, gradients=15, epochs=None)
CPU = Hardware(torch.device("cpu"))


@pytest.fixture(scope="module")
def digits():
    return SHORT.load()


def run(recipe, dataset, **options):
    return recipe.run(dataset=dataset, hardware=CPU, **options)


def test_the_run_is_the_loop_that_one_would_write(digits):
    """The independent oracle: torch alone, bit for bit."""
    recipe = replace(SHORT, label_smoothing=0.1, lr=0.1, momentum=0.5, weight_decay=0.01)
    outcome = run(recipe, digits)
    model = recipe.make_model(digits)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01)
    batches = digits.train.batches(20, seed=0)
    for step, (images, labels) in enumerate(chain(batches, batches)):
        optimizer.param_groups[0]["lr"] = 0.1 * SCHEDULES["cosine"](step / 6)
        optimizer.zero_grad()
        cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        optimizer.step()
    assert torch.equal(weights(outcome.model), weights(model))
    (images, labels), last = next(iter(digits.test.batches(2000))), outcome.history.last("test")
    assert last.loss == pytest.approx(cross_entropy(model(images), labels).item(), rel=1e-5)
    assert (last.epoch, last.gradients) == (2, 6)


def test_a_recipe_is_one_run_whatever_the_global_generator_holds(digits):
    first = run(SHORT, digits)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert run(SHORT, digits).history == first.history
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def trained(digits):
    return weights(run(SETTINGS, digits).model)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "ASAM"), ("k", 3), ("rho", 0.1), ("eta", 0.3), ("alpha", 0.9), ("lr", 0.2),
        ("momentum", 0.0), ("weight_decay", 0.1), ("batch_size", 30), ("label_smoothing", 0.2),
        ("schedule", "constant"), ("model", "tiny-cnn"), ("seed", 1), ("gradients", 30),
    ],
)  # fmt: skip
def test_every_setting_reaches_the_run(name, value, digits, trained):
    other = run(replace(SETTINGS, **{name: value}), digits)
    assert weights(other.model).tolist() != trained.tolist()


def test_only_settings_that_a_method_has_reach_the_run(digits):
    other = replace(SHORT, k=7, rho=9.0, eta=1.0, alpha="anything", gradient="mean")
    assert run(other, digits).history == run(SHORT, digits).history
    recipe = replace(SHORT, method="Multistep-SAM")
    last, mean = (run(replace(recipe, gradient=g), digits).model for g in ("last", "mean"))
    assert not torch.equal(weights(last), weights(mean))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_at_its_cost(method, digits):
    recipe = replace(SHORT, method=method, k=3, rho=0.05, lr=0.05, epochs=4)
    first, *_, last = run(recipe, digits).history.of("train")
    assert last.loss < 0.97 * first.loss
    assert last.gradients == 4 * 3 * METHODS[method].cost(3)


def test_sizes_noise_and_seed_reach_the_data():
    recipe = Recipe(train=50, validation=20, label_noise=0.2, seed=3)
    dataset = recipe.load()
    assert [len(split) for split in dataset.splits.values()] == [50, 20, 1727]
    assert int(dataset.noisy.sum()) == 10
    other = replace(recipe, seed=4)
    assert not torch.equal(dataset.train.images, other.load().train.images)
    firsts = [next(iter(each.batches(dataset)))[0] for each in (recipe, other)]
    assert not torch.equal(*firsts)  # minibatches of the same images


def test_scores_are_of_every_split_and_no_more_training_than_test_images(digits):
    few = evaluation_batches(replace(digits, test=digits.test.take(slice(30))))
    seen = {name: torch.cat([labels for _, labels in batches]) for name, batches in few.items()}
    counts = {name: len(labels) for name, labels in seen.items()}
    assert counts == {"train": 30, "validation": 300, "test": 30}
    assert torch.equal(seen["train"], digits.train.labels[:30])
    assert list(evaluation_batches(Recipe(validation=0).load())) == ["train", "test"]


@pytest.mark.parametrize(("side", "crop"), [(8, 1), (16, 2), (32, 4)])
def test_augmentation_crops_and_flips_a_folder_of_images(side, crop, tmp_path):
    recipe = replace(SHORT, dataset=paint(tmp_path, size=(side, side)), train=None, augment=True)
    dataset = recipe.load()
    batches = recipe.batches(dataset)
    assert (batches.crop, batches.flip) == (crop, True)
    plain = replace(recipe, augment=False).batches(dataset)
    (augmented, labels), (images, same) = next(iter(batches)), next(iter(plain))
    assert torch.equal(labels, same) and augmented.shape == images.shape
    assert not torch.equal(augmented, images)
    for batch in evaluation_batches(dataset).values():
        assert not (batch.crop or batch.flip)  # type: ignore[attr-defined]


BAD = {
    "dataset": [3, None],
    "model": ["resnet9", None, ["mlp"]],
    "method": ["lookbehind", "Lookbehind_SAM"],
    "schedule": ["step"],
    "gradient": ["first"],
    "k": [0, 2.0, True, None],
    "rho": [-0.1, float("nan"), "big", None, np.ones(2)],
    "eta": [-1],
    "alpha": [1.5, -1, "auto", None, [0.5]],
    "lr": [-0.1, float("inf")],
    "momentum": [-0.1, 1.1],
    "weight_decay": [-1],
    "batch_size": [0, 10.0],
    "label_smoothing": [1.1],
    "label_noise": [-0.1, 2],
    "epochs": [0, 1.5],
    "train": [0],
    "validation": [-1],
    "test": [10],  # for digits
    "augment": [True, "no", 1],  # for digits
    "seed": [-1, None, np.float64(1)],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_wrong_value_is_named_before_any_data_is_loaded(name, value):
    got = re.escape(repr(value.item() if isinstance(value, np.generic) else value))
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be .*{got}"):
        Recipe(**{"epochs": 2, "gradients": None, name: value})


def test_values_that_are_wrong_together_are_named():
    for wrong in ({"epochs": 3}, {"gradients": None}):
        with pytest.raises(ValueError, match="exactly one of epochs and gradients"):
            Recipe(**wrong)
    with pytest.raises(ValueError, match=r"alpha .* \[0, 1\]; got 'adaptive'"):
        Recipe(method="Lookahead-SAM", alpha="adaptive")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_a_recipe_takes_numbers_of_numpy_and_the_path_of_a_folder(kind):
    for name in ("rho", "alpha", "k", "gradients", "seed", "label_noise"):
        value = getattr(Recipe(), name)
        found = getattr(Recipe(**{name: kind(value)[()]}), name)
        assert type(found) is type(value) and found == pytest.approx(value)
    assert Recipe(dataset=Path("a folder")) == Recipe(dataset="a folder")  # type: ignore[arg-type]


def test_a_recipe_says_what_its_method_uses():
    assert str(Recipe()) == "Lookbehind-SAM: k 2, ρ 0.2, α 0.5, lr 0.03"
    assert str(Recipe(alpha="adaptive")) == "Lookbehind-SAM: k 2, ρ 0.2, α adaptive, lr 0.03"
    assert str(Recipe(method="SGD")) == "SGD: lr 0.03"
    assert METHODS["ASAM"].sliders == ("rho",)


def test_fine_values_are_fine():
    Recipe(rho=0, alpha=0, lr=0.0, momentum=0, weight_decay=0, validation=0)
    Recipe(dataset="cifar10", augment=True, test=10, epochs=1, gradients=None)
    assert hash(Recipe(alpha=1, label_noise=1)) == hash(Recipe(alpha=1, label_noise=1))
