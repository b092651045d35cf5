"""The toy explorer's exported page in Chromium: no kernel, no network, and the sliders live."""

import lab
import pytest

from lookbehind.explore.toy import ToyExplorer

pytestmark = pytest.mark.browser

SET = """([name, position]) => {
    const slider = [...document.querySelectorAll('.lb-slider')]
        .find(label => label.firstChild.textContent === name).querySelector('input');
    slider.value = position;
    const before = window.__redraws.length;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    return window.__redraws.length - before;
}"""
TABLE = """() => [...document.querySelectorAll('tbody tr')]
    .map(row => [...row.cells].map(cell => cell.textContent))"""
PIXELS = "selector => document.querySelector(selector).toDataURL()"


@pytest.fixture(scope="module")
def explorer():
    return ToyExplorer("valley", methods=["SGD", "Lookbehind-SAM"], k=2, rho=0.1, alpha=0.2)


@pytest.fixture(scope="module")
def address(explorer, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    explorer.save_html(path)
    return path.as_uri()


@pytest.fixture(scope="module")
def tab():
    with lab.browser_page() as page:
        page.context.set_offline(True)
        yield page


@pytest.fixture
def page(tab, address):
    tab.emulate_media(color_scheme="light")
    tab.goto(address)  # anew for each test
    tab.wait_for_selector("canvas")
    yield tab
    assert not tab.problems


@pytest.mark.parametrize(
    ("name", "trait", "position", "value"),
    [("k", "k", 6, 7), ("ρ", "rho", 10, 0.2), ("α", "alpha", 2, 0.1), ("steps", "steps", 9, 10)],
)
def test_a_move_draws_at_once_what_the_kernel_would(page, explorer, name, trait, position, value):
    before = page.evaluate(PIXELS, ".lb-map")
    assert page.evaluate(SET, [name, position]) == 1
    assert page.evaluate(PIXELS, ".lb-map") != before
    old = getattr(explorer, trait)
    setattr(explorer, trait, value)
    try:
        for row, method in zip(page.evaluate(TABLE), ["SGD", "Lookbehind-SAM"], strict=True):
            loss, sharpness = explorer.path(method)[-1, 2:]
            assert row[0] == f"● {method}"
            assert float(row[2]) == pytest.approx(loss, rel=0.06, abs=1e-12)
            assert float(row[3]) == pytest.approx(sharpness, rel=6e-3)
    finally:
        setattr(explorer, trait, old)


def test_adaptive_alpha_redraws(page):
    before = page.evaluate(PIXELS, ".lb-map")
    page.get_by_label("adaptive α").check()
    assert page.evaluate(PIXELS, ".lb-map") != before


def test_the_inner_loop_plays_step_by_step(page):
    caption = page.locator("figcaption").nth(1)
    page.get_by_role("button", name="▶ Play").click()
    seen = set()
    for _ in range(30):
        seen.add(caption.text_content().split(":")[0])
        page.wait_for_timeout(100)
    assert {"ascent 1", "descent 1", "ascent 2", "descent 2", "interpolation"} <= seen
    page.get_by_role("button", name="Pause").click()
    before = caption.text_content()
    page.get_by_role("button", name="Step ▶").click()
    assert caption.text_content() != before
    page.get_by_role("button", name="◀ Back").click()
    assert caption.text_content() == before


def test_back_undoes_a_step_across_an_outer_step_too(page):
    caption, step = page.locator("figcaption").nth(1), page.get_by_role("button", name="Step ▶")
    step.click()  # from the whole of an outer step to the start of the next
    assert caption.text_content() == "at the slow weights φ"
    while not caption.text_content().startswith("interpolation"):
        step.click()
    end = caption.text_content()
    step.click()
    assert caption.text_content() == "at the slow weights φ"
    page.get_by_role("button", name="◀ Back").click()
    assert caption.text_content() == end


def test_reset_brings_everything_back(page):
    before = page.evaluate(PIXELS, ".lb-map"), page.evaluate(PIXELS, ".lb-lens")
    page.evaluate(SET, ["k", 8])
    page.evaluate(SET, ["outer step t", 5])
    page.get_by_role("button", name="Reset").click()
    assert (page.evaluate(PIXELS, ".lb-map"), page.evaluate(PIXELS, ".lb-lens")) == before


def test_what_needs_a_kernel_is_switched_off(page):
    assert page.get_by_label("learning rate").is_disabled()
    assert page.get_by_label("momentum").is_disabled()
    assert page.get_by_label("loss", exact=True).is_disabled()


def test_dark_theme_changes_the_picture(page):
    light = page.evaluate(PIXELS, ".lb-map")
    page.emulate_media(color_scheme="dark")
    page.evaluate(SET, ["k", 1])
    assert page.evaluate(PIXELS, ".lb-map") != light
