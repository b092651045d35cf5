"""JupyterLab in Chromium: every control of every notebook; the lab and the explorer, driven."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import nbformat
import pytest

NOTEBOOKS = Path(os.environ.get("LOOKBEHIND_NOTEBOOKS", Path(__file__).parents[1] / "notebooks"))
WIDGET = "application/vnd.jupyter.widget-view+json"
# The widgets are the same after less training, and in threads; nbval trains all of it.
LESS = {
    "epochs=20": "epochs=2",  # 04
    '"gradients": 600': '"gradients": 60',  # 06
    'sweep["budgets"]["equal steps"]': '{"epochs": 1, "gradients": None}',  # 08
    "seeds, label_noise = range(3)": "seeds, label_noise = range(2)",
    "draws, noise_seed = 20": "draws, noise_seed = 4",
    "seeds = range(5)": "seeds = range(2)",  # 10
    "epochs=8": "epochs=1, train=100",
    "import ProcessPoolExecutor": "import ThreadPoolExecutor as ProcessPoolExecutor",
}
DOUBLE = "set_default_dtype(torch.float64)"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[lab.Browser]:
    with lab.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What JupyterLab serves; the tests write their notebooks there."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with lab.jupyterlab(folder) as url:
        yield url


@pytest.fixture
def page(browser: lab.Browser) -> Iterator[lab.Page]:
    with lab.blank_page(browser) as blank:
        yield blank
        lab.choose(blank, "Kernel", "Shut Down Kernel")


def run_cell(page: lab.Page, folder: Path, address: str, cell: str) -> None:
    """Run a notebook of one cell, in a folder of its own."""
    (folder / "cell").mkdir(exist_ok=True)
    lab.write_notebook(folder / "cell" / "cell.ipynb", [cell])
    lab.run_notebook(page, address, "cell/cell.ipynb")


def slider(page: lab.Page, label: str) -> lab.ElementHandle:
    found = page.query_selector_all(lab.SLIDERS)
    return next(one for one in found if lab.slider_label(one) == label)


def move_sliders(page: lab.Page) -> None:
    for slider in filter(lab.ElementHandle.is_enabled, lab.controls(page, lab.SLIDERS)):
        slider.focus()
        page.wait_for_timeout(100)  # JupyterLab makes the cell under the focus its active one
        before = slider_value(slider)
        page.keyboard.press("ArrowRight")
        right = slider_value(slider)
        page.keyboard.press("ArrowLeft")
        left = slider_value(slider)
        moved = before != right or right != left
        assert moved, f"the slider {lab.slider_label(slider)!r} does not follow the arrow keys"


def slider_value(slider: lab.ElementHandle) -> str:
    return slider.evaluate("one => one.value ?? one.getAttribute('aria-valuenow')")


def press_buttons(page: lab.Page) -> None:
    for control in lab.controls(page, lab.BUTTONS):
        if control.is_enabled():
            text = control.inner_text()
            control.click()
            page.wait_for_timeout(100)
            if text == "▶ Play":  # else all explorers of the page play at once
                control.click()


def choose_every_option(page: lab.Page) -> None:
    """Of several menus of the same options, such as the toy losses, the first in full."""
    seen = set()
    for dropdown in lab.controls(page, lab.DROPDOWNS):
        first = dropdown.input_value()
        options = dropdown.eval_on_selector_all("option", "all => all.map(one => one.value)")
        for option in options[-1:] if tuple(options) in seen else options:
            dropdown.select_option(option)
            page.wait_for_timeout(100)
        dropdown.select_option(first)
        seen.add(tuple(options))


def assert_healthy(page: lab.Page) -> None:
    assert not lab.error_outputs(page)
    assert not page.problems
    assert page.evaluate(lab.BLANK_CANVASES) == 0, "a canvas shows one colour only"


def cells_of_widgets(path: Path) -> list[str]:
    """The cells of a notebook that its widgets need: imports, settings, and a slice."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    shown = {
        n for n, cell in enumerate(cells) if any(WIDGET in o.get("data", {}) for o in cell.outputs)
    }
    sources = [cell.source for cell in cells]
    return [sources[n] for n in lab.needed_cells(sources, {0, 1} | shown)] if shown else []


