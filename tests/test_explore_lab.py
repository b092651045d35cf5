"""`TrainingLab`: runs in a thread, sliders that reach the run under way, checkpoints, errors."""

import csv
import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch

pytest.importorskip("ipywidgets")

from lookbehind import Ball, Lookahead, train
from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.lab import training as lab_training
from lookbehind.explore.lab import view as lab_view
from lookbehind.explore.lab.training import Training, tune
from lookbehind.explore.shared import METHOD_COLORS
from lookbehind.explore.shared.methods import axes_of
from lookbehind.explore.shared.runs import recipes_in
from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS
from lookbehind.train import Hardware, Recipe, checkpoint, choose_hardware

SHORT = Recipe(epochs=3, gradients=None, train=100, validation=0, label_noise=0.4)
LONG = replace(SHORT, epochs=100_000)
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., TrainingLab]]:
    """Makes labs whose runs are ended after the test."""
    made: list[TrainingLab] = []

    def one(recipe: Recipe = SHORT, **options: Any) -> TrainingLab:
        made.append(TrainingLab(recipe, folder=options.pop("folder", tmp_path), **options))
        return made[-1]

    yield one
    for lab in made:
        lab.stop()
        lab.wait()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited 60 s"
        time.sleep(0.005)


def press(lab: TrainingLab, name: str) -> None:
    button = getattr(lab, f"{name}_button")
    assert not button.disabled, f"{name} can't be pressed"
    button.click()


def finish(lab: TrainingLab) -> TrainingLab:
    press(lab, "start")
    lab.wait()
    return lab


def begin(lab: TrainingLab, steps: int = 3) -> Training:
    """Start and wait for the first steps."""
    press(lab, "start")
    training = lab._work
    assert training is not None
    until(lambda: training.steps >= steps)
    return training


def lines(lab: TrainingLab) -> tuple[Any, ...]:
    """Test and training accuracy, the same of the loss, and sharpness, of each run."""
    return lab.figure.data[4:]


def same_weights(a: Any, b: Any) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


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
    assert len(alpha.y) == (6 if "alpha" in axes_of(method) else 0)
    missing = lab.figure.layout.annotations[-1].text
    assert missing == ("" if "alpha" in axes_of(method) else f"{method} has no α")


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
    plain = train.Run._step

    def step(run: Any) -> None:
        o = run.optimizer
        lr = o.param_groups[0].get("initial_lr")
        seen.append((o.k, o.ball.rho, o.alpha, lr))
        plain(run)

    monkeypatch.setattr(train.Run, "_step", step)
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
    plain = train.Run._step

    def slow_step(run: Any) -> None:
        if run.minibatches == 2:
            entered.set()
            assert leave.wait(60)
        plain(run)

    monkeypatch.setattr(train.Run, "_step", slow_step)
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
    found = {
        "k": getattr(optimizer, "k", None),
        "rho": getattr(getattr(climber, "ball", None), "rho", None),
        "alpha": getattr(optimizer, "alpha", None),
    }
    wanted = {"k": 7, "rho": 0.9, "alpha": 0.1}
    used = {*axes_of(method)} - {"adaptive"}
    assert {n: found[n] for n in used} == {n: wanted[n] for n in used}
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.5}


@methods
def test_a_slider_that_the_method_does_not_use_is_disabled(make: Any, method: str) -> None:
    lab = make()
    lab.method.value = method
    enabled = {name for name in ("k", "rho", "alpha") if not getattr(lab, name).disabled}
    assert enabled == {*axes_of(method)} - {"adaptive"}
    assert lab.adaptive.disabled == ("adaptive" not in axes_of(method))


def test_adaptive_disables_the_alpha_slider(make: Any) -> None:
    lab = make()
    lab.adaptive.value = True
    assert lab.alpha.disabled and lab.recipe.alpha == "adaptive"
    lab.method.value = "Lookahead-SAM"
    assert not lab.alpha.disabled and lab.recipe.alpha == 0.5


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


def test_pause_holds_the_run_and_continue_goes_on(make: Any) -> None:
    lab = make(LONG)
    training = begin(lab)
    press(lab, "pause")
    until(lambda: "Paused at epoch" in lab.message)
    held = training.steps
    assert lab.pause_button.description == "Continue"
    images = checkpoint.read_checkpoint(training.path)["position"][3]
    assert images == held * LONG.batch_size
    lab.k.value = 5
    assert "from the next step on: Lookbehind-SAM: k 5" in lab.message
    time.sleep(0.1)
    assert training.steps == held
    press(lab, "pause")
    until(lambda: training.steps > held)
    assert lab.pause_button.description == "Pause"
    assert training.now.k == 5


