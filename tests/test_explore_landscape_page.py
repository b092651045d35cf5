"""The landscape explorer's exported page in Chromium: no kernel, and all of the view alive."""

import re

import lab
import numpy as np
import pytest
from lab import number
from landscapes import around, finished, small, trained

from lookbehind.explore.landscape.explorer import QUANTITIES
from lookbehind.explore.shared.palette import PALETTES
from lookbehind.weights import weights_of

pytestmark = pytest.mark.browser
page = lab.page
UNDER, OVER = ".lb-under", ".lb-over"


@pytest.fixture(scope="module")
def explorer():
    path = [weights_of(small(seed)) for seed in (5, 6, 7, 1)]
    return finished(around(trained(), paths={"plain": path}))


@pytest.fixture(scope="module")
def address(explorer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    address = lab.saved(explorer, folder)
    assert (folder / "page.html").stat().st_size <= 1_000_000
    return address


def changed(page, act, canvas=OVER):
    return all(lab.changed(page, act, canvas))


def says(page):
    return page.locator(".lb-says").inner_text()


def hover(page, across, down, network=0):
    """Over a share of a network's panel; the words of the tooltip."""
    box, (x, y, size) = page.locator(OVER).bounding_box(), panel(page, network)
    page.mouse.move(box["x"] + x + across * size, box["y"] + y + down * size)
    return page.locator(".lb-tip").inner_text()


def panel(page, network):
    wide = page.locator(OVER).bounding_box()["width"] / 2
    return wide * network + 40, 82, min(int(wide) - 50, 430)


def words(value):
    size = abs(value)
    text = f"{value:.1e}".replace("e-0", "e-") if 0 < size < 1e-3 else f"{float(f'{value:.3g}'):g}"
    return text.replace("-", "−")


def test_k_and_rho_look_up_the_climb_that_was_measured(page, explorer):
    for name, value in (("k,", 3), ("ρ, reach", 0.7)):
        assert changed(page, lambda n=name, v=value: number(page, n).fill(str(v)))
    for sight in explorer.sights:
        start, end = np.array(sight.climbs[0.7])[[0, 3]]
        text = f"{sight.name}: 3 ascent steps of ρ = 0.7: loss {words(start[2])} → {words(end[2])}"
        assert text in says(page) and f"a distance of {words(end[5])}" in says(page)
    radius = number(page, "ρ, reach")
    radius.press("ArrowRight")
    assert radius.get_attribute("aria-valuenow") == "1"
    radius.press("ArrowRight")
    assert radius.input_value() == "1"


def test_the_ball_is_a_circle_that_is_dragged_and_moved_by_keys(page, explorer):
    radius, grip = number(page, "ρ, reach"), page.locator(".lb-handle[aria-label^='ρ']")
    radius.fill("0.5")
    x, y, size = panel(page, 1)
    x, y, half_way = x + size / 2, y + size / 2, size / 4 / explorer.sights[1].unit
    # From the circle, above the second network.
    lab.drag(page.locator(OVER), (x, y - half_way), (x, y - 0.4 * half_way))
    assert radius.input_value() == "0.2"
    assert changed(page, lambda: grip.press("ArrowRight"))
    assert grip.get_attribute("aria-valuetext") == "ρ = 0.3"
    lab.drag(grip, (14, 14), (14 + 0.35 * size, 30))
    assert radius.input_value() == "1"


def test_what_is_read_is_what_was_measured_by_hand_and_by_key(page, explorer):
    plane = explorer.sights[0].plane
    rise, loss = (words(v) for v in (plane.loss[8, 2] - plane.loss.min(), plane.loss[8, 2]))
    expected = f"SAM: rise {rise}, loss {loss}, accuracy {words(plane.accuracy[8, 2])}"
    assert hover(page, 0.2, 0.2) == f"a −0.6, b 0.6\n{expected}"
    probe = page.locator(".lb-probe")
    for key in [*["ArrowLeft"] * 3, *["ArrowUp"] * 3]:
        probe.press(key)
    lab.rest(page, 60)
    said = probe.get_attribute("aria-valuetext")
    assert said.startswith(f"a −0.6, b 0.6. {expected}. plain: rise ")
    assert page.locator(".lb-tip").inner_text().startswith(f"a −0.6, b 0.6\n{expected}\nplain")


@pytest.mark.parametrize("name", ["1D profile", "3D surface"])
def test_the_tooltip_goes_when_the_view_changes_and_every_view_has_its_own(page, name):
    assert "loss" in hover(page, 0.2, 0.2)
    assert changed(page, lambda: page.get_by_role("button", name=name).focus(), UNDER) is False
    page.keyboard.press("Enter")
    lab.rest(page, 60)
    assert not page.locator(".lb-tip").is_visible()
    assert re.search(r"a .*\n?SAM: rise .*, loss .*, accuracy", hover(page, 0.5, 0.5))


def test_a_surface_is_turned_by_hand_and_by_numbers(page):
    lab.press(page, "3D surface")
    lab.rest(page, 60)
    hover(page, 0.2, 0.5)
    page.mouse.down()
    assert changed(page, lambda: hover(page, 0.3, 0.4))
    page.mouse.up()
    turned = number(page, "turned")
    before = int(turned.input_value().replace("−", "-"))
    assert before < 34
    assert changed(page, lambda: turned.press("ArrowUp"))
    assert before < int(turned.input_value()) <= before + 8  # a multiple of 5


def test_every_quantity_and_layer_changes_the_picture(page):
    for quantity in [*QUANTITIES[1:], QUANTITIES[0]]:
        choose = page.get_by_label("quantity", exact=True).select_option
        assert changed(page, lambda q=quantity, choose=choose: choose(q), UNDER)
    for layer in ("training path", "climb", "ρ-ball"):
        press = page.get_by_role("button", name=layer).click
        assert changed(page, press) and changed(page, press)
    assert "Training path: the plane holds" in says(page)


def test_all_networks_share_one_scale_and_rise_from_their_own_minimum(page, explorer):
    planes = [(sight.plane.loss, sight.line.loss) for sight in explorer.sights]
    lows = [min(part.min() for part in parts) for parts in planes]
    high = max(part.max() - low for parts, low in zip(planes, lows, strict=True) for part in parts)
    lab.rest(page, 330)
    told = page.locator(".lb-words p").text_content()
    assert f"from 0 to {words(float(f'{high:.4g}'))} for all networks together" in told
    assert "plain: loss" in told and "a is gradient, b Gaussian random" in told


def test_a_chip_hides_a_network_but_never_the_last(page):
    for name, left in (("plain", "SAM"), ("SAM", "SAM")):
        page.get_by_role("button", name=re.compile(name)).click()
        lab.rest(page, 60)
        assert says(page).startswith(f"● {left}") and "plain" not in says(page)
    page.get_by_role("button", name=re.compile("plain")).click()
    color = page.get_by_role("button", name=re.compile("SAM")).evaluate("n => n.style.color")
    red, green, blue = bytes.fromhex(PALETTES["light"]["methods"]["SAM"][1:])
    assert color == f"rgb({red}, {green}, {blue})"


def test_what_needs_the_kernel_is_said_and_all_is_seen_together_on_a_projector(page):
    page.set_viewport_size({"width": 1024, "height": 768})
    lab.rest(page, 60)
    box = page.locator(OVER).bounding_box()
    assert box["y"] + box["height"] <= 768
    text = page.locator("p.lb-plane").inner_text()
    assert "a: gradient, and b: Gaussian random; from −1 to 1 at 11 × 11 points" in text
    assert "Other planes need a kernel" in text and not page.locator("progress").count()
