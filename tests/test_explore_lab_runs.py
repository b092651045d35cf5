"""`TrainingLab`: runs that are held, stopped, saved and resumed, shared by labs, and that fail."""

import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import labs
import pytest
import torch
from labs import LONG, SHORT, begin, finish, hold, press, tell, until

from lookbehind import Ball, train
from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.lab import training as lab_training
from lookbehind.explore.lab.training import KERNEL
from lookbehind.measure import worst_rise
from lookbehind.optim import METHODS
from lookbehind.train import Recipe, checkpoint

make = labs.make


def check_same(one, other):
    """Two outcomes agree to the last bit."""
    assert one.history == other.history
    states = one.model.state_dict(), other.model.state_dict()
    torch.testing.assert_close(*states, rtol=0, atol=0)


def interrupt(lab):
    main = threading.main_thread().ident
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        (timer.start(), lab.wait())


def end_cell(_, error=KeyboardInterrupt):
    """Within a cell the signal is Python's own, and IPython reports it."""
    KERNEL._cell_ended(SimpleNamespace(error_in_exec=error()))


@pytest.mark.parametrize("act", [TrainingLab.pause, interrupt, end_cell])
def test_a_pause_or_an_interrupt_holds_the_run_with_a_checkpoint_and_it_goes_on(make, act):
    lab, training = begin(make(LONG))
    end_cell(lab, ValueError)
    assert not training.pausing
    act(lab)
    until(lambda: "Paused at epoch" in lab.message)
    assert ("Interrupted. Paused" in lab.message) == (act is not TrainingLab.pause)
    assert f", saved as {training.path.name}." in lab.message
    held, images = training.steps, checkpoint.read_checkpoint(training.path)["position"][3]
    assert lab.live["state"] == "paused" and images == held * LONG.batch_size
    lab.start()
    lab.resume()
    assert "Not resumed: a run is under way" in lab.message and len(KERNEL.runs) == 1
    lab.k = 5
    assert "from the next step on: Lookbehind-SAM: k 5" in lab.message
    time.sleep(0.1)
    assert training.steps == held
    press(lab, "pause")
    until(lambda: training.steps > held)
    assert lab.live["state"] == "running" and training.now.k == 5


def test_save_and_stop_work_while_paused_and_a_full_disk_ends_no_run(make):
    lab, training = hold(make(LONG))
    full = OSError("No space left on device")
    with mock.patch.object(train.Run, "save", side_effect=full):
        press(lab, "save")
        until(lambda: "Not saved: No space left on device" in lab.message)
    for _ in range(2):
        press(lab, "save")
        until(lambda: "Saved as" in lab.message)
    assert "Stopped after" in finish(lab, "stop").message and lab.outcome.history.stopped
    assert lab.runs[0]["curves"]["test"] and not lab.running and lab.live == {}
    stem = training.path.stem
    names = {f"{stem}.pt", f"{stem}-saved.pt", f"{stem}-saved-2.pt"}
    assert {path.name for path in training.path.parent.iterdir()} == names
    assert {f"{stem}.pt" for stem in lab.checkpoints} == names


@labs.methods
def test_resume_goes_on_in_another_kernel_with_the_sliders_where_they_were(make, method):
    recipe = replace(SHORT, method=method, epochs=6, rho=0.05)
    before, _ = hold(make(recipe))
    before.k, before.rho, before.alpha, before.lr = 3, 0.07, 0.25, 0.01
    finish(before, "stop")
    after = finish(make(LONG), "resume")
    used = {n: getattr(before.recipe, n) for n in {*METHODS[method].sliders} - {"adaptive"}}
    assert after.recipe == replace(recipe, lr=0.01, **used) and "Done after" in after.message
    finish(before, "resume")  # the same run, which has ended now
    check_same(before.outcome, after.outcome)


def test_a_run_that_was_stopped_and_resumed_is_what_one_call_computes(make):
    recipe = replace(SHORT, epochs=6, model="tiny-cnn", alpha="adaptive")
    lab, _ = begin(make(recipe), steps=5)
    finish(lab, "stop")
    call, (run,) = recipe.run(), finish(lab, "resume").runs
    check_same(lab.outcome, call)
    assert lab.recipe == recipe and run["row"]["status"].startswith("done")
    alphas, sharpness = dict(run["alpha"]), run["curves"]["sharpness"]
    assert [*alphas] == [name for name, _ in call.model.named_parameters()]
    assert all(0 <= alpha <= 1 for alpha in alphas.values())
    assert [epoch for epoch, _ in sharpness] == [1, 2, 3, 4, 5, 6]
    batches = SHORT.load().train.batches(lab_training.SHARPNESS_BATCH)
    rise = worst_rise(call.model, batches, Ball(0.05))
    assert rise == run["row"]["sharpness"] == pytest.approx(sharpness[-1][1], rel=1e-4)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text("a text"),
        lambda path: torch.save({"note": "another's"}, path),
        lambda path: checkpoint.save_checkpoint(path, {"plan": {"config": {"colour": "red"}}}),
    ],
)
def test_resume_of_a_foreign_file_says_so(make, tmp_path, write):
    write(tmp_path / "foreign.pt")
    lab = finish(make(), "resume")
    assert "Not resumed: " in lab.message and "foreign.pt" in lab.message
    assert not lab.running and lab.failed


def test_a_button_brings_what_the_controls_say(make):
    """Their own messages may come later: ipywidgets holds them back while the kernel is busy."""
    lab = make()
    tell(lab, {"do": "start", "state": {"method": "SAM", "rho": 0.125}})
    recipe = lab._work.recipe
    assert (recipe.method, recipe.rho) == ("SAM", 0.125)