def test_save_and_stop_work_while_paused(make: Any) -> None:
    lab = make(LONG)
    training = begin(lab)
    press(lab, "pause")
    until(lambda: "Paused at epoch" in lab.message)
    for _ in range(2):
        press(lab, "save")
        until(lambda: "Saved as" in lab.message)
    press(lab, "stop")
    lab.wait()
    assert "Stopped after" in lab.message
    stem = training.path.stem
    names = {f"{stem}.pt", f"{stem}-saved.pt", f"{stem}-saved-2.pt"}
    assert {path.name for path in training.path.parent.iterdir()} == names
    assert {f"{stem}.pt" for stem in lab.checkpoint.options} == names


def test_stop_keeps_the_curves_and_frees_the_controls(make: Any) -> None:
    lab = make(LONG)
    begin(lab)
    assert lab.start_button.disabled and lab.method.disabled and lab.resume_button.disabled
    press(lab, "stop")
    lab.wait()
    assert lab.outcome.history.stopped
    assert len(lines(lab)[0].y) >= 1
    assert lab.stop_button.disabled and lab.pause_button.disabled
    assert not lab.start_button.disabled and not lab.method.disabled


@pytest.mark.parametrize("method", ["SGD", "ASAM", "Lookahead-SAM", "Lookbehind-ASAM"])
def test_resume_goes_on_in_another_kernel_with_the_sliders_where_they_were(
    make: Any, method: str
) -> None:
    recipe = replace(SHORT, method=method, epochs=6, rho=0.05)
    before = make(recipe)
    begin(before)
    press(before, "pause")
    until(lambda: "Paused at epoch" in before.message)
    before.k.value, before.alpha.value, before.lr.value = 3, 0.25, 0.01
    press(before, "pause")
    moved = before._work
    until(lambda: moved.now == moved.wanted)
    press(before, "stop")
    before.wait()
    after = make(LONG)
    press(after, "resume")
    used = {n: getattr(before.recipe, n) for n in {*axes_of(method)} - {"adaptive"}}
    assert after.recipe == replace(recipe, lr=0.01, **used)
    after.wait()
    assert "Done after" in after.message
    press(before, "resume")  # the same run, which has ended now
    before.wait()
    assert before.outcome.history == after.outcome.history
    assert same_weights(before.outcome, after.outcome)


def test_a_resumed_run_equals_one_that_was_never_stopped(make: Any) -> None:
    recipe = replace(SHORT, epochs=6)
    lab = make(recipe)
    begin(lab, 5)
    press(lab, "stop")
    lab.wait()
    press(lab, "resume")
    lab.wait()
    call = recipe.run()
    assert lab.outcome.history == call.history
    assert same_weights(lab.outcome, call)
    assert len(lab.table) == 1 and lab.table[0]["status"] == "done"
    assert len(lines(lab)) == 5  # it goes on with its own lines
    assert list(lines(lab)[4].x) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "content", [b"", b"a text", "another program's", {"plan": {"config": {"colour": "red"}}}]
)
def test_resume_of_a_foreign_file_says_so(make: Any, tmp_path: Path, content: Any) -> None:
    path = tmp_path / "foreign.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        torch.save({"note": content}, path)
    else:
        checkpoint.save_checkpoint(path, content)
    lab = make()
    press(lab, "resume")
    assert "Not resumed: " in lab.message and "foreign.pt" in lab.message
    assert not lab.running and not lab.start_button.disabled


def test_every_checkpoint_tells_its_recipe(make: Any) -> None:
    lab = finish(make(replace(SHORT, alpha="adaptive")))
    path = lab._work.path
    began, now = recipes_in(path, checkpoint.read_checkpoint(path))
    assert began == now == replace(SHORT, alpha="adaptive")


def test_buttons_without_a_run_say_so(make: Any) -> None:
    lab = make()
    press(lab, "save")
    assert "Nothing to save yet" in lab.message
    press(lab, "resume")
    assert "No checkpoint in the folder" in lab.message
    assert lab.pause_button.disabled and lab.stop_button.disabled
    finish(lab)
    press(lab, "save")
    assert f"The last run is saved as {lab._work.path.name}" in lab.message


def test_reset_keeps_the_table_and_the_files(make: Any, tmp_path: Path) -> None:
    lab = make(LONG)
    training = begin(lab)
    lab.method.value = "SAM"  # as a page that is slow may still send
    lab.k.value = 9
    press(lab, "reset")
    assert lines(lab) == () and lab.recipe == LONG and not lab.running
    assert "press Start" in lab.message
    training.thread.join()
    assert "press Start" in lab.message
    assert training.path.exists()
    assert [row["status"] for row in lab.table] == ["stopped"]
    lab.epochs.value = 1
    finish(lab)
    assert len(list(tmp_path.glob("*.pt"))) == len(lab.table) == 2


