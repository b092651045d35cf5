"""The toy explorer's exported page in Chromium: no kernel, no network, and everything alive."""

import re
from functools import partial

import lab
import numpy as np
import pytest
import torch
from lab import PIXELS, changed, drag, number, type_in
from test_explore_toy import EXPRESSION, HERE, bowl
from torch.optim import SGD

from lookbehind import Ball, Lookbehind
from lookbehind.explore.toy import ToyExplorer
from lookbehind.optim import METHODS
from lookbehind.toy import LOSSES, descend

pytestmark = pytest.mark.browser

MAP, LENS, TIME = ".lb-map", ".lb-lens", ".lb-timeline"
FIRST_DESCENT = """() => ['.lb-lensbox figcaption', '.lb-lit']
    .map(name => document.querySelector(name)?.textContent).join()
    .match(/Descent 1 of 3.*φᵢ₋₁ − lr ∇L\\(φ′ᵢ\\)/)"""
SETTINGS = {"methods": ["SGD", "SAM", "Lookbehind-SAM"], "k": 3, "rho": 0.1, "alpha": 0.2}
opened, page = lab.opened, lab.page
settled = partial(lab.rest, milliseconds=330)  # what need not follow the finger has followed it


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return lab.saved(ToyExplorer("valley", **SETTINGS), tmp_path_factory.mktemp("page"))


def in_words(page):
    return page.locator(".lb-words p").text_content()


def ends(page):
    """Where each method ends, by the text of the picture."""
    settled(page)
    found = re.findall(r"(\S+) ends at \(([^,]+), ([^)]+)\)", in_words(page))
    return {m: [float(v.replace("−", "-")) for v in point] for m, *point in found}


@pytest.mark.parametrize(
    ("trait", "name", "value"),
    [
        ("k", "k,", 7),
        ("rho", "ρ, reach", 0.25),
        ("alpha", "α, share", 0.5),
        ("lr", "learning rate", 0.05),
        ("momentum", "momentum", 0.5),
        ("steps", "steps", 20),
    ],
)
def test_a_typed_number_draws_what_the_optimizer_does(page, trait, name, value):
    page.locator(".lb-more summary").click()
    box = type_in(page, name, value)
    own = ToyExplorer("valley", **{**SETTINGS, trait: value})
    assert ends(page) == {m: pytest.approx(own.path(m)[-1, :2], rel=6e-3) for m in own.methods}
    assert box.get_attribute("aria-valuetext") == box.input_value()


def test_every_loss_is_live(page):
    menu = page.get_by_label("loss", exact=True)
    page.locator(".lb-more summary").click()
    for name in menu.locator("option").all_inner_texts():
        menu.select_option(name)
        settled(page)
        assert f"Map of the loss {name}," in in_words(page)
        assert not page.evaluate(lab.BLANK_CANVASES.replace(".jp-OutputArea ", ""))


def test_every_method_is_live(page):
    for method in METHODS:
        chip = page.get_by_role("button", name=re.compile(rf"^(✓ )?{method}\b(?!-)"))
        if chip.get_attribute("aria-pressed") == "false":
            chip.click()
        assert chip.get_attribute("aria-pressed") == "true"
        assert re.search(r"λ [\d.]+ · \d+ gradients", chip.text_content())
    assert set(ends(page)) == set(METHODS)


def test_numbers_follow_arrow_keys_and_a_sideways_drag_within_their_bounds(page):
    assert type_in(page, "k,", 11).input_value() == "3"
    rho = number(page, "ρ, reach")
    for key, value in (("ArrowRight", "0.11"), ("PageUp", "0.21"), ("ArrowDown", "0.20")):
        rho.press(key)
        assert rho.input_value() == value
    settled(page)
    assert page.locator("[aria-live]").text_content().startswith("Step 0 of Lookbehind-SAM")
    page.keyboard.press("Tab")
    drag(rho, (20, 10), (80, 10))
    assert float(rho.input_value()) > 0.25


def test_the_alpha_handle_slides_along_its_line_and_adaptive_is_one_more_value(page):
    page.locator(".lb-handle[aria-label^='α']").press("ArrowRight")
    assert number(page, "α, share").input_value() == "0.25"
    alpha = type_in(page, "α, share", 1)
    assert all(changed(page, lambda: alpha.press("ArrowRight"), MAP))
    assert alpha.input_value() == "adaptive"
    alpha.press("ArrowLeft")
    assert alpha.input_value() == "1.00"


@pytest.mark.parametrize(("name", "canvases"), [("start", (MAP, LENS, TIME)), ("ρ", (MAP, LENS))])
def test_handles_are_dragged_and_moved_by_keys(page, name, canvases):
    grip = page.locator(f".lb-handle[aria-label^='{name}']")
    assert all(changed(page, lambda: drag(grip, (14, 14), (39, 17)), *canvases))
    before = grip.get_attribute("aria-valuetext")
    assert all(changed(page, lambda: grip.press("ArrowLeft"), MAP))
    assert grip.get_attribute("aria-valuetext") != before


def test_the_timeline_chooses_the_outer_step(page):
    line = page.get_by_role("slider", name="outer step", exact=True)
    line.press("PageUp")
    assert line.get_attribute("aria-valuenow") == "10"
    assert all(changed(page, lambda: line.click(position={"x": 400, "y": 50}), MAP, LENS))
    assert int(line.get_attribute("aria-valuenow")) > 10


def test_the_inner_loop_plays_and_lights_its_formula(page):
    caption = page.locator(".lb-lensbox figcaption")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(FIRST_DESCENT)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Step ▶").click()  # the arrow on its way is whole
    before = caption.text_content()
    page.get_by_role("button", name="Step ▶").click()
    assert caption.text_content() != before
    page.get_by_role("button", name="◀ Back").click()
    assert caption.text_content() == before


