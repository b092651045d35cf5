"""Bets: a question before a result, and the count of those that were right."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import traitlets

from lookbehind.explore.shared.living import Living, style
from lookbehind.explore.shared.page import alive, script

HERE = Path(__file__).parent


class Worded(Living):
    """A page that words stand for where none may run."""

    _esm = script(HERE / "bets.js")
    _css = style(HERE / "bets.css")

    question = traitlets.Unicode().tag(sync=True)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options)
        words = f"<p>{escape(data['text/plain'])}</p>"
        return data | {"text/html": alive(self._esm, self._css, self._state(), words)}, metadata


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