def less(cell: str) -> str:
    for old, new in LESS.items():
        cell = cell.replace(old, new)
    return cell


@pytest.mark.parametrize("double", [False, True], ids=["single precision", "double precision"])
def test_every_control_of_every_notebook(
    double: bool, folder: Path, address: str, page: lab.Page
) -> None:
    """One kernel runs what the widgets of all notebooks of this precision need."""
    notebooks = [cells_of_widgets(path) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    chosen = [cells for cells in notebooks if any(DOUBLE in cell for cell in cells) == double]
    place = folder / ("double" if double else "single")
    shutil.copytree(NOTEBOOKS / "results", place / "results")
    lab.write_notebook(place / "widgets.ipynb", [less(cell) for cells in chosen for cell in cells])
    lab.run_notebook(page, address, f"{place.name}/widgets.ipynb")
    assert_healthy(page)
    save_picture(page, f"{place.name}.png")
    choose_every_option(page)
    move_sliders(page)
    press_buttons(page)
    lab.wait_until_idle(page)
    lab.walk(page)
    save_picture(page, f"{place.name}-used.png")
    assert_healthy(page)


def save_picture(page: lab.Page, name: str) -> None:
    if to := os.environ.get("LOOKBEHIND_SCREENSHOTS"):
        page.screenshot(path=Path(to, name))


LAB = """import torch
from lookbehind.explore.lab import TrainingLab
from lookbehind.train import Recipe
torch.set_num_threads(1)
recipe = Recipe(epochs=2000, gradients=None, train=200, validation=0, label_noise=0.4)
TrainingLab(recipe, datasets=("digits", "no/such/folder"))"""
GROWN = """least => Number(document.querySelector('.lb-lab [role=slider]')
    ?.getAttribute('aria-valuemax')) >= least"""


def menu(page: lab.Page, name: str, command: str) -> None:
    """An item whose text holds its keys, too."""
    page.get_by_role("menuitem", name=name, exact=True).click(timeout=5000)
    page.locator(f".lm-Menu-item[data-command='{command}']").click(timeout=5000)


def scrub(page: lab.Page, name: str, key: str, times: int = 1) -> None:
    page.get_by_role("spinbutton", name=name).focus()
    for _ in range(times):
        page.keyboard.press(key)


def test_a_run_is_started_moved_held_reopened_saved_resumed_and_fails_in_words(
    page: lab.Page, folder: Path, address: str
) -> None:
    run_cell(page, folder, address, LAB)
    lab.press(page, "Start")
    lab.says(page, "Training: Lookbehind-SAM: k 2, ρ 0.2, α 0.5, lr 0.03")
    scrub(page, "k,", "ArrowRight")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.2, α 0.5, lr 0.03")
    scrub(page, "ρ,", "ArrowLeft", 5)
    scrub(page, "α,", "ArrowRight", 2)
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α 0.6, lr 0.03")
    page.wait_for_function(GROWN, arg=5)  # the curves grow while it trains
    menu(page, "Kernel", "kernelmenu:interrupt")
    lab.says(page, r"Interrupted. Paused at epoch .* saved as .*digits-mlp-lookbehind-sam.pt")
    menu(page, "File", "docmanager:save")
    lab.press(page, "Continue")
    lab.says(page, "Training: Lookbehind-SAM: k 3")
    page.wait_for_selector(".jp-mod-current:not(.jp-mod-dirty)")
    page.goto(f"{address}/lab/workspaces/again/tree/cell/cell.ipynb", wait_until="domcontentloaded")
    page.wait_for_function(GROWN, arg=5, timeout=30_000)  # closed and opened again
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α 0.6, lr 0.03")
    assert not page.evaluate(lab.BLANK_CANVASES)
    scrub(page, "α,", "End")
    scrub(page, "α,", "ArrowRight")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive")
    page.locator(".lb-alpha canvas").wait_for()
    save_picture(page, "lab-reopened.png")
    page.get_by_text("Checkpoints").click()
    lab.press(page, "Save")
    lab.says(page, "Saved as .*-saved.pt")
    lab.press(page, "Stop")
    lab.says(page, "Stopped after .* test accuracy")
    lab.says(page, "stopped, moved")  # the table
    lab.press(page, "Reset")
    lab.says(page, "press Start")
    lab.press(page, "Resume")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.15, α adaptive, lr 0.03")
    lab.press(page, "Stop")
    lab.says(page, "Stopped after")
    lab.press(page, "Look around")
    lab.says(page, "Below, the landscape around 1. Lookbehind-SAM: k 3")
    page.get_by_label("dataset").select_option("no/such/folder")
    lab.press(page, "Start")
    lab.says(page, "The run ended with an error.*no/such/folder")
    save_picture(page, "lab-driven.png")
    assert not lab.error_outputs(page)
    assert not page.problems


EXPLORER = """from dataclasses import replace
import torch
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.measure import weights_of
from lookbehind.train import Recipe
torch.set_num_threads(1)
recipe = Recipe(train=200, validation=0, gradients=100, label_noise=0.2)
data, path = recipe.load(), []
record = lambda run: path.append(weights_of(run.model))
sgd = replace(recipe, method="SGD", gradients=12).run(dataset=data, callbacks=[record])
ours = recipe.run(dataset=data)
LandscapeExplorer({"SGD": sgd, "Lookbehind-SAM": ours}, data, paths={"SGD": path},
    images=100, second="Gaussian random", points=11)"""
OVER = ".jp-OutputArea-output .lb-over"
PIXELS = f"() => document.querySelector('{OVER}').toDataURL()"
BARS = """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-OutputArea-output *')]
    .filter(one => /auto|scroll/.test(getComputedStyle(one).overflow))
    .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className)"""


def number(page: lab.Page, name: str) -> Any:
    return page.get_by_role("spinbutton", name=re.compile(f"^{re.escape(name)}"))


def test_the_landscape_explorer_computes_what_a_page_asks_for(
    page: lab.Page, folder: Path, address: str
) -> None:
    """The view is tested without a kernel, in test_explore_landscape_page.py."""
    run_cell(page, folder, address, EXPLORER)
    lab.says(page, "Done, on 100 images")  # it began by itself once it was shown
    picture = page.evaluate(PIXELS)
    for name, text in (
        ("k,", "6 ascent steps of ρ = 0.2"),
        ("ρ, reach", "6 ascent steps of ρ = 0.3"),
    ):
        number(page, name).press("ArrowRight")
        lab.says(page, f"Lookbehind-SAM: {text}: loss .* off the plane")
    assert page.evaluate(PIXELS) != picture
    save_picture(page, "landscape-contours.png")
    page.get_by_label("direction a", exact=True).select_option("training path, PC 1")
    lab.says(page, "Lookbehind-SAM has no training path")
    page.get_by_role("button", name=re.compile("Lookbehind-SAM +loss")).click()
    lab.says(page, "a → training path, PC 1|Training path: the plane holds")
    lab.says(page, "Done, on 100 images")
    number(page, "range ±").press("ArrowRight")
    page.get_by_label("points", exact=True).select_option("21")
    lab.says(page, "Computing")
    lab.says(page, "Done, on 100 images")
    page.get_by_text("The picture in words").click()
    lab.says(page, "within ±1.5. SGD: loss")
    page.get_by_label("points", exact=True).select_option("61")
    lab.press(page, "Stop")
    lab.says(page, "Stopped: ")
    save_picture(page, "landscape-path.png")
    assert page.evaluate(BARS) == []
    assert page.evaluate(lab.BLANK_CANVASES) == 0
    assert not lab.error_outputs(page)
    assert not page.problems
