"""`TrainingLab`: its curves, its table, and its words."""

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ipywidgets")
import labs
from labs import LONG, SHORT, finish, lines, press, until

from lookbehind.explore.lab import view as lab_view
from lookbehind.explore.lab.training import Training
from lookbehind.train import choose_hardware

make, one_core = labs.make, labs.one_core


def test_runs_are_overlaid_in_one_colour_a_method_told_apart_by_dashes(make: Any) -> None:
    lab = make()
    for rho, epochs in ((0.01, 2), (0.02, 1)):
        lab.rho.value, lab.epochs.value = rho, epochs
        finish(lab)
    first = [trace for trace in lines(lab) if trace.showlegend]
    assert [trace.line.dash for trace in first] == ["solid", "dash"]
    assert len({trace.line.color for trace in lines(lab)}) == 1
    assert len({trace.name for trace in first}) == 2
    assert len({trace.legendgroup for trace in lines(lab)}) == 2
    layout = lab.figure.layout
    for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3):
        assert axis.range == (0, 2)  # of the longest run


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