def test_nothing_moves_by_itself_where_motion_is_not_wanted(page):
    page.emulate_media(reduced_motion="reduce")
    caption = page.locator(".lb-lensbox figcaption")
    for name, shown in (("Step ▶", "Climb 1 of 3"), ("▶ Play", "Descent 1 of 3")):
        lab.press(page, name)
        assert not any(changed(page, lambda: lab.rest(page, 500), LENS))
        assert shown in caption.text_content()
    assert page.locator(TIME).get_attribute("aria-valuenow") == "0"


def test_reset_stops_and_brings_everything_back(page):
    before = [page.evaluate(PIXELS, canvas) for canvas in (MAP, LENS, TIME)]
    page.get_by_role("button", name="Play").click()
    number(page, "k,").press("ArrowRight")
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert [page.evaluate(PIXELS, canvas) for canvas in (MAP, LENS, TIME)] == before
    assert page.get_by_role("button", name="▶ Play").is_visible()


def test_a_path_that_leaves_the_map_says_why(page):
    for name, value in (("k,", "10"), ("ρ, reach", "0.4"), ("α, share", "1")):
        type_in(page, name, value)
    settled(page)
    said = page.locator(".lb-mapbox figcaption").text_content()
    assert re.match(r"Lookbehind-SAM left the map at step 1; lower α: αk = 10\.", said)


def test_where_each_start_would_end(page, address):
    lab.show(page, f"{address}#loss=two+basins&lens=Lookbehind-SAM&k=5&rho=0.26&alpha=0.2")
    page.get_by_role("button", name="Where would each start end?").click()
    caption = page.locator(".lb-mapbox figcaption")
    caption.filter(has_text=re.compile(r" 7\d{3} starts")).wait_for()
    share = float(re.search(r"([\d.]+) % end at \(1, 0\), λ 1", caption.text_content())[1])
    starts = [(x, y) for x in np.linspace(-1.9, 2.1, 12) for y in np.linspace(-1.4, 1.4, 8)]
    rho = torch.full((len(starts),), 0.26, dtype=torch.float64)
    make = lambda w: Lookbehind(SGD(w, lr=0.1), Ball(rho), k=5, alpha=0.2)  # noqa: E731
    run = descend(LOSSES["two basins"], starts, make, 40)
    wide = (np.hypot(*(run.slow[-1] - (1, 0)).T) < 0.6).mean()
    assert share == pytest.approx(100 * wide, abs=6)
    by = page.get_by_label("colored by")
    assert all(changed(page, lambda: by.select_option("sharpness"), ".lb-under"))
    assert "λ 0" in page.locator(".lb-legend").text_content()


def test_a_link_holds_the_setting(page, address):
    number(page, "k,").fill("7")
    page.locator(".lb-more summary").click()
    page.get_by_label("loss", exact=True).select_option("ring")
    settled(page)
    words = in_words(page)
    lab.show(page, page.evaluate("() => location.href"))
    settled(page)
    assert number(page, "k,").input_value() == "7"
    assert in_words(page) == words and "ring" in words


def test_the_python_that_is_copied_does_the_same(page, address):
    every = ",".join(METHODS)
    setting = f"methods={every}&k=4&rho=0.15&alpha=adaptive&momentum=0.5&steps=10"
    lab.show(page, f"{address}#loss=ring&{setting}")
    expected = ends(page)
    page.evaluate("() => { navigator.clipboard.writeText = async one => { window.copied = one; } }")
    page.get_by_role("button", name="Copy as Python").click()
    page.wait_for_function("() => window.copied")
    space = {}
    exec(page.evaluate("() => window.copied"), space)
    for name, make in space["methods"].items():
        end = space["descend"](space["loss"], (-1.4, 0.5), make, 10).slow[-1]
        assert expected[name] == pytest.approx(end, rel=6e-3, abs=6e-3), name


def test_the_picture_is_saved_as_a_png(page, tmp_path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    data = download.value.path().read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 20_000


def test_sentence_map_lens_and_timeline_are_seen_together_on_a_projector(page):
    page.set_viewport_size({"width": 1024, "height": 768})
    for method in ("ASAM", "Lookahead-SAM"):
        page.locator(".lb-chips button", has_text=re.compile(f"^{method}")).click()
    settled(page)
    for canvas in (".lb-say", MAP, LENS, TIME):
        box = page.locator(canvas).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 768, canvas


def test_a_finger_scrolls_past_the_map_and_tab_alone_reaches_everything(page):
    touch = "name => getComputedStyle(document.querySelector(name)).touchAction"
    assert page.evaluate(touch, MAP) == "pan-y" and page.evaluate(touch, ".lb-handle") == "none"

    names, name = set(), "(({ className, textContent }) => className || textContent)"
    for _ in range(40):
        page.keyboard.press("Tab")
        names.add(page.evaluate(f"() => {name}(document.activeElement)"))
    wanted = {"lb-number lb-ascent", "lb-number lb-interpolation", "lb-handle", "lb-timeline"}
    assert wanted | {"Reset", "Where would each start end?", "▶ Play"} <= names


@pytest.mark.parametrize("loss", [EXPRESSION, bowl])
def test_an_expression_of_ones_own_is_live_and_a_function_is_drawn(opened, loss):
    own = ToyExplorer(loss, start=(0.5, 0.8), window=HERE["window"])
    page = opened(own)
    said = page.locator(".lb-mapbox figcaption").text_content()
    assert ("Python function" in said) == callable(loss)
    if not callable(loss):
        number(page, "ρ, reach").fill("0.2")
        own.rho = 0.2
    assert ends(page) == {m: pytest.approx(own.path(m)[-1, :2], abs=6e-3) for m in own.methods}
