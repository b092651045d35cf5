"""Pages of questions: bets, the count of those that were right, and a tree that gives advice."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import traitlets

from lookbehind.explore.shared.page import HERE, Living, script, style


class Worded(Living):
    """A page that words stand for where none may run."""

    in_words = True
    _esm = script(HERE / "bets.js")
    _css = style(HERE / "bets.css")

    question = traitlets.Unicode().tag(sync=True)


class Bet(Worded):
    """A question with two to four choices to click, before the cell that answers it.

    `right` is the choice that the numbers will bear out. `settle(found)` holds it to them: it
    returns a sentence where what a cell `found` is that choice, and raises ValueError elsewhere, so
    a notebook whose answer has changed does not run. `choice` is the reader's, "" before a click.

    Raises ValueError where the choices are not two to four different ones, `right` among them.
    """

    title = "A bet"

    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    right = traitlets.Unicode().tag(sync=True)
    choice = traitlets.Unicode().tag(sync=True)

    def __init__(self, question: str, choices: Sequence[str], *, right: str) -> None:
        if not 2 <= len(set(choices)) == len(choices) <= 4 or right not in choices:
            raise ValueError(
                f"choices must be two to four different texts, the right one ({right!r}) among "
                f"them, got {[*choices]}"
            )
        super().__init__(question=question, choices=[*choices], right=right)

    def settle(self, found: str) -> str:
        if found != self.right:
            raise ValueError(f"the numbers say {found!r}, the bet's answer is {self.right!r}")
        return f"The numbers say: {found}."

    def _picture(self) -> tuple[str, str]:
        return "", f"Your bet? {self.question} {' / '.join(self.choices)}"


class Tally(Worded):
    """How many of the bets on the page were right: at the end of a notebook."""

    title = "Your bets"

    def _picture(self) -> tuple[str, str]:
        return "", "How many of your bets were right: counted where the page is alive."


class Advice(Living):
    """Questions with choices to click, and the advice at the end of the path.

    `questions` gives the choices of each question. A rule is {"if": {question: choice, …}, "say":
    text}, and holds where all of its conditions do; one with "use", what to choose, ends a path.
    `chosen` is the reader's path, the first choices before a click.

    Raises ValueError where a rule asks what no question offers, or where not exactly one rule with
    "use" holds on some path.
    """

    title = "Which optimizer?"
    in_words = True
    _esm = script(HERE / "advice.js")
    _css = style(HERE / "advice.css")

    questions = traitlets.Dict().tag(sync=True)
    rules = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(
        self, questions: Mapping[str, Sequence[str]], rules: Sequence[Mapping[str, Any]]
    ) -> None:
        for rule in rules:
            if any(choice not in questions.get(asked, ()) for asked, choice in rule["if"].items()):
                raise ValueError(f"rules must ask for a choice of questions, got {rule['if']}")
        for path in product(*questions.values()):
            chosen = dict(zip(questions, path, strict=True))
            found = [rule["use"] for rule in held(rules, chosen) if "use" in rule]
            if len(found) != 1:
                raise ValueError(f"rules must name one thing to use for {chosen}, got {found}")
        first = {question: choices[0] for question, choices in questions.items()}
        super().__init__(questions=dict(questions), rules=list(rules), chosen=first)

    def advice(self) -> list[str]:
        """What is said for `chosen`, what to use first."""
        told = sorted(held(self.rules, self.chosen), key=lambda rule: "use" not in rule)
        return [f"{rule['use']}. {rule['say']}" if "use" in rule else rule["say"] for rule in told]

    def _picture(self) -> tuple[str, str]:
        asked = "; ".join(f"{q}: {' / '.join(c)}" for q, c in self.questions.items())
        return "", f"{self.title} {asked}. For the first choices: {' '.join(self.advice())}"


def held(rules: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The rules whose conditions all hold."""
    return [rule for rule in rules if rule["if"].items() <= chosen.items()]
