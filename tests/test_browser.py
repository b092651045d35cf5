"""What only JupyterLab shows: a widget of every kind, alive between a page and a kernel.

The pages themselves are tested without a kernel, test_explore_*_page.py and test_site.py.
"""

from pathlib import Path

import lab
import pytest
from playwright.sync_api import TimeoutError as NoAnswer

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
# `heard` is what has reached the kernel.
CELLS = [
    """import ipywidgets, numpy, torch
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.maps import HeatMaps, Intervals, TrainingAtlas
from lookbehind.explore.toy import ToyExplorer
from lookbehind.train import Recipe
torch.set_num_threads(1)
heard = ipywidgets.Label()
def listen(widget):
    tell = lambda change: setattr(heard, "value", f"{change.name} is {change.new!r}")
    widget.observe(tell, [name for name in widget.traits(sync=True) if name[0] != "_"])
    return widget""",
    """ToyExplorer(lambda w: (w**2).sum(-1), start=(1, 1), window=(-2, 2, -2, 2),
    methods=["SGD", "SAM"], panels=["map"])""",
    f"""display(
    heard,
    listen(HeatMaps({{"accuracy": numpy.random.rand(2, 3, 4, 2)}},
        {{"k": [1, 2], "α": [0.2, 0.5, 0.8], "ρ": [1, 2, 3, 4]}}, seeds=5)),
    listen(Intervals({{"bits": {{"SGD": [[0.1, 0.2]] * 3}}}}, {{"bits": [2, 3]}}, other="SGD")),
    listen(TrainingAtlas({str(RESULTS / "atlas.json")!r}, k=2)))""",
    """recipe = Recipe(train=200, validation=0)
data = recipe.load()
LandscapeExplorer({name: recipe.make_model(data) for name in ("one", "other")}, data,
    images=100, points=11)""",
]
LAB = """import torch
from lookbehind.explore.lab import TrainingLab
from lookbehind.train import Recipe
torch.set_num_threads(1)
recipe = Recipe(epochs=100_000, gradients=None, train=200, validation=0, label_noise=0.4)
TrainingLab(recipe, datasets=("digits", "no/such/folder"))"""
EPOCHS = "Number(document.querySelector('.lb-lab [role=slider]')?.getAttribute('aria-valuemax'))"
# Where SAM ends, of a function that only the kernel can compute.
END = """() => document.querySelector('.lb-words p')
    ?.textContent.match(/SAM ends at [^)]*/)?.[0]"""
BARS = """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-OutputArea-output *')]
    .filter(one => /auto|scroll/.test(getComputedStyle(one).overflow))
    .filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.className)"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    served = tmp_path_factory.mktemp("served")
    lab.write_notebook(served / "widgets.ipynb", CELLS)
    lab.write_notebook(served / "lab.ipynb", [LAB])
    with lab.jupyterlab(served) as url:
        yield url


@pytest.fixture(scope="module")
def tab(address):
    """With all widgets but the lab, alive."""
    with lab.browser_page() as page:
        lab.run_notebook(page, address, "widgets.ipynb")
        yield page


@pytest.fixture
def page(tab):
    yield tab
    assert tab.evaluate(lab.BLANK_CANVASES) == 0, "a canvas shows one colour only"
    assert tab.evaluate(BARS) == []
    assert tab.locator(lab.ERRORS).count() == 0
    assert not tab.problems


def scrub(explorer, name, key, times=1):
    for _ in range(times):
        lab.number(explorer, name).press(key)


def test_the_kernel_draws_a_function_of_its_own(page):
    before = page.wait_for_function(END).json_value()
    scrub(page.locator(".lb-explorer").first, "ρ", "ArrowRight", 3)
    page.wait_for_function(f"before => ({END})() !== before", arg=before)


def test_a_move_on_a_map_is_told_to_the_kernel(page):
    told = (1, "ρ", "at is 3"), (2, "level", "at is 1"), (3, "k", "setting is .*'k': 3")
    for place, control, trait in told:
        scrub(page.locator(".lb-explorer").nth(place), control, "ArrowRight")
        lab.says(page, trait)


def test_the_landscape_is_computed_where_a_page_asks_for_it(page):
    lab.says(page, "Done, on 100 images")  # it began by itself once it was shown
    explorer = page.locator(".lb-explorer").nth(4)
    for name, text in (("k,", "6 ascent steps of ρ = 0.2"), ("ρ", "6 ascent steps of ρ = 0.3")):
        scrub(explorer, name, "ArrowRight")
        lab.says(page, f"other: {text}: loss .* off the plane")
    points = page.get_by_label("points", exact=True)
    points.select_option("61")
    lab.says(page, "Computing")
    lab.press(explorer, "Stop")
    lab.says(page, "Stopped: ")
    points.select_option("21")
    lab.says(page, "Done, on 100 images")


def grow(page):
    """Wait until there is a curve, and then until it is longer: the kernel still tells."""
    found = page.wait_for_function(f"() => {EPOCHS} >= 2 && {EPOCHS}").json_value()
    page.wait_for_function(f"found => {EPOCHS} >= found + 3", arg=found)


def reopen(page, where):
    """As a reader does, once more where no widget comes: ipywidgets gives a kernel 4 seconds."""
    page.goto(where, wait_until="domcontentloaded")
    try:
        page.locator(".lb-lab").wait_for(timeout=30_000)
    except NoAnswer:
        page.reload(wait_until="domcontentloaded")


def test_the_lab_trains_is_steered_interrupted_reopened_and_fails_in_words(page, address):
    lab.run_notebook(page, address, "lab.ipynb")
    own = page.locator(".lb-lab")
    lab.press(own, "Start")
    scrub(own, "k,", "ArrowRight")
    lab.says(page, "Training: Lookbehind-SAM: k 3, ρ 0.2, α 0.5, lr 0.03")
    grow(page)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator(".lm-Menu-item[data-command='kernelmenu:interrupt']").click()
    lab.says(page, r"Interrupted. Paused at epoch .* saved as .*digits-mlp-lookbehind-sam.pt")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.locator(".lm-Menu-item[data-command='docmanager:save']").click()
    lab.press(own, "Continue")
    lab.says(page, "Training: Lookbehind-SAM: k 3")
    page.wait_for_selector(".jp-mod-current:not(.jp-mod-dirty)")
    reopen(page, f"{address}/lab/workspaces/again/tree/lab.ipynb")
    grow(page)  # not as it was saved: it goes on
    with lab.blank_page(page.context.browser) as beside:  # a second JupyterLab, while it trains
        reopen(beside, f"{address}/lab/workspaces/beside/tree/lab.ipynb")
        lab.says(beside, "Training: Lookbehind-SAM: k 3, ρ 0.2")
        scrub(beside.locator(".lb-lab"), "ρ", "ArrowLeft", 5)
        for one in (beside, page):
            lab.says(one, "Training: Lookbehind-SAM: k 3, ρ 0.15, α 0.5, lr 0.03")
        assert not beside.problems
    lab.press(own, "Stop")
    lab.says(page, "Stopped after .* test accuracy")
    lab.says(page, "stopped, moved")  # the table
    lab.press(own, "Look around")
    lab.says(page, "Below, the landscape around 1. Lookbehind-SAM: k 3")
    own.locator("xpath=..").locator(".lb-over").wait_for(state="attached")
    own.get_by_label("dataset").select_option("no/such/folder")
    lab.press(own, "Start")
    lab.says(page, "The run ended with an error.*no/such/folder")
