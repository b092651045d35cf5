"""The landscape explorer in a real JupyterLab and Chromium: every control, every view, hover."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import lab
import pytest

pytestmark = pytest.mark.browser

CELL = """from dataclasses import replace
import torch
from lookbehind.explore.landscape_explorer import LandscapeExplorer
from lookbehind.objective import weights_of
from lookbehind.recipe import Recipe
torch.set_num_threads(1)
recipe = Recipe(train=200, validation=0, gradients=100, label_noise=0.2)
data, path = recipe.load(), []
record = lambda run: path.append(weights_of(run.model))
sgd = replace(recipe, method="SGD", gradients=12).run(dataset=data, callbacks=[record])
ours = recipe.run(dataset=data, checkpoint="ours.pt")
LandscapeExplorer({"SGD": sgd, "Lookbehind-SAM": ours}, data, paths={"SGD": path},
    images=100, second="Gaussian random", points=11)"""
CANVAS = ".jp-OutputArea-output canvas"
PIXELS = f"() => document.querySelector('{CANVAS}').toDataURL()"
WIDTHS = f"""() => {{
    const canvas = document.querySelector('{CANVAS}'), box = canvas.parentElement;
    return [canvas.clientWidth, box.clientWidth, box.scrollWidth];
}}"""
TIP = f"() => document.querySelector('{CANVAS}').parentElement.lastChild.textContent"
BARS = """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-OutputArea-output *')]
    .filter(one => /auto|scroll/.test(getComputedStyle(one).overflow))
    .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className)"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[lab.Page]:
    with lab.one_cell(tmp_path, CELL) as blank:
        yield blank


def slider(page: lab.Page, label: str) -> lab.ElementHandle:
    found = page.query_selector_all(lab.SLIDERS)
    return next(one for one in found if lab.slider_label(one) == label)


def computed(page: lab.Page) -> None:
    lab.press(page, "Compute")
    lab.says(page, "Computing")
    lab.says(page, "Done, on 100 images")


def changes(page: lab.Page, before: str) -> str:
    """Wait for another picture."""
    page.wait_for_function(f"before => ({PIXELS})() !== before", arg=before, timeout=20_000)
    return page.evaluate(PIXELS)


def hover(page: lab.Page, across: float, down: float) -> str:
    box = page.query_selector(CANVAS).bounding_box()
    page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    return page.evaluate(TIP)


def shot(page: lab.Page, name: str) -> None:
    if folder := os.environ.get("LOOKBEHIND_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"landscape-{name}.png"))


def test_every_control_of_the_landscape_explorer(page: lab.Page) -> None:
    lab.says(page, "Done, on 100 images")  # it began by itself once it was shown
    picture = page.evaluate(PIXELS)
    for label, text in (("k", "6 ascent steps of ρ = 0.2"), ("ρ", "6 ascent steps of ρ = 0.3")):
        slider(page, label).focus()
        page.keyboard.press("ArrowRight")
        lab.says(page, f"Lookbehind-SAM: {text}: loss .* off the plane")
        picture = changes(page, picture)
    assert re.match(r"a −?0\.\d+, b 0.*\nloss .*, accuracy", hover(page, 0.1, 0.45))
    for name in ("ascent path", "ρ-ball"):
        page.get_by_label(name).uncheck()
        picture = changes(page, picture)
        page.get_by_label(name).check()
        picture = changes(page, picture)
    shot(page, "contours")
    for view, words in (("3D surface", "a .*, b .*\nloss"), ("1D profile", "SGD: a .*, loss .*")):
        lab.press(page, view)
        picture = changes(page, picture)
        shot(page, view[:2])
        assert re.match(words, hover(page, 0.2, 0.55))
    page.get_by_label("quantity", exact=True).select_option("accuracy")
    lab.press(page, "3D surface")
    picture = changes(page, picture)
    hover(page, 0.2, 0.5)
    page.mouse.down()
    hover(page, 0.3, 0.45)
    page.mouse.up()
    changes(page, picture)
    lab.press(page, "2D contours")
    for label, value in (("direction a", "training path, PC 1"), ("points", "21")):
        page.get_by_label(label, exact=True).select_option(value)
    lab.press(page, "Compute")
    lab.says(page, "Lookbehind-SAM has no training path")
    page.get_by_label("Lookbehind-SAM", exact=True).uncheck()
    slider(page, "range ±").focus()
    page.keyboard.press("ArrowRight")
    lab.says(page, "Press Compute to draw")
    computed(page)
    lab.says(page, "Training path: the plane holds")
    shot(page, "path")
    lab.press(page, "Save")
    lab.says(page, "Saved in the folder landscapes: SGD.npz")
    page.get_by_placeholder("path of a checkpoint").fill("nowhere.pt")
    lab.press(page, "Load")
    lab.says(page, "Not loaded: .*nowhere.pt")
    page.get_by_placeholder("path of a checkpoint").fill("ours.pt")
    lab.press(page, "Load")
    lab.says(page, "Loaded ours: press Compute")
    page.get_by_label("direction a", exact=True).select_option("filter-normalized random")
    page.get_by_label("points", exact=True).select_option("61")
    lab.press(page, "Compute")
    lab.press(page, "Stop")
    lab.says(page, "Stopped: ")
    plot, box, needed = page.evaluate(WIDTHS)
    assert abs(plot - box) <= 1 and needed <= box + 1
    assert page.evaluate(BARS) == []
    assert page.evaluate(lab.BLANK_CANVASES) == 0
    assert not lab.error_outputs(page)
    assert not page.problems
