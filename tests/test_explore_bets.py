"""Bets and advice: what they refuse, what settles them, and their pages without a kernel."""

import itertools
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from lookbehind.explore.maps import Advice
from lookbehind.explore.shared import Bet, Tally

HEAD = """<html lang=en><title>bets</title><meta charset=utf-8>
<meta name=color-scheme content="light dark"><meta name=viewport content="width=device-width">"""


def some_bets():
    choices = ["SAM", "a tie", "Lookbehind"]
    return [Bet(f"Which is flatter at k = {k}?", choices, right="a tie") for k in (2, 5)]


@pytest.mark.parametrize(
    "choices", [["SAM"], ["SAM", "SAM"], ["SGD", "ASAM"], ["SAM", "b", "c", "d", "e"]]
)
def test_choices_that_are_no_bet_are_refused(choices):
    with pytest.raises(ValueError, match=r"choices must be two to four .*'SAM'.*got \["):
        Bet("Which?", choices, right="SAM")


def test_the_figures_settle_it():
    bet = some_bets()[0]
    assert bet.settle("a tie") == "The numbers say: a tie."
    with pytest.raises(ValueError, match="the numbers say 'SAM', the bet's answer is 'a tie'"):
        bet.settle("SAM")


@pytest.mark.browser
def test_a_page_counts_its_bets_and_axe_finds_nothing(tab, tmp_path):
    bundles = [widget._repr_mimebundle_()[0] for widget in (*some_bets(), Tally())]
    assert bundles[0]["text/plain"].endswith("at k = 2? SAM / a tie / Lookbehind")
    living = "".join(data["text/html"] for data in bundles)
    (tmp_path / "bets.html").write_text(f"{HEAD}<main><h1>Bets</h1>{living}</main>", "utf-8")
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto((tmp_path / "bets.html").as_uri())
    counted = tab.get_by_role("status").last
    counted.get_by_text("No bet yet: the page has 2.").wait_for()
    for choices, said in (
        (["SAM"], "Right: 0 of 1 bet."),
        (["a tie", "SAM"], "Right: 1 of 2 bets."),
    ):
        for group, choice in zip(tab.get_by_role("group").all(), choices, strict=False):
            group.get_by_role("button", name=choice).click()
        counted.get_by_text(said).wait_for()
    assert "k = 5? ✗ SAM; it was: a tie" in tab.get_by_role("list").inner_text()
    pressed = tab.locator("[aria-pressed=true]").all_inner_texts()
    assert [re.sub(r"\W+", " ", text).strip() for text in pressed] == ["a tie", "SAM"]
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 390
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    assert not tab.problems


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
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    assert not tab.problems
