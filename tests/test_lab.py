"""`TrainingLab`: runs in a thread, sliders that reach the run under way, errors in words."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("ipywidgets")

from lookbehind import Lookahead, train
from lookbehind.data import Dataset, digits
from lookbehind.explore import lab as lab_module
from lookbehind.explore.lab import USES, Settings, TrainingLab, make_optimizer, tune
from lookbehind.explore.palette import METHOD_COLORS

methods = pytest.mark.parametrize("method", USES)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits(train=200, label_noise=0.4)


@pytest.fixture
def lab(dataset: Dataset) -> Iterator[TrainingLab]:
    one = TrainingLab(small_net, dataset, gradients=600)
    yield one
    one.stop()
    one.wait()


def small_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def curves(lab: TrainingLab) -> tuple[Any, ...]:
    """Test accuracy and training loss of each run; the figure's first two traces show nothing."""
    return lab.figure.data[2:]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s"
        time.sleep(0.01)


def steps_recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the optimizer is set to when each step begins."""
    seen: list[tuple[Any, ...]] = []
    plain = train._Run.step

    def step(run: Any, stream: Any) -> None:
        o = run.optimizer
        seen.append((o.k, o.ball.rho, o.alpha, o.param_groups[0]["initial_lr"]))
        plain(run, stream)

    monkeypatch.setattr(train._Run, "step", step)
    return seen


@methods
def test_every_method_trains_and_draws_its_curves(lab: TrainingLab, method: str) -> None:
    lab.put(Settings(method=method, rho=0.05))
    lab.train()
    lab.wait()
    assert lab.message.count("Done after 60") == 1
    accuracy, loss = curves(lab)
    assert accuracy.line.color == METHOD_COLORS[method]
    assert accuracy.name == str(lab.settings)
    assert accuracy.name.startswith(f"{method}: ")
    assert tuple(accuracy.x) == tuple(r.gradients for r in lab.history.of("test"))
    assert tuple(accuracy.y) == tuple(r.accuracy for r in lab.history.of("test"))
    assert tuple(loss.y) == tuple(r.loss for r in lab.history.of("train"))
    assert lab.history.last("train").loss < lab.history.of("train")[0].loss


def test_the_lab_computes_what_a_call_of_fit_computes(lab: TrainingLab, dataset: Dataset) -> None:
    lab.train()
    lab.wait()
    torch.manual_seed(0)
    model = small_net()
    splits = {"train": dataset.train.batches(200), "test": dataset.test.batches(2000)}
    history = train.fit(
        model,
        make_optimizer(lab.settings, model),
        dataset.train.batches(50, seed=0),
        gradients=600,
        splits=splits,
        records=10,
    )
    assert lab.history == history


def test_moving_the_sliders_changes_the_run_under_way_at_the_next_step(
    lab: TrainingLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = steps_recorded(monkeypatch)
    lab.gradients.value = 30_000
    lab.train()
    until(lambda: len(seen) > 5)
    lab.k.value, lab.rho.value, lab.alpha.value, lab.lr.value = 4, 0.07, 0.25, 0.01
    moved = len(seen)
    until(lambda: len(seen) > moved + 5)
    lab.adaptive.value = True
    adapted = len(seen)
    until(lambda: len(seen) > adapted + 5)
    lab.stop()
    lab.wait()
    assert set(seen[:5]) == {(2, 0.2, 0.5, 0.03)}
    assert set(seen[moved + 2 : adapted]) == {(4, 0.07, 0.25, 0.01)}
    assert seen[-1] == (4, 0.07, "adaptive", 0.01)
    assert curves(lab)[0].name == "Lookbehind-SAM: k 4, ρ 0.07, α adaptive, lr 0.01 (moved)"


@methods
def test_tune_sets_what_the_method_uses(method: str) -> None:
    optimizer = make_optimizer(Settings(method=method), small_net())
    tune(optimizer, Settings(method, k=7, rho=0.9, alpha=0.1, lr=0.5))
    climber = optimizer.inner if isinstance(optimizer, Lookahead) else optimizer
    found = {
        "k": getattr(optimizer, "k", None),
        "rho": getattr(getattr(climber, "ball", None), "rho", None),
        "alpha": getattr(optimizer, "alpha", None),
    }
    wanted = {"k": 7, "rho": 0.9, "alpha": 0.1}
    assert {name: found[name] for name in USES[method]} == {n: wanted[n] for n in USES[method]}
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.5}


@methods
def test_a_slider_that_the_method_does_not_use_is_disabled(lab: TrainingLab, method: str) -> None:
    lab.method.value = method
    enabled = {name for name in ("k", "rho", "alpha") if not getattr(lab, name).disabled}
    assert enabled == set(USES[method])
    assert lab.adaptive.disabled != method.startswith("Lookbehind")


def test_adaptive_disables_the_alpha_slider(lab: TrainingLab) -> None:
    lab.adaptive.value = True
    assert lab.alpha.disabled
    assert lab.settings.alpha == "adaptive"
    lab.method.value = "Lookahead-SAM"
    assert not lab.alpha.disabled
    assert lab.settings.alpha == 0.5


def test_stop_keeps_the_curve_and_frees_the_controls(lab: TrainingLab) -> None:
    lab.gradients.value = 30_000
    lab.train()
    assert lab.train_button.disabled
    assert lab.method.disabled
    until(lambda: lab.progress.value > 0)
    lab.stop_button.click()
    lab.wait()
    assert "Stopped after" in lab.message
    assert lab.history.stopped
    assert len(curves(lab)[0].y) >= 1
    assert lab.stop_button.disabled
    assert not lab.train_button.disabled


def test_reset_stops_clears_the_curves_and_puts_the_sliders_back(lab: TrainingLab) -> None:
    opened = lab.settings
    lab.put(Settings("Multistep-SAM", k=9, rho=0.01, lr=0.5))
    lab.gradients.value = 30_000
    lab.train()
    lab.reset_button.click()
    assert not lab.running
    assert curves(lab) == ()
    assert lab.settings == opened
    assert not lab.train_button.disabled
    assert "press Train" in lab.message


def test_the_sliders_offer_what_the_lab_opens_with(dataset: Dataset) -> None:
    lab = TrainingLab(small_net, dataset, settings=Settings(rho=0.123, lr=0.042))
    assert (lab.settings.rho, lab.settings.lr) == (0.123, 0.042)


def test_runs_are_overlaid_in_one_colour_a_method_and_told_apart_by_dashes(
    lab: TrainingLab,
) -> None:
    for rho in (0.01, 0.02):
        lab.rho.value = rho
        lab.train()
        lab.wait()
    lines = [trace.line for trace in curves(lab)[::2]]
    assert [line.dash for line in lines] == ["solid", "dash"]
    assert len({line.color for line in lines}) == 1
    assert len({trace.name for trace in curves(lab)[::2]}) == 2


def test_the_axis_holds_the_longest_run(lab: TrainingLab) -> None:
    for budget in (1200, 600):
        lab.gradients.value = budget
        lab.train()
        lab.wait()
    assert lab.figure.layout.xaxis.range == lab.figure.layout.xaxis2.range == (0, 1200)


def test_a_second_press_of_train_starts_no_second_run(lab: TrainingLab) -> None:
    lab.gradients.value = 30_000
    lab.train()
    lab.train()
    assert len(curves(lab)) == 2


@pytest.mark.parametrize(
    ("make_model", "words"),
    [
        (lambda: nn.Linear(3, 10), "RuntimeError: "),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_appears_in_words_and_the_lab_goes_on(
    dataset: Dataset, make_model: Callable[[], nn.Module], words: str
) -> None:
    lab = TrainingLab(make_model, dataset, gradients=600)
    lab.train()
    lab.wait()
    assert "The run ended with an error." in lab.message
    assert words in lab.message
    assert lab.stop_button.disabled
    assert not lab.train_button.disabled


def test_a_message_is_shown_as_text_not_as_html(lab: TrainingLab) -> None:
    lab._fail(ValueError("<script>"))
    assert "&lt;script&gt;" in lab.message


def test_the_curves_are_drawn_at_most_five_times_a_second(
    lab: TrainingLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    plain = lab_module._Watch.show

    def show(watch: Any, records: Any) -> None:
        drawn.append(time.monotonic())
        plain(watch, records)

    monkeypatch.setattr(lab_module._Watch, "show", show)
    lab.gradients.value = 30_000
    lab.train()
    until(lambda: len(drawn) > 4)
    lab.stop()
    lab.wait()
    assert min(b - a for a, b in pairwise(drawn[:-1])) > 0.2


def test_a_run_leaves_the_notebooks_random_numbers_alone(lab: TrainingLab) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    lab.train()
    lab.wait()
    assert torch.equal(torch.rand(2), expected)


def test_the_thread_does_not_keep_a_kernel_alive(lab: TrainingLab) -> None:
    lab.train()
    assert isinstance(lab._thread, threading.Thread)
    assert lab._thread.daemon