def test_runs_are_overlaid_in_one_colour_a_method_and_told_apart_by_dashes(make: Any) -> None:
    lab = make()
    for rho in (0.01, 0.02):
        lab.rho.value = rho
        finish(lab)
    first = [trace for trace in lines(lab) if trace.showlegend]
    assert [trace.line.dash for trace in first] == ["solid", "dash"]
    assert len({trace.line.color for trace in lines(lab)}) == 1
    assert len({trace.name for trace in first}) == 2
    assert len({trace.legendgroup for trace in lines(lab)}) == 2


def test_the_axes_hold_the_longest_run(make: Any) -> None:
    lab = make()
    for epochs in (2, 1):
        lab.epochs.value = epochs
        finish(lab)
    layout = lab.figure.layout
    for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3):
        assert axis.range == (0, 2)


def test_a_second_start_starts_no_second_run(make: Any) -> None:
    lab = make(LONG)
    press(lab, "start")
    lab.start()
    lab.resume()
    assert len(lines(lab)) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 1e30, "method": "SGD"}, "FloatingPointError: the loss"),
        ({"dataset": "no/such/folder", "train": None, "validation": None}, "no/such/folder"),
        ({"train": 5000}, "train must be an int in"),
    ],
)
def test_an_error_appears_in_words_and_the_lab_goes_on(
    make: Any, change: dict[str, Any], words: str
) -> None:
    lab = finish(make(replace(SHORT, **change)))
    assert "The run ended with an error." in lab.message
    assert words in lab.message
    assert lab.table[0]["status"] == "failed"
    lab.put(SHORT)
    assert "Done" in finish(lab).message


def test_a_full_disk_ends_no_run_that_was_asked_to_save(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(LONG)
    training = begin(lab)

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    press(lab, "pause")
    until(lambda: "Paused at epoch" in lab.message)
    with monkeypatch.context() as broken:
        broken.setattr(train.Run, "save", full)
        press(lab, "save")
        until(lambda: "Not saved: No space left on device" in lab.message)
    held = training.steps
    press(lab, "pause")
    until(lambda: training.steps > held)


def test_a_message_is_shown_as_text_not_as_html(make: Any) -> None:
    lab = make(replace(SHORT, dataset="<script>", train=None, validation=None))
    finish(lab)
    assert "&lt;script&gt;" in lab.message and "<script>" not in lab.message
    assert "&lt;script&gt;" in lab._table.value and "<script>" not in lab._table.value


def test_the_curves_are_drawn_at_most_five_times_a_second(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    plain = lab_view.Curves.draw

    def draw(*arguments: Any) -> None:
        drawn.append(time.monotonic())
        plain(*arguments)

    monkeypatch.setattr(lab_view.Curves, "draw", draw)
    lab = make(LONG)
    press(lab, "start")
    until(lambda: len(drawn) > 4)
    press(lab, "stop")
    lab.wait()
    assert min(b - a for a, b in pairwise(drawn[:-1])) > 0.2


def test_a_run_leaves_the_notebooks_random_numbers_alone(make: Any) -> None:
    lab = make()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    finish(lab)
    assert torch.equal(torch.rand(1), expected[:1])
    begin_again = make(LONG)
    press(begin_again, "resume")
    begin_again.wait()
    assert torch.equal(torch.rand(1), expected[1:2])


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


def test_the_table_is_one_row_a_run_and_saved_as_csv(make: Any) -> None:
    lab = make()
    finish(lab)
    lab.method.value = "SGD"
    finish(lab)
    assert [row["method"] for row in lab.table] == ["Lookbehind-SAM", "SGD"]
    assert lab.table[1]["k"] is lab.table[1]["alpha"] is None
    last = lab.outcome.history.last("test")
    assert lab.table[1]["test accuracy"] == last.accuracy
    address = lab._table.value.split("href='")[1].split("'")[0]
    head, text = unquote(address).split(",", 1)
    assert head == "data:text/csv;charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(text)))
    wanted = [{n: "" if v is None else str(v) for n, v in row.items()} for row in lab.table]
    assert rows == wanted


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (4200, "1 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert lab_view.duration(seconds) == text


def test_the_speed_is_that_of_the_last_seconds(tmp_path: Path) -> None:
    training = Training(SHORT, tmp_path / "a.pt", None, None, choose_hardware())
    assert training.images_per_second == 0 and training.seconds_left is None
    training._seen.extend([(10.0, 500, 0.1), (12.0, 900, 0.3)])
    training.share = 0.3
    assert training.images_per_second == 200
    assert training.seconds_left == pytest.approx(7)


@pytest.mark.gpu
def test_the_lab_trains_on_a_gpu(make: Any) -> None:
    hardware: Hardware = choose_hardware("cuda")
    lab = finish(make(replace(SHORT, model="resnet8"), hardware=hardware))
    assert "Done" in lab.message
    assert next(lab.outcome.model.parameters()).is_cuda
