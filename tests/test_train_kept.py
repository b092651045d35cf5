"""Values that a file keeps become plain, or are refused, where they enter; altered checkpoints."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import MINIBATCHES, SPLITS, model_and

from lookbehind.checks import kept, plain
from lookbehind.train import (
    CheckpointError,
    Recipe,
    Session,
    fit,
    read_checkpoint,
    save_checkpoint,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True),
        (np.str_("a"), "a"), (torch.tensor(2), 2), (np.array(0.5), 0.5), ("a", "a"), (None, None),
    ],
)  # fmt: skip
def test_a_number_of_numpy_becomes_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected and type(plain(value)) is type(expected)
    if not isinstance(value, torch.Tensor):
        assert type(kept("x", {"a": [value]})["a"][0]) is type(expected)


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "where"),
    [({"a": [1, Odd()]}, r"x\['a'\]\[1\]"), ((Odd,), r"x\[0\]"), (Path("p"), "x"), ({1, 2}, "x")],
)
def test_what_cant_be_kept_is_named(value: Any, where: str) -> None:
    with pytest.raises(TypeError, match=f"{where} must be plain, to be kept in a checkpoint"):
        kept("x", value)
    with pytest.raises(TypeError, match=r"config.* must be plain"):
        Session(config={"settings": value})


RATES: dict[str, Callable[[float], Any]] = {
    "float64": lambda share: np.float64(1 - share / 2),
    "float32": lambda share: np.float32(1 - share / 2),
    "tensor": lambda share: torch.tensor(1 - share / 2),
    "array": lambda share: np.cos(np.array(share)),
    "int": lambda share: 1,
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", ["SGD", "Lookbehind"])
def test_a_run_with_numbers_of_numpy_everywhere_goes_on(
    name: str, rate: str, tmp_path: Path
) -> None:
    path, steps = tmp_path / "run.pt", list[Any]()

    def schedule(share: float) -> Any:
        return RATES[rate](share)

    for stop in (lambda: len(steps) == 8, bool):
        model, optimizer = model_and(name, lr=np.float64(0.1), weight_decay=np.float32(1e-4))
        session = Session(path, resume=True, stop=stop, config={"lr": np.float64(0.1)})
        fit(model, optimizer, MINIBATCHES, epochs=3, splits=SPLITS, schedule=schedule,
            session=session, callbacks=[lambda run: steps.append(run.minibatches)])  # fmt: skip
    assert steps == [*range(1, 19)]
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert read_checkpoint(path)["plan"]["config"] == {"lr": 0.1}


@pytest.mark.parametrize("value", ["fast", None, float("nan"), float("inf"), torch.ones(2)])
def test_a_schedule_that_returns_no_number_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match="schedule must return finite numbers, at 0 it is"):
        fit(*model_and("SAM"), MINIBATCHES, epochs=1, splits={}, schedule=lambda share: value)


def test_an_optimizer_that_cant_be_kept_is_named_before_the_first_step(tmp_path: Path) -> None:
    model, optimizer = model_and("SGD")
    optimizer.param_groups[0]["helper"] = Odd()
    with pytest.raises(TypeError, match=r"optimizer's state\['param_groups'\]\[0\]\['helper'\]"):
        fit(model, optimizer, MINIBATCHES, epochs=1, splits={}, session=Session(tmp_path / "a.pt"),
            callbacks=[lambda run: pytest.fail("a step")])  # fmt: skip
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "name", ["rho", "lr", "alpha", "k", "gradients", "seed", "batch_size", "label_noise"]
)
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_a_recipe_takes_numbers_of_numpy(name: str, kind: Callable[..., Any]) -> None:
    value = getattr(Recipe(), name)
    found = Recipe(**{name: kind(value)[()]})
    assert type(getattr(found, name)) is type(value)
    assert getattr(found, name) == pytest.approx(value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"augment": "no"}, "augment must be a bool, got 'no'"),
        ({"augment": 1}, "augment must be a bool, got 1"),
        ({"dataset": 3}, "dataset must be a str, got 3"),
        ({"dataset": None}, "dataset must be a str, got None"),
        ({"model": ["mlp"]}, r"model must be one of .* got \['mlp'\]"),
        ({"alpha": [0.5], "method": "SGD"}, "alpha must be a finite number"),
        ({"seed": np.float64(1)}, "seed must be an int"),
        ({"rho": np.ones(2)}, "rho must be a finite number"),
    ],
)
def test_a_recipes_wrong_kinds_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        Recipe(**wrong)


def test_a_folder_may_be_a_path() -> None:
    assert Recipe(dataset=Path("a folder")) == Recipe(dataset="a folder")  # type: ignore[arg-type]


def changed(*keys: Any, to: Any) -> Callable[[Any], None]:
    def edit(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = to

    return edit


def in_groups(*keys: Any, to: Any) -> Callable[[Any], None]:
    def edit(state: Any) -> None:
        inner = state["optimizer"].get("inner", state["optimizer"])
        changed("param_groups", *keys, to=to)(inner)

    return edit


EDITS: dict[str, Callable[[Any], None]] = {
    "position of words": changed("position", to=["a", 0, 0, 0]),
    "position too short": changed("position", to=[1, 2]),
    "position below 0": changed("position", to=[-1, 0, 0, 0]),
    "position beyond the epoch": changed("position", 1, to=6),
    "position is a number": changed("position", to=3),
    "records too short": changed("records", 0, to=[0.0, 0]),
    "records of words": changed("records", 0, to=["0", 0, "train", 1.0, 0.5]),
    "records without a split": changed("records", 0, to=[0.0, 0, 3, 1.0, 0.5]),
    "records is None": changed("records", to=None),
    "rng is empty": changed("rng", to={}),
    "rng is a list": changed("rng", to=[1, 2]),
    "rng of another length": changed("rng", "now", to=torch.zeros(3, dtype=torch.uint8)),
    "rng of floats": changed("rng", "epoch", to=torch.zeros(5056)),
    "plan is a list": changed("plan", to=[]),
    "plan without config": changed("plan", to={"budget": ["minibatches", 12]}),
    "model is a list": changed("model", to=[]),
    "a weight is a number": changed("model", "0.weight", to=1.0),
    "a weight is lacking": lambda state: state["model"].pop("0.weight"),
    "another weight": changed("model", "9.weight", to=torch.zeros(2)),
    "optimizer is a list": changed("optimizer", to=[]),
    "optimizer is None": changed("optimizer", to=None),
    "lr is a word": in_groups(0, "lr", to="fast"),
    "first lr is a word": in_groups(0, "initial_lr", to="fast"),
    "momentum is a list": in_groups(0, "momentum", to=[0.9]),
    "no groups": in_groups(to=[]),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("method", ["SGD", "Lookbehind"])
def test_an_edited_checkpoint_is_refused_in_words(name: str, method: str, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    fit(*model_and(method), MINIBATCHES, epochs=2, splits=SPLITS, session=Session(path))
    state = read_checkpoint(path)
    EDITS[name](state)
    save_checkpoint(path, state)
    model, optimizer = model_and(method)
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    with pytest.raises(CheckpointError, match=r"run\.pt (was altered|holds another|is of a run)"):
        fit(model, optimizer, MINIBATCHES, epochs=2, splits=SPLITS, session=Session(path, True))
    assert str([model.state_dict(), optimizer.state_dict()]) == str(before)
