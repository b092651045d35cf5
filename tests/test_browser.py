"""JupyterLab in Chromium: every control of every notebook; the lab and the explorer, driven."""

import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

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
            control.click()
            page.wait_for_timeout(100)


def choose_every_option(page: lab.Page) -> None:
    for dropdown in lab.controls(page, lab.DROPDOWNS):
        first = dropdown.input_value()
        for option in dropdown.eval_on_selector_all("option", "all => all.map(one => one.value)"):
            dropdown.select_option(option)
            page.wait_for_timeout(100)
        dropdown.select_option(first)


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
