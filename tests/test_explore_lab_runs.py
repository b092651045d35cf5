"""`TrainingLab`: runs that are held, stopped, saved and resumed, and runs that fail."""

import time
from dataclasses import replace

import pytest
import torch

pytest.importorskip("ipywidgets")
import labs
from labs import LONG, SHORT, begin, end, finish, hold, press, runs, same_weights, tell, until

from lookbehind import train
from lookbehind.explore.lab.training import KERNEL
from lookbehind.explore.shared.runs import recipes_in
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
    assert len(runs(lab)) == len(KERNEL.runs) == 1  # no second run
    end(lab)
    assert lab.outcome.history.stopped
    assert len(lab.runs[0]["curves"]["test"]) >= 1
    assert not lab.running and lab.live == {}


@pytest.mark.parametrize("method", ["SGD", "ASAM", "Lookahead-SAM", "Lookbehind-ASAM"])
def test_resume_goes_on_in_another_kernel_with_the_sliders_where_they_were(make, method):
    recipe = replace(SHORT, method=method, epochs=6, rho=0.05)
    before = make(recipe)
    begin(before)
    hold(before)
    before.k, before.alpha, before.lr = 3, 0.25, 0.01
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
    assert same_weights(before.outcome, after.outcome)


def test_a_resumed_run_equals_one_that_was_never_stopped(make):
    recipe = replace(SHORT, epochs=6)
    lab = make(recipe)
    begin(lab, 5)
    end(lab)
    press(lab, "resume")
    lab.wait()
    call = recipe.run()
    assert lab.outcome.history == call.history
    assert same_weights(lab.outcome, call)
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


def test_every_checkpoint_tells_its_recipe(make):
    lab = finish(make(replace(SHORT, alpha="adaptive")))
    path = lab._work.path
    began, now = recipes_in(path, checkpoint.read_checkpoint(path))
    assert began == now == replace(SHORT, alpha="adaptive")


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


def test_a_full_disk_ends_no_run_that_was_asked_to_save(make, monkeypatch):
    lab = make(LONG)
    training = begin(lab)

    def full(*_):
        raise OSError("No space left on device")

    hold(lab)
    with monkeypatch.context() as broken:
        broken.setattr(train.Run, "save", full)
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


def test_the_table_is_one_row_a_run(make):
    lab = make()
    finish(lab)
    lab.method = "SGD"
    finish(lab)
    assert [row["method"] for row in lab.table] == ["Lookbehind-SAM", "SGD"]
    assert lab.table[1]["k"] is lab.table[1]["alpha"] is None
    last = lab.outcome.history.last("test")
    assert lab.table[1]["test accuracy"] == last.accuracy
    assert set(lab.table[0]) == set(lab.table[1])


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
    lab = make(replace(LONG, train=90))
    begin(lab)
    hold(lab)
    time.sleep(0.5)
    end(lab)
    assert 0 < lab._work.seconds < 1
