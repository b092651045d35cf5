"""Every notebook with widgets in a real JupyterLab and Chromium: run all, use every control."""

import os
from collections.abc import Iterator
from pathlib import Path

import lab
import pytest

NOTEBOOKS = Path(os.environ.get("LOOKBEHIND_NOTEBOOKS", Path(__file__).parents[1] / "notebooks"))
WIDGET = "application/vnd.jupyter.widget-view+json"
WITH_WIDGETS = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if WIDGET in p.read_text("utf-8")]
# Their widgets are the same after less training; nbval trains all of it.
LESS = {
    "04-train-a-resnet": {"epochs=20": "epochs=2"},
    "08-noisy-weights": {
        "range(3), 0.4\ndraws, noise_seed = 20": "range(2), 0.4\ndraws, noise_seed = 4"
    },
    "10-sensitivity": {"seeds = range(5)": "seeds = range(2)", "epochs=8": "epochs=2"},
}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with lab.jupyterlab(NOTEBOOKS, LESS) as url:
        yield url


@pytest.fixture
def page(address: str) -> Iterator[lab.Page]:
    with lab.browser_page() as blank:
        yield blank


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("LOOKBEHIND_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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


@pytest.mark.parametrize("path", WITH_WIDGETS, ids=lambda path: path.stem)
def test_every_control_of_the_notebook_works(
    path: Path, address: str, page: lab.Page, screenshots: Path
) -> None:
    lab.run_notebook(page, address, path.name)
    assert_healthy(page)
    lab.screenshot(page, screenshots / f"{path.stem}.png")
    choose_every_option(page)
    move_sliders(page)
    press_buttons(page)
    lab.wait_until_idle(page)
    lab.walk(page)
    lab.screenshot(page, screenshots / f"{path.stem}-used.png")
    assert_healthy(page)
