"""A decision tree that asks one question after the other, and says what is advised."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import traitlets

from lookbehind.explore.shared.bets import Worded
from lookbehind.explore.shared.living import style
from lookbehind.explore.shared.page import script

HERE = Path(__file__).parent


class Advice(Worded):
    """Questions with choices to click, and the advice at the end of the path.

    `questions` gives the choices of each question. A rule is {"if": {question: choice, …}, "say":
    text}, and holds where all of its conditions do; one with "use", what to choose, ends a path.
    `chosen` is the reader's path, the first choices before a click.

    Raises ValueError where a rule asks what no question offers, or where not exactly one rule with
    "use" holds on some path.
    """

    _esm = script(HERE / "advice.js")
    _css = style(HERE / "advice.css")
    title = "Which optimizer?"

    questions = traitlets.Dict().tag(sync=True)
    rules = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(
        self, questions: Mapping[str, Sequence[str]], rules: Sequence[Mapping[str, Any]]
    ) -> None:
        for rule in rules:
            for question, choice in rule["if"].items():
                if choice not in questions.get(question, ()):
                    raise ValueError(f"rules must ask for a choice of questions, got {rule['if']}")
        for path in product(*questions.values()):
            chosen = dict(zip(questions, path, strict=True))
            found = [rule["use"] for rule in rules if "use" in rule and holds(rule, chosen)]
            if len(found) != 1:
                raise ValueError(f"rules must name one thing to use for {chosen}, got {found}")
        first = {question: choices[0] for question, choices in questions.items()}
        super().__init__(questions=dict(questions), rules=list(rules), chosen=first)

    def advice(self) -> list[str]:
        """What is said for `chosen`, what to use first."""
        held = [rule for rule in self.rules if holds(rule, self.chosen)]
        held.sort(key=lambda rule: "use" not in rule)
        return [f"{rule['use']}. {rule['say']}" if "use" in rule else rule["say"] for rule in held]

    def _picture(self) -> tuple[str, str]:
        asked = "; ".join(f"{q}: {' / '.join(c)}" for q, c in self.questions.items())
        return "", f"{self.title} {asked}. For the first choices: {' '.join(self.advice())}"


def holds(rule: Mapping[str, Any], chosen: Mapping[str, str]) -> bool:
    return all(chosen[question] == choice for question, choice in rule["if"].items())
