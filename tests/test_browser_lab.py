"""The training lab driven in a real JupyterLab and Chromium: a run, moved, held, saved, resumed."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import lab
import pytest

pytestmark = pytest.mark.browser

CELL = """import torch
from lookbehind.explore.lab import TrainingLab
from lookbehind.recipe import Recipe
torch.set_num_threads(1)
recipe = Recipe(epochs=2000, gradients=None, train=200, validation=0, label_noise=0.4)
TrainingLab(recipe, datasets=("digits", "no/such/folder"))"""
WIDTHS = """() => ['.js-plotly-plot .main-svg', '.js-plotly-plot'].map(
    name => document.querySelector(name).clientWidth)"""
LEGEND = """() => [...document.querySelectorAll('.js-plotly-plot .legendtext')].map(
    text => text.textContent)"""
LONGEST = """() => Math.max(...[...document.querySelectorAll('.js-plotly-plot .js-line')]
    .map(line => line.getAttribute('d').length))"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[lab.Page]:
    with lab.one_cell(tmp_path, CELL) as blank:
        yield blank


def move(page: lab.Page, label: str, key: str = "ArrowRight", times: int = 1) -> None:
    slider = next(
        one for one in page.query_selector_all(lab.SLIDERS) if lab.slider_label(one) == label
    )
    slider.focus()
    for _ in range(times):
        page.keyboard.press(key)


def choose(page: lab.Page, value: str) -> None:
    option = page.locator(
        ".jp-OutputArea-output select", has=page.locator(f"option[value='{value}']")
    )
    option.first.select_option(value)


def test_a_run_is_started_moved_held_saved_resumed_and_fails_in_words(
    page: lab.Page, tmp_path: Path
) -> None:
    lab.press(page, "Start")
    lab.says(page, "Training: Lookbehind-SAM: k 2, ρ 0.2, α 0.5, lr 0.03")
    move(page, "k")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.2, α 0.5, lr 0.03")
    move(page, "ρ", "ArrowLeft")
    move(page, "α", "ArrowRight", 2)
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α 0.6, lr 0.03")
    page.get_by_label("adaptive α").check()
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive")
    page.wait_for_function(f"() => ({LONGEST})() > 60")  # curves grow while it trains
    page.wait_for_function(f"() => ({LEGEND})().some(text => /α adaptive.*moved/.test(text))")
    plot, box = page.evaluate(WIDTHS)
    assert abs(plot - box) <= 2, "the figure is not as wide as its place"
    lab.press(page, "Pause")
    lab.says(page, r"Paused at epoch .* saved as .*digits-mlp-lookbehind-sam.pt")
    lab.press(page, "Save")
    lab.says(page, "Saved as .*-saved.pt")
    lab.press(page, "Continue")
    lab.says(page, "Training: Lookbehind-SAM: k 3")
    lab.press(page, "Stop")
    lab.says(page, "Stopped after .* test accuracy")
    lab.says(page, "stopped, moved")  # the table
    lab.press(page, "Reset")
    lab.says(page, "press Start")
    lab.press(page, "Resume")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive, lr 0.03")
    assert page.get_by_label("adaptive α").is_checked()
    lab.press(page, "Stop")
    lab.says(page, "Stopped after")
    choose(page, "no/such/folder")
    lab.press(page, "Start")
    lab.says(page, "The run ended with an error.*no/such/folder")
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [row["status"] for row in rows] == ["stopped, moved", "failed"]
    assert re.fullmatch(r"0\.\d+", rows[0]["test accuracy"])
    if folder := os.environ.get("LOOKBEHIND_SCREENSHOTS"):
        page.screenshot(path=Path(folder, "lab-driven.png"))
    assert not lab.error_outputs(page)
    assert not page.problems
