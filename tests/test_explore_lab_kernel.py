"""`TrainingLab`: runs that belong to the kernel: other labs, interrupts, and measures of them."""

import signal
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("ipywidgets")
import labs
from labs import LONG, SHORT, begin, end, finish, press, tell, until

from lookbehind.explore.lab.training import KERNEL
from lookbehind.train import checkpoint

make, one_core = labs.make, labs.one_core


def test_two_presses_in_two_threads_leave_one_run(make):
    """JupyterLab may deliver them so: two starts are one run, and Stop beside Reset harms none."""
    lab = make(LONG)
    for acts, left in ((("start", "start"), 1), (("stop", "reset"), 0)):
        together = threading.Barrier(2)

        def act(name, together=together):
            together.wait()
            press(lab, name)

        threads = [threading.Thread(target=act, args=(name,)) for name in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
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
    end = {"do": "end", "key": str(training.path)}
    tell(other, end)
    training.thread.join()
    assert other.earlier == [] and other.running


def test_an_interrupt_pauses_the_run_with_a_checkpoint(make):
    lab = make(LONG)
    training = begin(lab)
    main = threading.main_thread().ident
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        lab.wait()
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
