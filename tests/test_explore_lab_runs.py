"""`TrainingLab`: runs that are held, stopped, saved and resumed, shared by labs, and that fail."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

pytest.importorskip("ipywidgets")
import labs
from labs import LONG, SHORT, begin, end, finish, hold, press, tell, until

from lookbehind import train
from lookbehind.explore.lab.training import KERNEL
from lookbehind.optim import METHODS
from lookbehind.train import Recipe, checkpoint

make, one_core = labs.make, labs.one_core


def test_pause_holds_the_run_and_continue_goes_on(make):
    lab = make(LONG)
    training = begin(lab)
    hold(lab)
    held = training.steps
    assert lab.live["state"] == "paused"
    images = checkpoint.read_checkpoint(training.path)["position"][3]
    assert images == held * LONG.batch_size
    lab.k = 5
    assert "from the next step on: Lookbehind-SAM: k 5" in lab.message
    time.sleep(0.1)
    assert training.steps == held
    press(lab, "pause")
    until(lambda: training.steps > held)
    assert lab.live["state"] == "running"
    assert training.now.k == 5


def test_save_and_stop_work_while_paused(make):
    lab = make(LONG)
    training = begin(lab)
    hold(lab)
    for _ in range(2):
        press(lab, "save")
        until(lambda: "Saved as" in lab.message)
    end(lab)
    assert "Stopped after" in lab.message
    stem = training.path.stem
    names = {f"{stem}.pt", f"{stem}-saved.pt", f"{stem}-saved-2.pt"}
    assert {path.name for path in training.path.parent.iterdir()} == names
    assert {f"{stem}.pt" for stem in lab.checkpoints} == names


def test_stop_keeps_the_curves(make):
    lab = make(LONG)
    begin(lab)
    lab.start()
    lab.resume()
    assert len(labs.runs(lab)) == len(KERNEL.runs) == 1  # no second run
    end(lab)
    assert lab.outcome.history.stopped
    assert len(lab.runs[0]["curves"]["test"]) >= 1
    assert not lab.running and lab.live == {}


@labs.methods
def test_resume_goes_on_in_another_kernel_with_the_sliders_where_they_were(make, method):
    recipe = replace(SHORT, method=method, epochs=6, rho=0.05)
    before = make(recipe)
    labs.held(before)
    before.k, before.rho, before.alpha, before.lr = 3, 0.07, 0.25, 0.01
    press(before, "pause")
    moved = before._work
    until(lambda: moved.now == moved.wanted)
    end(before)
    after = make(LONG)
    press(after, "resume")
    used = {n: getattr(before.recipe, n) for n in {*METHODS[method].sliders} - {"adaptive"}}
    assert after.recipe == replace(recipe, lr=0.01, **used)
    after.wait()
    assert "Done after" in after.message
    press(before, "resume")  # the same run, which has ended now
    before.wait()
    assert before.outcome.history == after.outcome.history
    assert labs.same_weights(before.outcome, after.outcome)


def test_a_resumed_run_equals_one_that_was_never_stopped(make):
    recipe = replace(SHORT, epochs=6, alpha="adaptive")
    lab = make(recipe)
    begin(lab, 5)
    end(lab)
    press(lab, "resume")
    lab.wait()
    call = recipe.run()
    assert lab.recipe == recipe and lab.outcome.history == call.history
    assert labs.same_weights(lab.outcome, call)
    assert len(lab.table) == 1 and lab.table[0]["status"].startswith("done")
    assert [epoch for epoch, _ in lab.runs[0]["curves"]["sharpness"]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "content", [b"", b"a text", {"note": "another's"}, {"plan": {"config": {"colour": "red"}}}]
)
def test_resume_of_a_foreign_file_says_so(make, tmp_path, content):
    path = tmp_path / "foreign.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save = torch.save if "note" in content else lambda c, p: checkpoint.save_checkpoint(p, c)
        save(content, path)
    lab = make()
    press(lab, "resume")
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
    lab = make(LONG)
    training = begin(lab)
    lab.method = "SAM"  # as a page that is slow may still send
    lab.k = 9
    press(lab, "reset")
    assert lab.hidden == [training.path.stem] and lab.recipe == LONG
    lab.wait()
    assert training.path.exists()
    assert [row["status"] for row in lab.table] == ["stopped"]
    lab.epochs = 1
    finish(lab)
    assert len(list(tmp_path.glob("*.pt"))) == len(lab.table) == 2
    assert lab.hidden == [training.path.stem]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 1e30, "method": "SGD"}, "not finite after"),
        ({"dataset": "no/such/folder", "train": None, "validation": None}, "no/such/folder"),
        ({"train": 5000}, "train must be an int in"),
    ],
)
def test_an_error_appears_in_words_and_the_lab_goes_on(make, change, words):
    lab = finish(make(replace(SHORT, **change)))
    diverged = "lr" in change
    assert ("Diverged at epoch" if diverged else "The run ended with an error.") in lab.message
    assert words in lab.message and lab.failed
    assert lab.table[0]["status"] == ("diverged" if diverged else "failed")
    assert not diverged or lab.message.endswith(": lower lr.")
    lab.put(SHORT)
    assert "Done" in finish(lab).message


def test_a_full_disk_ends_no_run_that_was_asked_to_save(make):
    lab = make(LONG)
    training = begin(lab)
    hold(lab)
    full = OSError("No space left on device")
    with mock.patch.object(train.Run, "save", side_effect=full):
        press(lab, "save")
        until(lambda: "Not saved: No space left on device" in lab.message)
    held = training.steps
    press(lab, "pause")
    until(lambda: training.steps > held)


def test_a_run_leaves_the_notebooks_random_numbers_alone(make):
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


def test_a_run_that_learns_nothing_is_named_so_with_what_to_change(make):
    lab = finish(make(replace(SHORT, lr=5.0, rho=1.0)))
    assert "This is chance level (10%): lower ρ or lr." in lab.message
    assert lab.table[0]["status"] == "done, at chance level"
    assert "This is chance level (10%): train longer, or lower ρ." in finish(make(SHORT)).message
    lab.put(replace(SHORT, epochs=30, method="SGD", label_noise=0.0))
    assert "chance" not in finish(lab).message


def test_the_time_counts_the_steps_alone(make, monkeypatch):
    """No loading, no pause."""
    plain = Recipe.load

    def slow(*arguments, **options):
        time.sleep(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(Recipe, "load", slow)
    lab, began = make(replace(LONG, train=90)), time.monotonic()
    begin(lab)
    hold(lab)
    time.sleep(0.5)
    end(lab)
    assert 0 < lab._work.seconds < time.monotonic() - began - 1.5


def test_two_presses_in_two_threads_leave_one_run(make):
    """JupyterLab may deliver them so: two starts are one run, and Stop beside Reset harms none."""
    lab = make(LONG)
    for acts, left in ((("start", "start"), 1), (("stop", "reset"), 0)):
        together = threading.Barrier(2)

        def act(name, together=together):
            together.wait()
            press(lab, name)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(act, acts))
        if not left:
            lab.wait()
        assert len(KERNEL.runs) == left
    assert lab.recipe == LONG and len(lab.table) == 1


def test_another_lab_shows_the_run_under_way_and_stops_it(make):
    first = make(LONG)
    training = begin(first)
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
    one, other = make(LONG), make(LONG)
    training = begin(one)
    assert other.earlier == [[str(training.path), str(LONG)]] and not other.running
    begin(other)
    assert len(KERNEL.runs) == 2
    tell(other, {"do": "end", "key": str(training.path)})
    training.thread.join()
    assert other.earlier == [] and other.running


def test_an_interrupt_pauses_the_run_with_a_checkpoint(make):
    lab = make(LONG)
    training = begin(lab)
    main = threading.main_thread().ident
    interrupt = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        (interrupt.start(), lab.wait())
    until(lambda: "Interrupted. Paused at epoch" in lab.message)
    held = training.steps
    assert checkpoint.read_checkpoint(training.path)["position"][3] == held * LONG.batch_size
    press(lab, "pause")
    until(lambda: training.steps > held)
    end(lab)
    assert "Stopped after" in lab.message


def test_an_interrupted_cell_pauses_the_run(make):
    """IPython reports it: within a cell the signal is Python's own."""
    lab = make(LONG)
    begin(lab)
    KERNEL._cell_ended(SimpleNamespace(error_in_exec=ValueError()))
    assert not lab._work.pausing
    KERNEL._cell_ended(SimpleNamespace(error_in_exec=KeyboardInterrupt()))
    until(lambda: "Interrupted. Paused at epoch" in lab.message)


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
