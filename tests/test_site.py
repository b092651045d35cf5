"""The site: what `make site` builds, page by page, on a desktop and on a phone, in Chromium."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag

import lab
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
TEACHING = [f"notebooks/teaching/{name}" for name in ("guide", "rubric")]
PAGES = ["index", "api", "search", *(f"notebooks/{path.stem}" for path in NOTEBOOKS), *TEACHING]
PIXELS = "explorer => [...explorer.querySelectorAll('canvas')].map(one => one.toDataURL()).join()"
RULES = lab.WCAG | {"resultTypes": ["violations"], "preload": False}
# axe takes seconds for the thousands of spans of code and formulas, which hold but words.
AS_WORDS = """() => {
    for (const one of document.querySelectorAll('pre, code, .sig')) one.textContent += '';
    for (const one of document.querySelectorAll('mjx-container:not(.wide)')) one.replaceChildren();
}"""
AWAKE = "() => !document.querySelector('.lb-alive, .lb-waking:not(:has(.lb-explorer))')"
FITS = "width => document.documentElement.scrollWidth === width"
# The theme lets keys reach what scrolls, .3 s after the last change of a page.
REACHED = """() => [...document.querySelectorAll('pre')].every(one =>
    one.tabIndex === 0 || one.scrollWidth <= one.clientWidth)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "source").mkdir()
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--jobs=auto"]
    command += ["--conf-dir", ROOT / ".github" / "site", folder / "source", folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with lab.served(site) as url:
        yield url


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    """A blank page; its requests to others, and all that goes wrong, collect in `problems`."""
    with lab.browser_page() as page:
        note, own = page.problems.append, re.compile(r"http://127\.0\.0\.1:|data:|blob:")
        page.on("console", lambda said: said.type == "error" and note(said.text))
        page.on("request", lambda request: own.match(request.url) or note(request.url))
        yield page


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    tab.goto("about:blank")
    tab.problems.clear()
    yield tab
    assert tab.problems == []


def show(page: Page, url: str) -> None:
    """Open a page and wait until its formulas and explorers are there."""
    page.goto(url)
    page.evaluate("() => window.MathJax?.startup.promise")
    page.wait_for_function(AWAKE)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")


def living(name: str) -> int:
    """How many explorers the stored outputs of a page hold."""
    if name in TEACHING or not name.startswith("notebooks/"):
        return int(name == "index")
    stored = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in stored["cells"] for output in cell.get("outputs", [])]
    return sum("text/html" in output.get("data", {}) for output in outputs)


@pytest.mark.browser
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_alive_and_fits(page: Page, address: str, name: str) -> None:
    show(page, f"{address}/{name}.html")
    # A desktop and a phone; down and up again, as a number may stand at its highest.
    for width, height, key in ((1280, 800, "ArrowDown"), (390, 844, "ArrowUp")):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(FITS, arg=width)
        explorers = page.locator("article .lb-explorer").all()
        assert len(explorers) == living(name)
        for explorer in explorers:
            move(page, explorer, key)
    page.evaluate(AS_WORDS)
    page.wait_for_function(REACHED)
    found = Axe().run(page, options=RULES)
    grave = [v for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
    assert not grave, [(v["id"], [node["html"] for node in v["nodes"]]) for v in grave]


def move(page: Page, explorer: Locator, key: str) -> None:
    """Press an arrow key on its first control until its picture changes, or place a bet."""
    explorer.scroll_into_view_if_needed()  # out of sight it draws nothing
    if not explorer.locator("canvas").count():
        choices = explorer.get_by_role("button").all()  # a tally of bets has none
        for choice in choices[:1] if key == "ArrowDown" else choices[-1:]:
            choice.click()
            assert choice.get_attribute("aria-pressed") == "true"
        return
    lab.rest(page, 100)
    before = explorer.evaluate(PIXELS)
    explorer.locator("[role=slider]:visible, [role=spinbutton]:enabled").first.press(key)
    changed = f"([explorer, before]) => ({PIXELS})(explorer) !== before"
    page.wait_for_function(changed, arg=[explorer.element_handle(), before])


@pytest.mark.browser
def test_the_site_is_searched_and_goes_dark(page: Page, address: str) -> None:
    page.emulate_media(color_scheme="dark")
    show(page, f"{address}/search.html?q=lookahead")
    page.wait_for_selector("#search-results a >> text=One step forward")
    show(page, f"{address}/index.html")
    paper = "getComputedStyle(document.querySelector('.lb-explorer')).backgroundColor"
    assert page.evaluate(paper) == "rgb(18, 18, 18)"


def links(page: Path) -> list[str]:
    found = re.findall(r'<[^>]* (?:href|src)="([^"]*)"', page.read_text(encoding="utf-8"))
    return [unescape(link) for link in found]


def test_links_lead_somewhere(site: Path) -> None:
    pages = [site / f"{name}.html" for name in PAGES]
    ids = {page: set(re.findall(r' id="([^"]*)"', page.read_text("utf-8"))) for page in pages}
    for page in pages:
        for link in links(page):
            where, place = urldefrag(link.partition("?")[0])
            if not re.match(r"https?:|data:|mailto:", link):
                target = (page.parent / unquote(where)).resolve() if where else page
                assert target.is_file(), f"{page.name}: {link}"
                assert not place or place in ids[target], f"{page.name}: {link}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_starts_elsewhere_and_leads_on(site: Path, path: Path) -> None:
    page = site / "notebooks" / f"{path.stem}.html"
    found = links(page)
    assert any(link.endswith(f"?urlpath=lab/tree/notebooks/{path.name}") for link in found)
    assert any(link.endswith(f"/lookbehind/blob/main/notebooks/{path.name}") for link in found)
    assert f"../_sources/notebooks/{path.name}" in found
    text = page.read_text("utf-8")
    assert {"left-prev", "right-next"} <= set(re.findall(r"[\w-]+", text))
    assert not re.search(r"\|[—-]+\|", text), "a table is shown as its source"
    pictures = {(page.parent / link).resolve() for link in found if "/_images/" in link}
    assert sum(one.stat().st_size for one in {page, *pictures}) <= 2_000_000
