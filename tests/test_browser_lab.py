"""The training lab driven in a real JupyterLab and Chromium: a run, moved, held, saved, resumed."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import lab
import nbformat
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
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata.kernelspec = kernel
    nbformat.write(notebook, tmp_path / "lab.ipynb")
    with lab.jupyterlab(tmp_path) as address, lab.browser_page() as blank:
        lab.run_notebook(blank, address, "lab.ipynb")
        yield blank


def press(page: lab.Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click(timeout=20_000)


def says(page: lab.Page, text: str) -> None:
    """Wait until the line of status, or the table, says so."""
    found = f"() => new RegExp({text!r}).test(document.body.innerText)"
    page.wait_for_function(found, timeout=30_000)


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
    press(page, "Start")
    says(page, "Training: Lookbehind-SAM: k 2, ρ 0.2, α 0.5, lr 0.03")
    move(page, "k")
    says(page, "Training: Lookbehind-SAM: k 3, ρ 0.2, α 0.5, lr 0.03")
    move(page, "ρ", "ArrowLeft")
    move(page, "α", "ArrowRight", 2)
    says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α 0.6, lr 0.03")
    page.get_by_label("adaptive α").check()
    says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive")
    page.wait_for_function(f"() => ({LONGEST})() > 60")  # curves grow while it trains
    page.wait_for_function(f"() => ({LEGEND})().some(text => /α adaptive.*moved/.test(text))")
    plot, box = page.evaluate(WIDTHS)
    assert abs(plot - box) <= 2, "the figure is not as wide as its place"
    press(page, "Pause")
    says(page, r"Paused at epoch .* saved as .*digits-mlp-lookbehind-sam.pt")
    press(page, "Save")
    says(page, "Saved as .*-saved.pt")
    press(page, "Continue")
    says(page, "Training: Lookbehind-SAM: k 3")
    press(page, "Stop")
    says(page, "Stopped after .* test accuracy")
    says(page, "stopped, moved")  # the table
    press(page, "Reset")
    says(page, "press Start")
    press(page, "Resume")
    says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive, lr 0.03")
    assert page.get_by_label("adaptive α").is_checked()
    press(page, "Stop")
    says(page, "Stopped after")
    choose(page, "no/such/folder")
    press(page, "Start")
    says(page, "The run ended with an error.*no/such/folder")
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [row["status"] for row in rows] == ["stopped, moved", "failed"]
    assert re.fullmatch(r"0\.\d+", rows[0]["test accuracy"])
    if folder := os.environ.get("LOOKBEHIND_SCREENSHOTS"):
        page.screenshot(path=Path(folder, "lab-driven.png"))
    assert not lab.error_outputs(page)
    assert not page.problems
