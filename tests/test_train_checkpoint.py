"""Checkpoints: whole or not at all, plain, read without running code, continued bit for bit."""

import math
import pickle
import random
import re
import time
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import forks
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training import FAMILY, MINIBATCHES, SPLITS, Spoiled, model_and, same, stop_after

from lookbehind import Ball
from lookbehind.checks import kept, plain
from lookbehind.train import Session, constant, cosine, fit, grouped
from lookbehind.train.checkpoint import CheckpointError, read_checkpoint, save_checkpoint

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
KINDS = [*((method, SGD) for method in FAMILY), ("Lookbehind", partial(torch.optim.Adam, lr=0.01))]
ODD = object()


def problem(method="Lookbehind", base=SGD, classes=3):
    """A network with BatchNorm and dropout, and batches that torch's global generator shuffles."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randint(3, (60,))
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, classes)]
    model = nn.Sequential(*layers)
    optimizer = FAMILY[method][0](base(model.parameters()))
    return model, optimizer, DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


def run(path, made=None, **options):
    """What a run leaves: 4 epochs of 8 minibatches."""
    model, optimizer, loader = made or problem()
    options = {"epochs": 4, "splits": {"all": [loader.dataset.tensors]}} | options
    history = fit(model, optimizer, loader, **grouped(checkpoint=path, **options))
    return [model.state_dict(), optimizer.state_dict(), history]


@pytest.mark.parametrize(("method", "base"), KINDS)
def test_a_stopped_run_goes_on_bit_for_bit(method, base, tmp_path):
    expected = run(None, problem(method, base))
    path = tmp_path / "new folder" / "run.pt"
    for steps in (0, 3, 5, 2):  # within an epoch and across its end
        part = run(path, problem(method, base), resume=True, stop=stop_after(steps))
        assert part[-1].stopped
    made = problem(method, base)
    torch.manual_seed(99)
    assert same(run(path, made, resume=True), expected)
    assert [*tmp_path.rglob("*")] == [path.parent, path]


@pytest.mark.parametrize("budget", [{"epochs": 4}, {"epochs": None, "gradients": 44}])
def test_a_finished_run_is_not_trained_again(budget, tmp_path):
    """The second budget ends within an epoch."""
    path = tmp_path / "run.pt"
    first = run(path, **budget)
    again = run(path, resume=True, callbacks=[lambda run: pytest.fail("a step")], **budget)
    assert same(again, first)


def test_settings_moved_during_the_run_are_continued_from_any_step(tmp_path):
    path = tmp_path / "run.pt"

    def move(run):
        if run.minibatches == 5:
            run.optimizer.k, run.optimizer.ball, run.optimizer.alpha = 2, Ball(0.01), "adaptive"
            run.optimizer.param_groups[0]["initial_lr"] = 0.02
        if run.minibatches == 10:
            run.save(path)

    expected = run(None, callbacks=[move])
    made = problem()
    assert same(run(path, made, resume=True), expected)
    assert (made[1].k, made[1].ball, made[1].alpha) == (2, Ball(0.01), "adaptive")
    assert expected[-1].last("all").gradients == 5 * 4 + 27 * 3
    assert made[1].param_groups[0]["lr"] == 0.02 * cosine(31 / 32)


def killed_run(path, epochs):
    """A run that may be killed anywhere in three epochs, by its naps, and then waits for it."""
    last = epoch_of(path) + 3
    rest = [lambda run: time.sleep(0.004 if run.epoch < last else 60)]
    run(path, problem("SGD"), epochs=epochs, resume=True, callbacks=rest)


def epoch_of(path):
    return read_checkpoint(path)["position"][0] if path.exists() else 0


def test_kills_lose_nothing_but_the_epoch_under_way(tmp_path):
    path, epochs, moments = tmp_path / "run.pt", 25, random.Random(0)
    for _ in range(5):
        before, deadline = epoch_of(path), time.monotonic() + 60
        process = forks.start(killed_run, path, epochs)
        while epoch_of(path) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.04))
        seen = epoch_of(path)
        process.kill()
        process.join()
        assert process.exitcode == -9, "the run ended: it is too short to be killed 5 times"
        assert epoch_of(path) >= seen > before
    ends = [run(to, problem("SGD"), epochs=epochs, resume=to is path) for to in (path, None)]
    assert same(*ends)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"n": 1})
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"n": 2})
    assert read_checkpoint(path)["n"] == 1
    assert [*tmp_path.iterdir()] == [path]


def test_every_truncation_and_every_changed_weight_is_found(tmp_path):
    path = tmp_path / "run.pt"
    weights = torch.randn(200)
    save_checkpoint(path, {"weights": weights})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 53):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"run\.pt is not a whole checkpoint"):
            read_checkpoint(path)
    start = whole.index(weights.numpy().tobytes())
    for position in range(start, start + 800, 41):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match="damaged: the checksum of its part"):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert torch.equal(read_checkpoint(path)["weights"], weights)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code from the file was run",))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "a file of another kind"),
        (lambda path: torch.save({"format": Bomb()}, path), "more than tensors and plain values"),
        (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "not written by lookbehind"),
    ],
)
def test_foreign_files_are_named_and_run_nothing(write, words, tmp_path):
    write(tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path / "run.pt")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pt"))):
        read_checkpoint(tmp_path / "none.pt")


@pytest.fixture
def saved(tmp_path):
    """The checkpoint of a run that was stopped."""
    run(tmp_path / "run.pt", stop=stop_after(12))
    return tmp_path / "run.pt"


def assert_refused(path, words, other=None, **change):
    """A run that would go on from this file raises these words, and has changed nothing by then."""
    other, kept = other or {}, path.read_bytes()
    made = problem(**other)
    with pytest.raises(CheckpointError, match=words):
        run(path, made, resume=True, **change)
    assert same(*([part.state_dict() for part in each[:2]] for each in (made, problem(**other))))
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("other", "change", "words"),
    [
        ({"method": "SAM"}, {}, "holds another optimizer: .*Lookbehind"),
        ({"classes": 5}, {}, r"holds another model: 4\.weight has shape \(3, 8\), here \(5, 8\)"),
        ({}, {"epochs": 9}, r"budget = \['minibatches', 32\], this one has budget = "),
        ({}, {"schedule": constant}, "schedule = 'cosine', this one has schedule = 'constant"),
        ({}, {"config": {"lr": 0.1}}, "lr = None, this one has lr = 0.1"),
    ],
)
def test_another_runs_checkpoint_is_refused_before_any_change(other, change, words, saved):
    assert_refused(saved, words, other, **change)


def test_a_record_holds_all_splits_or_none():
    ((x, y),), runs = SPLITS["train"], []

    def spoil(run):
        runs.append(run)
        run.splits["other"] = [(x * math.nan, y)]

    options = {"splits": {"one": [(x, y)], "other": [(x, y)]}, "callbacks": [spoil]}
    with pytest.raises(FloatingPointError, match="the loss on other is not finite"):
        fit(*model_and("SGD"), MINIBATCHES, epochs=1, **grouped(**options))
    assert [record.split for record in runs[-1].records] == ["one", "other"]


def test_a_loss_that_diverges_keeps_the_last_epochs_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(FloatingPointError):
        run(path, loss=Spoiled(2 * 8 * 4))
    assert epoch_of(path) == 2
    assert same(run(path, resume=True), run(None))


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


@pytest.mark.parametrize(
    ("value", "where"),
    [({"a": [1, ODD]}, r"x\['a'\]\[1\]"), ((int,), r"x\[0\]"), (Path("p"), "x"), ({1, 2}, "x")],
)
def test_what_cant_be_kept_is_named(value, where):
    with pytest.raises(TypeError, match=f"{where} must be plain, to be kept in a checkpoint"):
        kept("x", value)
    with pytest.raises(TypeError, match=r"config.* must be plain"):
        Session(config={"settings": value})


@pytest.mark.parametrize("kind", [np.float64, torch.tensor, np.array, int])
def test_a_run_with_numbers_of_numpy_everywhere_goes_on(kind, tmp_path):
    path, steps = tmp_path / "run.pt", []
    rate = lambda share: kind(1 - share / 2)  # noqa: E731
    for stop in (stop_after(8), bool):
        model, optimizer = model_and("SGD", lr=np.float64(0.1), weight_decay=np.float32(1e-4))
        watch, config = [lambda run: steps.append(run.minibatches)], {"lr": np.float64(0.1)}
        session = Session(path, resume=True, config=config, callbacks=watch, stop=stop)
        fit(model, optimizer, MINIBATCHES, epochs=3, splits=SPLITS, schedule=rate, session=session)
    assert steps == [*range(1, 19)]
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert read_checkpoint(path)["plan"]["config"] == {"lr": 0.1}


@pytest.mark.parametrize("value", ["fast", None, float("nan"), float("inf"), torch.ones(2)])
def test_a_schedule_that_returns_no_number_is_named(value):
    with pytest.raises(ValueError, match="schedule must return finite numbers, at 0 it is"):
        fit(*model_and("SAM"), MINIBATCHES, epochs=1, splits={}, schedule=lambda share: value)


def test_an_optimizer_that_cant_be_kept_is_named_before_the_first_step(tmp_path):
    model, optimizer = model_and("SGD")
    optimizer.param_groups[0]["helper"] = ODD
    session = Session(tmp_path / "a.pt", callbacks=[lambda run: pytest.fail("a step")])
    with pytest.raises(TypeError, match=r"optimizer's state\['param_groups'\]\[0\]\['helper'\]"):
        fit(model, optimizer, MINIBATCHES, epochs=1, splits={}, session=session)
    assert not [*tmp_path.iterdir()]


EDITS = {
    "position beyond the epoch": lambda state: state["position"].__setitem__(1, 8),
    "records is None": lambda state: state.update(records=None),
    "rng is lacking": lambda state: state.pop("rng"),
    "rng of another length": lambda state: state["rng"].update(now=torch.zeros(3)),
    "plan is a list": lambda state: state.update(plan=[]),
    "another weight": lambda state: state["model"].update({"0.bias": torch.zeros(8)}),
    "a weight is lacking": lambda state: state["model"].pop("0.weight"),
    "another lr": lambda state: state["optimizer"]["param_groups"][0].update(lr=0.2),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_checkpoint_is_refused_in_words(name, saved):
    state = torch.load(saved)
    EDITS[name](state)
    torch.save(state, saved)
    assert_refused(saved, r"run\.pt was altered after it was written")
    save_checkpoint(saved, {"plan": {}})
    assert_refused(saved, r"run\.pt is no checkpoint of a run: it lacks \['mod")
