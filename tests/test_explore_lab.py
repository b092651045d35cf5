"""`TrainingLab`: runs in a thread, and sliders that reach the run under way."""

import threading
import time
from dataclasses import replace
from itertools import pairwise

import labs
import numpy as np
import pytest
import traitlets
from labs import LONG, SHORT, begin, finish, methods, press, until

from lookbehind import train
from lookbehind.explore.lab import rows
from lookbehind.explore.lab import training as lab_training
from lookbehind.optim import METHODS
from lookbehind.train import Recipe, choose_hardware

make = labs.make


@methods
def test_every_method_trains_draws_its_curves_and_is_adaptive_only_where_it_can(make, method):
    lab = finish(make(replace(SHORT, method=method, rho=0.05)))
    assert "Done after 3.0 epochs: test accuracy" in lab.message
    history, (run,) = lab.outcome.history, lab.runs
    for split in ("test", "train"):
        records = [(r.epoch, r.accuracy, r.loss) for r in history.of(split)]
        np.testing.assert_allclose(run["curves"][split], records, rtol=1e-4)
    epochs = [epoch for epoch, *_ in run["curves"]["test"]]
    assert epochs == [0, 1, 2, 3] or method == "Lookahead-SAM"
    assert len(run["curves"]["sharpness"]) == 3
    assert run["words"] == str(lab.recipe) and [run["row"]] == lab.table
    row, has = run["row"], METHODS[method].sliders
    assert all((row[name] is not None) == (name in has) for name in ("k", "rho", "alpha"))
    assert row["method"] == method and row["test accuracy"] == history.last("test").accuracy
    assert run["alpha"] == [] and lab.live == {}
    lab.adaptive = True
    assert lab.recipe.alpha == ("adaptive" if "adaptive" in has else 0.5)


def before_each_step(monkeypatch, act):
    plain = train.Run.step
    monkeypatch.setattr(train.Run, "step", lambda run: (act(run), plain(run)))


def test_moving_the_sliders_changes_the_run_under_way_at_the_next_step(make, monkeypatch):
    seen = []

    def note(run):
        o = run.optimizer
        seen.append((o.k, o.ball.rho, o.alpha, o.param_groups[0].get("initial_lr")))

    before_each_step(monkeypatch, note)
    lab, _ = begin(make(LONG))
    lab.k, lab.rho, lab.alpha, lab.lr = 4, 0.07, 0.25, 0.01
    moved = len(seen)
    until(lambda: len(seen) > moved + 3)
    before = len(seen)
    lab.adaptive = True
    adapted = len(seen)
    until(lambda: len(seen) > adapted + 3)
    until(lambda: "moved" in lab.live["row"]["status"])
    (row,) = finish(lab, "stop").table
    assert set(seen[:3]) == {(2, 0.2, 0.5, 0.03)}
    assert set(seen[moved + 2 : before]) == {(4, 0.07, 0.25, 0.01)}
    assert set(seen[adapted + 2 :]) == {(4, 0.07, "adaptive", 0.01)}
    assert "k 4, ρ 0.07, α adaptive, lr 0.01" in lab.runs[0]["words"]
    assert row["status"].startswith("stopped, moved") and row["alpha"] == "adaptive"


def test_a_move_is_answered_before_the_step_under_way_ends(make, monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def wait(run):
        if run.minibatches == 2:
            entered.set()
            assert leave.wait(60)

    before_each_step(monkeypatch, wait)
    lab = make()
    press(lab, "start")
    assert entered.wait(60)
    lab.k = 3
    assert "from the next step on: Lookbehind-SAM: k 3" in lab.message
    press(lab, "pause")
    assert "Pausing after the step under way" in lab.message
    leave.set()
    until(lambda: "Paused at epoch" in lab.message)


def test_the_curves_are_drawn_at_most_five_times_a_second(make, monkeypatch):
    drawn, plain = [], rows.drawn
    note = drawn.append
    monkeypatch.setattr(rows, "drawn", lambda training: note(time.monotonic()) or plain(training))
    lab = make(LONG)
    press(lab, "start")
    until(lambda: len(drawn) > 5)
    finish(lab, "stop")
    ended = 2  # the first is that of the button, and two are those of the end
    assert min(b - a for a, b in pairwise(drawn[1 : -1 - ended])) > 0.2


def test_long_curves_are_thinned_and_keep_their_ends(make):
    lab = finish(make())
    lab._work.sharpness[:] = [(float(i), i / 7) for i in range(2000)]
    sharpness = rows.drawn(lab._work)["curves"]["sharpness"]
    assert len(sharpness) <= rows.POINTS + 1
    assert sharpness[0] == [0, 0] and sharpness[-1] == [1999, pytest.approx(1999 / 7, rel=1e-4)]
    lab._work.sharpness.append((2000.0, float("nan")))
    assert rows.drawn(lab._work)["curves"]["sharpness"][-1] == [2000, None]


@pytest.mark.parametrize(
    ("name", "value"), [("k", 0), ("rho", -1.0), ("alpha", 2.0), ("model", "oak"), ("epochs", 0)]
)
def test_what_a_recipe_refuses_a_control_refuses(make, name, value):
    lab = make()
    with pytest.raises(traitlets.TraitError, match=f"{name} must be .* got"):
        setattr(lab, name, value)
    assert lab.recipe == SHORT


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ([("rho", 0.3), ("rho", 0.4), ("k", 5)], ["ρ 0.2 → 0.4", "k 2 → 5"]),
        ([("rho", 0.3), ("rho", 0.2)], []),
        ([("adaptive", True)], ["α 0.5 → adaptive"]),
    ],
)
def test_a_move_leaves_a_mark_and_a_drag_leaves_one(make, moves, words, monkeypatch):
    monkeypatch.setattr(lab_training, "ONE_MOVE", 60.0)
    lab, training = begin(make(LONG))
    for name, value in moves:
        setattr(lab, name, value)
        until(lambda: training.now == training.wanted)
    finish(lab, "stop")
    assert [text for _, text in lab.runs[0]["ticks"]] == words
    assert all(0 <= epoch <= training.epoch for epoch, _ in lab.runs[0]["ticks"])


def test_another_dataset_is_taken_whole(make):
    lab = make(replace(SHORT, dataset="cifar10", test=50, augment=True))
    lab.dataset = "digits"
    assert lab.recipe == replace(SHORT, train=None, validation=None)


def test_a_budget_in_gradients_is_refused(make):
    with pytest.raises(ValueError, match=r"recipe must have its budget in epochs.*gradients=1200"):
        make(Recipe())


def test_a_run_goes_on_where_the_widget_was_closed_and_keeps_no_kernel_alive(make):
    lab, training = begin(make(replace(SHORT, epochs=30)))
    assert training.thread.daemon
    lab.close()
    lab.wait()
    assert lab.table[0]["status"] == "done"


@pytest.mark.gpu
def test_the_lab_trains_on_a_gpu(make):
    lab = finish(make(replace(SHORT, model="resnet8"), hardware=choose_hardware("cuda")))
    assert "Done" in lab.message and next(lab.outcome.model.parameters()).is_cuda
