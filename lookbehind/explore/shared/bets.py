"""What asks the reader: bets and their count, a tree that gives advice, exercises."""

import dis
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import traitlets

from lookbehind.explore.shared.page import HERE, Living, script, style

IDLE = {"RESUME", "NOP", "RETURN_VALUE"}  # instructions of every function
Rule = Mapping[str, Any]


class Worded(Living):
    """A page that words stand for where none may run."""

    in_words = True
    _esm = script(HERE / "bets.js")
    _css = style(HERE / "bets.css")

    question = traitlets.Unicode().tag(sync=True)


class Bet(Worded):
    """A question with two to four choices to click, before the cell that answers it.

    `settle(found)` holds `right` to what a cell has found: it raises ValueError where that is
    another choice, so a notebook whose answer has changed does not run. `choice` is the reader's,
    "" before a click.

    Raises ValueError where the choices are not two to four different ones, `right` among them.
    """

    title = "A bet"

    choices = traitlets.List(traitlets.Unicode()).tag(sync=True)
    right = traitlets.Unicode().tag(sync=True)
    choice = traitlets.Unicode().tag(sync=True)

    def __init__(self, question: str, choices: Sequence[str], *, right: str) -> None:
        if not 2 <= len(set(choices)) == len(choices) <= 4 or right not in choices:
            raise ValueError(
                f"choices must be two to four and distinct, {right!r} among them, got {[*choices]}"
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
    text}, and holds where all of its conditions do; on each path one of those has a "use", what to
    choose. `chosen` is the reader's path, the first choices before a click.

    Raises ValueError for rules that ask for something else, or leave a path without its one "use".
    """

    title = "Which optimizer?"
    in_words = True
    _esm = script(HERE / "advice.js")
    _css = style(HERE / "advice.css")

    questions = traitlets.Dict().tag(sync=True)
    rules = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)

    def __init__(self, questions: Mapping[str, Sequence[str]], rules: Sequence[Rule]) -> None:
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


def held(rules: Sequence[Rule], chosen: Mapping[str, str]) -> list[Rule]:
    """The rules whose conditions all hold."""
    return [rule for rule in rules if rule["if"].items() <= chosen.items()]


def verdict(check: Callable[[Any], None], answer: object) -> str:
    """Whether `check(answer)` passes: "correct", or "not yet: <error>", which stops no notebook."""
    if is_empty(answer):
        return "not yet: the function above is still empty. Write your answer in place of ..."
    try:
        check(answer)
    except AssertionError as error:
        return f"not yet: {error or 'the check failed'}"
    except Exception as error:
        return f"not yet: {type(error).__name__}: {error}"
    return "correct"


def is_empty(answer: object) -> bool:
    """Whether it is a function of nothing but a docstring and `...`."""
    code = getattr(answer, "__code__", None)
    steps = dis.get_instructions(code) if code else ()
    return [step.argval for step in steps if step.opname not in IDLE] == [None]