def test_buttons_without_a_run_say_so(make):
    lab = make()
    press(lab, "save")
    assert "Nothing to save yet" in lab.message
    press(lab, "resume")
    assert "No checkpoint in the folder" in lab.message
    press(lab, "pause")
    press(lab, "stop")
    assert not lab.running
    finish(lab)
    press(lab, "save")
    assert f"The last run is saved as {lab._work.path.name}" in lab.message


def test_reset_keeps_the_table_and_the_files(make, tmp_path):
    lab, training = begin(make(LONG))
    lab.method = "SAM"  # as a page that is slow may still send
    lab.k = 9
    press(lab, "reset")
    assert lab.hidden == [training.path.stem] and lab.recipe == LONG
    lab.wait()
    assert training.path.exists() and [row["status"] for row in lab.table] == ["stopped"]
    lab.epochs = 1
    finish(lab)
    assert len(list(tmp_path.glob("*.pt"))) == len(lab.table) == 2
    assert lab.hidden == [training.path.stem]


NO_IMAGES = {"dataset": "no/such/folder", "train": None, "validation": None}
WILD = {"lr": 1e30, "method": "SGD"}
LEARNING = {"epochs": 30, "method": "SGD", "label_noise": 0.0}
CHANCE = "done, at chance level"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (WILD, "diverged", r"Diverged at epoch .*not finite after.*: lower lr\.$"),
        (NO_IMAGES, "failed", r"The run ended with an error\. .*no/such/folder"),
        ({"train": 5000}, "failed", r"The run ended with an error\. .*train must be an int in"),
        ({"lr": 5.0, "rho": 1.0}, CHANCE, r"This is chance level \(10%\): lower ρ or lr\."),
        ({}, CHANCE, r"This is chance level \(10%\): train longer, or lower ρ\."),
        (LEARNING, "done", r"^Done after 30\.0 epochs: test accuracy 0\.\d+\. SGD"),
    ],
)
def test_an_end_is_told_with_what_to_change_and_the_lab_goes_on(make, change, status, said):
    lab = finish(make(replace(SHORT, **change)))
    assert re.search(said, lab.message) and lab.table[0]["status"] == status
    assert lab.failed == (status in ("diverged", "failed"))
    lab.put(SHORT)
    assert "Done" in finish(lab).message


def test_a_run_leaves_the_notebooks_random_numbers_alone(make):
    for act in ("start", "resume"):
        torch.rand(1)  # a checkpoint holds the state as it was at the start
        state = torch.get_rng_state()
        finish(make(), act)
        assert torch.equal(torch.get_rng_state(), state)


def test_the_time_counts_the_steps_alone(make, monkeypatch):
    """No loading, no pause."""
    plain = Recipe.load
    monkeypatch.setattr(Recipe, "load", lambda *one, **more: time.sleep(1) or plain(*one, **more))
    lab, began = make(replace(LONG, train=90)), time.monotonic()
    hold(lab)
    time.sleep(0.5)
    finish(lab, "stop")
    assert 0 < lab._work.seconds < time.monotonic() - began - 1.5


def test_two_presses_in_two_threads_leave_one_run(make):
    """JupyterLab may deliver them so: two starts are one run, and Stop beside Reset harms none."""
    lab = make(LONG)
    for acts, left in ((("start", "start"), 1), (("stop", "reset"), 0)):
        with ThreadPoolExecutor(2) as pool, KERNEL.lock:  # for which both wait
            presses = [pool.submit(press, lab, act) for act in acts]
        assert [one.exception() for one in presses] == [None, None]
        if not left:
            lab.wait()
        assert len(KERNEL.runs) == left
    assert lab.recipe == LONG and len(lab.table) == 1


def test_another_lab_shows_the_run_under_way_and_stops_it(make):
    first, training = begin(make(LONG))
    again = make(SHORT)
    assert "An earlier run still trains: Lookbehind-SAM: k 2" in again.message
    assert again.recipe == LONG and again._work is training
    again.k = 3
    until(lambda: training.now.k == 3)
    press(again, "stop")
    training.thread.join()
    for lab in (first, again):
        assert "Stopped after" in lab.message
        assert [row["status"][:14] for row in lab.table] == ["stopped, moved"]


def test_a_lab_lists_the_runs_of_the_others(make):
    other, (_, training) = make(LONG), begin(make(LONG))
    assert other.earlier == [[str(training.path), str(LONG)]] and not other.running
    begin(other)
    assert len(KERNEL.runs) == 2
    tell(other, {"do": "end", "key": str(training.path)})
    training.thread.join()
    assert other.earlier == [] and other.running


def test_how_flat_and_look_around_take_the_runs_that_are_shown(make):
    lab = make()
    for act in ("how_flat", "look_around"):
        press(lab, act)
        assert "No finished run is shown" in lab.message
    for method in ("SGD", "SAM", "SAM"):
        lab.method = method
        finish(lab)
    lab.hidden = [lab.runs[0]["key"]]
    press(lab, "how_flat")
    until(lambda: "Measured" in lab.message)
    assert [row["worst rise in 0.05"] is None for row in lab.table] == [True, False, False]
    assert 0 <= lab.table[1]["accuracy, 10% noise"] <= 1
    press(lab, "look_around")
    assert "the landscape around 1. SAM: ρ 0.2, lr 0.03, 2. SAM: ρ 0.2, lr 0.03." in lab.message
    assert lab.around is not None


def test_a_measure_that_fails_says_so(make, monkeypatch):
    lab = finish(make())
    monkeypatch.setattr(lab._work.outcome.model, "forward", None)
    monkeypatch.setattr("lookbehind.explore.landscape.LandscapeExplorer", None)
    press(lab, "how_flat")
    until(lambda: "Not measured. TypeError" in lab.message)
    press(lab, "look_around")
    assert "Not opened. TypeError" in lab.message and lab.failed
