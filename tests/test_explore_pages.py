"""What all explorers have in common: what a notebook saves, and how their pages fit and look."""

import base64

import lab
import landscapes
import pytest
import test_explore_maps as maps
from axe_playwright_python.sync_playwright import Axe
from labs import SHORT, finish
from landscapes import QUICK, finished, small

from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.explore.toy import ToyExplorer

data = landscapes.data
PIXELS = "() => document.querySelector('.lb-explorer canvas').toDataURL()"
HEAD = """<html lang=en><title>saved</title><meta name=color-scheme content="light dark">
<meta name=viewport content="width=device-width">"""
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
SMALL = """() => [...document.querySelectorAll('button, select, input, summary')]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 24)
    .map(one => one.textContent || one.ariaLabel)"""
LIVING = {
    "toy": lambda _: ToyExplorer("ring", methods=["SGD", "SAM", "Lookbehind-SAM"], k=4),
    "landscape": lambda data: finished(
        LandscapeExplorer({"one": small(0), "other": small(1)}, data, **QUICK)
    ),
    **{name: lambda _, make=make: make() for name, make in maps.PAGES.items()},
}
PRESSED = {"toy": "Where would each start end?", "landscape": "3D surface"}


@pytest.fixture(scope="module")
def bundles(data):
    return {name: make(data)._repr_mimebundle_() for name, make in LIVING.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The lab's page, which a notebook doesn't save."""
    folder = tmp_path_factory.mktemp("lab")
    made = finish(TrainingLab(SHORT, folder=folder))
    made.save_html(folder / "page.html")
    return (folder / "page.html").read_text("utf-8")


@pytest.mark.parametrize("name", LIVING)
def test_what_a_notebook_saves_is_a_widget_a_living_page_and_a_picture(bundles, name):
    data, metadata = bundles[name]
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "image/png"} <= set(data)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"] in data["text/html"]


@pytest.mark.browser
@pytest.mark.parametrize("name", [*LIVING, "lab"])
def test_it_wakes_up_fits_follows_the_theme_and_axe_finds_nothing(
    bundles, trained, tab, tmp_path, name
):
    path, living = tmp_path / "page.html", name in LIVING
    html = bundles[name][0]["text/html"] if living else trained
    path.write_text(f"{HEAD}<main><h1>saved</h1>{html}</main>" if living else html, "utf-8")
    lab.show(tab, path.as_uri())
    if name in PRESSED:
        lab.press(tab, PRESSED[name])
    for summary in tab.locator("summary").all():
        summary.click()
    assert tab.locator("img").count() == 0
    lab.rest(tab, 330)
    light = tab.evaluate(PIXELS)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(f"light => ({PIXELS})() !== light", arg=light)
    # A projector, a desktop at 200 % zoom, and a phone.
    for width, height, scheme in ((1024, 768, "dark"), (640, 400, "dark"), (390, 844, "light")):
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(lab.FITTING)
        lab.rest(tab, 60)
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
        assert tab.evaluate(SMALL) == []
        if width != 640:  # between the two nothing has another colour, name or size
            found = Axe().run(tab, options=RULES)
            assert found.violations_count == 0, found.generate_report()
    assert not tab.problems
