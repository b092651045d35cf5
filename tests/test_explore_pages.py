"""What all explorers have in common: what a notebook saves, how pages fit and look; bets."""

import base64
import itertools
import re

import lab
import pytest
import test_explore_maps as maps
from labs import SHORT, finish
from landscapes import around, finished

from lookbehind.explore.lab import TrainingLab
from lookbehind.explore.maps import Advice
from lookbehind.explore.shared import Bet, Tally
from lookbehind.explore.toy import ToyExplorer

CANVAS = ".lb-explorer canvas"
SMALL = """() => [...document.querySelectorAll('button, select, input, summary')]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 24)
    .map(one => one.textContent || one.ariaLabel)"""
LIVING = {
    "toy": lambda: ToyExplorer("ring", methods=["SGD", "SAM", "Lookbehind-SAM"], k=4),
    "landscape": lambda: finished(around("ab")),
    **maps.PAGES,
}
PRESSED = {"toy": "Where would each start end?", "landscape": "3D surface"}


@pytest.fixture(scope="module")
def bundles():
    return {name: make()._repr_mimebundle_() for name, make in LIVING.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The lab's page, which a notebook doesn't save."""
    folder = tmp_path_factory.mktemp("lab")
    return lab.saved(finish(TrainingLab(SHORT, folder=folder)), folder)


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
    kept = name in LIVING and bundles[name][0]["text/html"]
    lab.show(tab, lab.as_document(kept, tmp_path / "page.html") if kept else trained)
    if name in PRESSED:
        lab.press(tab, PRESSED[name])
    for summary in tab.locator("summary").all():
        summary.click()
    assert tab.locator("img").count() == 0
    lab.rest(tab, 330)
    light = tab.evaluate(lab.PIXELS, CANVAS)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(f"light => ({lab.PIXELS})('{CANVAS}') !== light", arg=light)
    # A projector, a desktop at 200 % zoom, and a phone.
    for width, height, scheme in ((1024, 768, "dark"), (640, 400, "dark"), (390, 844, "light")):
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_function(lab.FITTING)
        lab.rest(tab, 60)
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
        assert tab.evaluate(SMALL) == []
        if width != 640:  # between the two nothing has another colour, name or size
            lab.check_with_axe(tab, options=lab.WCAG)


CHOICES = ["SAM", "a tie", "Lookbehind"]


@pytest.mark.parametrize(
    "choices", [["SAM"], ["SAM", "SAM"], ["SGD", "ASAM"], ["SAM", "b", "c", "d", "e"]]
)
def test_choices_that_are_no_bet_are_refused(choices):
    with pytest.raises(ValueError, match=r"choices must be two to four .*'SAM'.*got \["):
        Bet("Which?", choices, right="SAM")


def test_the_figures_settle_it():
    bet = Bet("Which?", CHOICES, right="a tie")
    assert bet.settle("a tie") == "The numbers say: a tie."
    with pytest.raises(ValueError, match="the numbers say 'SAM', the bet's answer is 'a tie'"):
        bet.settle("SAM")


@pytest.mark.browser
def test_a_page_counts_its_bets_and_axe_finds_nothing(tab, tmp_path):
    bets = [Bet(f"Which is flatter at k = {k}?", CHOICES, right="a tie") for k in (2, 5)]
    bundles = [widget._repr_mimebundle_()[0] for widget in (*bets, Tally())]
    assert bundles[0]["text/plain"].endswith("at k = 2? SAM / a tie / Lookbehind")
    living = "".join(data["text/html"] for data in bundles)
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto(lab.as_document(living, tmp_path / "bets.html"))
    counted = tab.get_by_role("status").last
    counted.get_by_text("No bet yet: the page has 2.").wait_for()
    two_clicks = (["SAM"], "Right: 0 of 1 bet."), (["a tie", "SAM"], "Right: 1 of 2 bets.")
    for choices, said in two_clicks:
        for group, choice in zip(tab.get_by_role("group").all(), choices, strict=False):
            group.get_by_role("button", name=choice).click()
        counted.get_by_text(said).wait_for()
    assert "k = 5? ✗ SAM; it was: a tie" in tab.get_by_role("list").inner_text()
    pressed = tab.locator("[aria-pressed=true]").all_inner_texts()
    assert [re.sub(r"\W+", " ", text).strip() for text in pressed] == ["a tie", "SAM"]
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 390
    lab.check_with_axe(tab)


QUESTIONS = {"labels": ["clean", "wrong"], "weights": ["quiet", "noisy"], "dropout": ["no", "yes"]}
RULES = [
    {"if": {"dropout": "yes"}, "say": "Reuse no gradients."},
    {"if": {"labels": "clean"}, "use": "SGD", "say": "It is cheap."},
    {"if": {"labels": "wrong", "weights": "quiet"}, "use": "SAM", "say": "It is level."},
    {"if": {"labels": "wrong", "weights": "noisy"}, "use": "Lookbehind-SAM", "say": "It is ahead."},
]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (RULES[:3], r"one thing to use for \{'labels': 'wrong', 'weights': 'noisy'.*got \[\]"),
        ([*RULES, {**RULES[1], "use": "ASAM"}], r"one thing to use .*got \['SGD', 'ASAM'\]"),
        ([*RULES, {"if": {"labels": "few"}, "say": ""}], r"a choice of questions, got .*'few'"),
    ],
)
def test_rules_that_leave_a_path_open_are_refused(rules, said):
    with pytest.raises(ValueError, match=said):
        Advice(QUESTIONS, rules)


@pytest.mark.browser
def test_a_page_asks_what_still_matters_and_advises_as_the_rules_do(tab, tmp_path):
    advice = Advice(QUESTIONS, RULES)
    assert "SGD. It is cheap." in advice._repr_mimebundle_()[0]["text/plain"]
    advice.save_html(tmp_path / "advice.html")
    tab.goto((tmp_path / "advice.html").as_uri())
    card = tab.get_by_role("status")
    for path in itertools.product(*QUESTIONS.values()):
        advice.chosen = dict(zip(QUESTIONS, path, strict=True))
        for question, choice in advice.chosen.items():
            group = tab.get_by_role("group", name=question)
            if group.count():
                group.get_by_role("button", name=choice).click()
        assert tab.get_by_role("group").count() == (2 if path[0] == "clean" else 3)
        lines = [line.strip() for line in card.inner_text().splitlines() if line.strip()]
        assert [f"{lines[0]}. {lines[1]}", *lines[2:]] == advice.advice()
    lab.check_with_axe(tab)
