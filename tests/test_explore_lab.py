"""`TrainingLab`: runs in a thread, and sliders that reach the run under way."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipywidgets")
import labs
from labs import LONG, SHORT, begin, finish, lines, methods, press, same_weights, until

from lookbehind import Ball, Lookahead, train
from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.lab import training as lab_training
from lookbehind.explore.lab.training import tune
from lookbehind.explore.shared import METHOD_COLORS
from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS
from lookbehind.train import Hardware, Recipe, choose_hardware

make, one_core = labs.make, labs.one_core


@methods
def test_every_method_trains_and_draws_its_curves(make: Any, method: str) -> None:
    lab = finish(make(replace(SHORT, method=method, rho=0.05)))
    assert "Done after 3.0 epochs: test accuracy" in lab.message
    history = lab.outcome.history
    drawn = zip(lines(lab)[:4], ("accuracy", "accuracy", "loss", "loss"), strict=True)
    for (line, value), split in zip(drawn, ("test", "train") * 2, strict=True):
        assert list(line.x) == [0, 1, 2, 3] or method == "Lookahead-SAM"
        assert list(line.y) == [getattr(record, value) for record in history.of(split)]
        assert line.line.color == METHOD_COLORS[method]
        assert line.name == f"{lab.recipe} · mlp, digits"
    assert len(lines(lab)[4].y) == 3
    alpha = lab.figure.data[3]
    assert len(alpha.y) == (6 if "alpha" in METHODS[method].sliders else 0)
    missing = lab.figure.layout.annotations[-1].text
    assert missing == ("" if "alpha" in METHODS[method].sliders else f"{method} has no α")


def test_a_run_without_a_move_is_what_one_call_computes(make: Any) -> None:
    recipe = replace(SHORT, model="tiny-cnn", alpha="adaptive")
    lab, call = finish(make(recipe)), recipe.run()
    assert lab.outcome.history == call.history
    assert same_weights(lab.outcome, call)


def test_the_sharpness_shown_is_that_of_the_network(make: Any) -> None:
    lab = finish(make(replace(SHORT, model="tiny-cnn")))
    model, data = lab.outcome.model, SHORT.load()
    rise = worst_rise(model, data.train.batches(lab_training.SHARPNESS_BATCH), Ball(0.05))
    assert lines(lab)[4].y[-1] == rise == lab.table[0]["sharpness"]


def settings_at_each_step(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    seen: list[tuple[Any, ...]] = []
    plain = train.Run.step

    def step(run: Any) -> None:
        o = run.optimizer
        lr = o.param_groups[0].get("initial_lr")
        seen.append((o.k, o.ball.rho, o.alpha, lr))
        plain(run)

    monkeypatch.setattr(train.Run, "step", step)
    return seen


def test_moving_the_sliders_changes_the_run_under_way_at_the_next_step(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = settings_at_each_step(monkeypatch)
    lab = make(LONG)
    begin(lab)
    lab.k.value, lab.rho.value, lab.alpha.value, lab.lr.value = 4, 0.07, 0.25, 0.01
    moved = len(seen)
    until(lambda: len(seen) > moved + 3)
    lab.adaptive.value = True
    adapted = len(seen)
    until(lambda: len(seen) > adapted + 3)
    until(lambda: "(moved)" in lines(lab)[0].name)
    press(lab, "stop")
    lab.wait()
    assert set(seen[:3]) == {(2, 0.2, 0.5, 0.03)}
    assert set(seen[moved + 2 : adapted]) == {(4, 0.07, 0.25, 0.01)}
    assert set(seen[adapted + 2 :]) == {(4, 0.07, "adaptive", 0.01)}
    assert "k 4, ρ 0.07, α adaptive, lr 0.01" in lines(lab)[0].name
    assert lab.table[0]["status"] == "stopped, moved"
    assert lab.table[0]["alpha"] == "adaptive"


def test_a_move_is_answered_before_the_step_under_way_ends(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    plain = train.Run.step

    def slow_step(run: Any) -> None:
        if run.minibatches == 2:
            entered.set()
            assert leave.wait(60)
        plain(run)

    monkeypatch.setattr(train.Run, "step", slow_step)
    lab = make()
    press(lab, "start")
    assert entered.wait(60)
    lab.k.value = 3
    assert "from the next step on: Lookbehind-SAM: k 3" in lab.message
    press(lab, "pause")
    assert "Pausing after the step under way" in lab.message
    leave.set()
    until(lambda: "Paused at epoch" in lab.message)


@methods
def test_tune_sets_what_the_method_uses(method: str) -> None:
    recipe = replace(SHORT, method=method)
    optimizer = recipe.make_optimizer(recipe.make_model(recipe.load()))
    tune(optimizer, replace(recipe, k=7, rho=0.9, alpha=0.1, lr=0.5))
    climber = optimizer.inner if isinstance(optimizer, Lookahead) else optimizer
    holders = {"k": (optimizer, 7), "alpha": (optimizer, 0.1)}
    holders["rho"] = getattr(climber, "ball", None), 0.9
    for name in {*METHODS[method].sliders} - {"adaptive"}:
        holder, value = holders[name]
        assert getattr(holder, name) == value
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.5}


@methods
def test_a_slider_that_does_not_count_is_disabled(make: Any, method: str) -> None:
    lab, used = make(), METHODS[method].sliders
    lab.method.value = method
    enabled = {n for n in ("k", "rho", "alpha", "adaptive") if not getattr(lab, n).disabled}
    assert enabled == {*used}
    lab.adaptive.value = True
    assert lab.alpha.disabled == ("adaptive" in used or "alpha" not in used)
    assert lab.recipe.alpha == ("adaptive" if "adaptive" in used else 0.5)


def test_the_controls_offer_what_the_lab_opens_with(make: Any) -> None:
    recipe = replace(SHORT, rho=0.123, lr=0.042, k=17, epochs=7, alpha=0.33, momentum=0.5, seed=3)
    assert make(recipe).recipe == recipe


def test_another_dataset_is_taken_whole(make: Any) -> None:
    lab = make(replace(SHORT, dataset="cifar10", test=50, augment=True))
    lab.dataset.value = "digits"
    assert lab.recipe == replace(SHORT, train=None, validation=None)


def test_a_budget_in_gradients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe must have its budget in epochs.*gradients=1200"):
        TrainingLab(Recipe(), folder=tmp_path)


def test_a_run_goes_on_where_the_widgets_were_closed(make: Any) -> None:
    lab = make(replace(SHORT, epochs=30))
    begin(lab)
    for widget in (lab.figure, lab._status, lab.progress, lab._where, lab._table, lab):
        widget.close()
    lab.wait()
    assert lab.table[0]["status"] == "done"


def test_the_thread_does_not_keep_a_kernel_alive(make: Any) -> None:
    lab = make()
    press(lab, "start")
    assert lab._work.thread.daemon


@pytest.mark.gpu
def test_the_lab_trains_on_a_gpu(make: Any) -> None:
    hardware: Hardware = choose_hardware("cuda")
    lab = finish(make(replace(SHORT, model="resnet8"), hardware=hardware))
    assert "Done" in lab.message
    assert next(lab.outcome.model.parameters()).is_cuda
