"""The training lab's page in Chromium, with stored runs: no kernel, no network."""

import csv

import lab
import pytest
from labs import SHORT, finish

from lookbehind.explore.lab import TrainingLab, controls
from lookbehind.explore.shared import page as pages

pytestmark = pytest.mark.browser

opened, page = lab.opened, lab.page
PIXELS = "() => [...document.querySelectorAll('.lb-plots figure canvas')].map(c => c.toDataURL())"
# A kernel for the page: what it is sent is kept, and `hear` says what has changed.
LISTENING = """model: window.kernel = ((state) => Object.assign(still(state), {
    heard: {}, sent: [], send(what) { this.sent.push(what); },
    on(event, act) { this.heard[event] = act; },
    hear(state) {
        for (const name in state) this.set(name, state[name]);
        this.heard["change:runs"]();
    } }))("""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three runs: one whose ρ was moved, one in hiding, and an adaptive one."""
    made = TrainingLab(SHORT, folder=tmp_path_factory.mktemp("runs"))
    for method, adaptive in (("SAM", False), ("SAM", False), ("Lookbehind-SAM", True)):
        made.method, made.adaptive = method, adaptive
        finish(made)
    moved, *rest = made.runs
    made.runs = [{**moved, "ticks": [[1.5, "ρ 0.5 → 0.4"], [1.6, "lr 0.03 → 0.1"]]}, *rest]
    made.hidden = [rest[0]["key"]]
    return made


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    """The saved page, but with a kernel that only listens."""
    return lab.saved(trained, tmp_path_factory.mktemp("page"), "model: still(", LISTENING)


def hear(page, **state):
    page.evaluate("state => kernel.hear(state)", state)
    return pictures(page)


def pictures(page):
    lab.rest(page, 60)
    return page.evaluate(PIXELS)


def row(page, n):
    return page.locator(".lb-table tbody th button").nth(n)


def test_a_row_is_the_legend_of_its_curves(page):
    before = pictures(page)
    pressed = [row(page, n).get_attribute("aria-pressed") for n in range(3)]
    assert pressed == ["true", "false", "true"]
    row(page, 0).hover()
    lit = pictures(page)
    assert all(one != two for one, two in zip(before[:3], lit[:3], strict=True))
    row(page, 0).press("Enter")
    page.locator(".lb-table tbody th button[aria-pressed=true]").nth(1).wait_for(state="detached")
    assert row(page, 0).get_attribute("aria-pressed") == "false"
    assert len(page.evaluate("() => kernel.get('hidden')")) == 2
    page.mouse.move(0, 0)
    assert pictures(page)[0] != before[0]
    row(page, 0).press("Enter")
    page.locator(".lb-message").click()
    row(page, 0).evaluate("one => one.blur()")
    page.wait_for_function(f"before => ({PIXELS})().join() === before.join()", arg=before)


def test_a_move_is_marked_on_the_curves_and_in_words(page, trained):
    lab.rest(page, 350)
    told = page.locator(".lb-plots canvas").nth(1).get_attribute("aria-label")
    assert "; ρ 0.5 → 0.4 at epoch 1.5; lr 0.03 → 0.1 at epoch 1.6" in told
    before, after = pictures(page), hear(page, runs=[run | {"ticks": []} for run in trained.runs])
    assert all(one != two for one, two in zip(before[:3], after[:3], strict=True))


def test_the_curves_are_read_by_arrow_keys(page, trained):
    line = page.get_by_role("slider")
    line.press("Home")
    line.press("ArrowRight")
    page.wait_for_selector("[role=slider][aria-valuenow='1']")  # drawn with the next frame
    accuracy, read = trained.runs[0]["curves"]["test"][1][1], page.locator(".lb-read")
    said = read.text_content()
    assert f"SAM: ρ 0.2, lr 0.03, epoch 1: test {float(f'{accuracy:.3g}')}" in said
    page.locator(".lb-plots canvas").nth(2).hover(position={"x": 200, "y": 50})
    lab.rest(page, 60)
    assert read.text_content() != said


def test_before_the_first_run_a_sentence_stands_in_place_of_empty_axes(page):
    hear(page, runs=[], hidden=[])
    assert page.locator(".lb-invitation").is_visible()
    assert not page.locator(".lb-plots").is_visible() and not page.locator(".lb-table").is_visible()


def test_buttons_and_numbers_tell_the_kernel(page, trained):
    page.get_by_text("Checkpoints").click()
    chosen = page.get_by_label("checkpoint")
    assert not chosen.is_visible()  # there is none yet
    hear(page, checkpoints=["b", "a"], checkpoint="a")
    assert chosen.is_visible() and chosen.input_value() == "a"
    for name, key, value in (("k,", "k", 3), ("ρ,", "rho", 0.21), ("learning", "lr", 0.035)):
        lab.number(page, name).press("ArrowRight")
        assert page.evaluate(f"() => kernel.get('{key}')") == value
    alpha = lab.number(page, "α,")
    assert alpha.input_value() == "adaptive"
    alpha.press("ArrowLeft")
    assert page.evaluate("() => [kernel.get('alpha'), kernel.get('adaptive')]") == [1, False]
    page.get_by_label("method").select_option("SAM")
    lab.rest(page, 60)
    assert page.evaluate("() => kernel.get('method')") == "SAM"
    assert alpha.is_disabled() and lab.number(page, "k,").is_disabled()
    # A button takes along what was just chosen.
    page.get_by_label("dataset").select_option("cifar10")
    lab.type_in(page, "ρ", 0.3)
    names = ("Start", "Reset", "How flat?", "Look around", "Save", "Resume")
    for name in names:
        lab.press(page, name)
    sent = page.evaluate("() => kernel.sent.map(one => [one.do, one.state.dataset, one.state.rho])")
    acts = [name.lower().strip("?").replace(" ", "_") for name in names]
    assert sent == [[act, "cifar10", 0.3] for act in acts]


def test_what_is_under_way_is_held_and_stopped_here(page, trained):
    live = {**trained.runs[2], "state": "running", "budget": 1000, "share": 0.003}
    earlier = [["runs/a.pt", "SAM: ρ 0.1, lr 0.1"]]
    hear(page, live=live, earlier=earlier, message="<b>Training</b>", failed=True)
    start = page.get_by_role("button", name="Start", exact=True)
    assert start.is_disabled() and page.get_by_label("method").is_disabled()
    assert page.locator("[aria-live]").text_content() == "<b>Training</b>"
    assert "lb-failed" in page.locator(".lb-message").get_attribute("class")
    lab.rest(page, 250)
    hear(page, live={**live, "share": 0.006, "images": live["images"] + 300})
    bar = page.locator(".lb-bar").text_content()
    assert "of 1000 · " in bar and "images/s · " in bar
    lab.press(page, "Pause")
    hear(page, live={**live, "state": "paused"})
    lab.press(page, "Continue")
    page.locator(".lb-earlier").get_by_role("button").click()
    sent = page.evaluate("() => kernel.sent.map(one => [one.do, one.key])")
    assert sent == [["pause", None], ["pause", None], ["end", "runs/a.pt"]]
    assert page.locator(".lb-table tbody tr").count() == 3  # it goes on in its own row


def test_durations(page):
    module = pages.script(controls.HERE / "speed.js").replace("export ", "")
    said = page.evaluate(f"() => {{ {module} return [3.2, 59.6, 125, 4200].map(duration); }}")
    assert said == ["3 s", "1 min 00 s", "2 min 05 s", "1 h 10 min"]


def test_the_table_is_downloaded_as_csv(page, trained):
    running = {**trained.table[0], "status": "running"}
    hear(page, live={**trained.runs[0], "key": "x", "row": running})
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    rows = csv.DictReader(download.value.path().read_text("utf-8").splitlines())
    for one, other in zip(rows, trained.table, strict=True):
        read = {name: type(other[name])(text) if text else None for name, text in one.items()}
        assert [*read.items()] == [*other.items()]


def test_plots_stand_side_by_side_where_there_is_room(page):
    for width, columns in ((1024, 3), (390, 1)):
        page.set_viewport_size({"width": width, "height": 800})
        lab.rest(page, 60)
        figures = page.locator(".lb-plots figure").all()
        assert len({figure.bounding_box()["x"] for figure in figures}) == columns


def test_a_saved_page_says_that_it_trains_none(opened, trained):
    page = opened(trained)
    assert "without a kernel" in page.locator("[aria-live]").text_content()
    for name in ("Start", "Reset", "Save"):
        assert page.get_by_text(name, exact=True).is_disabled()
    before = pictures(page)[0]
    row(page, 0).click()
    assert pictures(page)[0] != before
