"""Values that a file keeps become plain, or are refused, where they enter; altered checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training import MINIBATCHES, SPLITS, model_and, same, stop_after

from lookbehind.checks import kept, plain
from lookbehind.train import CheckpointError, Session, fit, read_checkpoint, save_checkpoint


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True),
        (np.str_("a"), "a"), (torch.tensor(2), 2), (np.array(0.5), 0.5), ("a", "a"), (None, None),
    ],
)  # fmt: skip
def test_a_number_of_numpy_becomes_plain(value, expected):
    assert plain(value) == expected and type(plain(value)) is type(expected)
    if not isinstance(value, torch.Tensor):
        assert type(kept("x", {"a": [value]})["a"][0]) is type(expected)


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "where"),
    [({"a": [1, Odd()]}, r"x\['a'\]\[1\]"), ((Odd,), r"x\[0\]"), (Path("p"), "x"), ({1, 2}, "x")],
)
def test_what_cant_be_kept_is_named(value, where):
    with pytest.raises(TypeError, match=f"{where} must be plain, to be kept in a checkpoint"):
        kept("x", value)
    with pytest.raises(TypeError, match=r"config.* must be plain"):
        Session(config={"settings": value})


RATES = {
    "float64": lambda share: np.float64(1 - share / 2),
    "tensor": lambda share: torch.tensor(1 - share / 2),
    "array": lambda share: np.cos(np.array(share)),
    "int": lambda share: 1,
}


@pytest.mark.parametrize("rate", RATES)
def test_a_run_with_numbers_of_numpy_everywhere_goes_on(rate, tmp_path):
    path, steps = tmp_path / "run.pt", list[int]()
    schedule = lambda share: RATES[rate](share)  # noqa: E731  # all of one name
    for stop in (stop_after(8), bool):
        model, optimizer = model_and("SGD", lr=np.float64(0.1), weight_decay=np.float32(1e-4))
        session = Session(path, resume=True, stop=stop, config={"lr": np.float64(0.1)})
        fit(model, optimizer, MINIBATCHES, epochs=3, splits=SPLITS, schedule=schedule,
            session=session, callbacks=[lambda run: steps.append(run.minibatches)])  # fmt: skip
    assert steps == [*range(1, 19)]
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert read_checkpoint(path)["plan"]["config"] == {"lr": 0.1}


@pytest.mark.parametrize("value", ["fast", None, float("nan"), float("inf"), torch.ones(2)])
def test_a_schedule_that_returns_no_number_is_named(value):
    with pytest.raises(ValueError, match="schedule must return finite numbers, at 0 it is"):
        fit(*model_and("SAM"), MINIBATCHES, epochs=1, splits={}, schedule=lambda share: value)


def test_an_optimizer_that_cant_be_kept_is_named_before_the_first_step(tmp_path):
    model, optimizer = model_and("SGD")
    optimizer.param_groups[0]["helper"] = Odd()
    with pytest.raises(TypeError, match=r"optimizer's state\['param_groups'\]\[0\]\['helper'\]"):
        fit(model, optimizer, MINIBATCHES, epochs=1, splits={}, session=Session(tmp_path / "a.pt"),
            callbacks=[lambda run: pytest.fail("a step")])  # fmt: skip
    assert not [*tmp_path.iterdir()]


EDITS = {
    "position beyond the epoch": lambda state: state["position"].__setitem__(1, 6),
    "records is None": lambda state: state.update(records=None),
    "rng is lacking": lambda state: state.pop("rng"),
    "rng of another length": lambda state: state["rng"].update(now=torch.zeros(3)),
    "plan is a list": lambda state: state.update(plan=[]),
    "another weight": lambda state: state["model"].update({"0.bias": torch.zeros(8)}),
    "a weight is lacking": lambda state: state["model"].pop("0.weight"),
    "another lr": lambda state: state["optimizer"]["param_groups"][0].update(lr=0.2),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.pt"
    fit(*model_and("Lookbehind"), MINIBATCHES, epochs=2, splits=SPLITS, session=Session(path))
    return path


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_checkpoint_is_refused_in_words(name, saved, tmp_path):
    state, path = torch.load(saved), tmp_path / "run.pt"
    EDITS[name](state)
    torch.save(state, path)
    made = model_and("Lookbehind")
    with pytest.raises(CheckpointError, match=r"run\.pt was altered after it was written"):
        fit(*made, MINIBATCHES, epochs=2, splits=SPLITS, session=Session(path, resume=True))
    untouched = model_and("Lookbehind")
    assert same(*([part.state_dict() for part in each] for each in (made, untouched)))
    save_checkpoint(path, {"plan": {}})
    with pytest.raises(
        CheckpointError, match=r"run\.pt is no checkpoint of a run: it lacks \['mod"
    ):
        fit(*made, MINIBATCHES, epochs=2, splits=SPLITS, session=Session(path, resume=True))
