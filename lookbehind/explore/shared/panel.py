"""What explorers made of widgets share: a panel, and work in a thread beside the page."""

import threading
from collections.abc import Iterator
from html import escape
from itertools import count
from typing import Any

import ipywidgets as widgets

RED = "#E0463A"  # readable on white and on JupyterLab's dark background


class Panel(widgets.VBox):
    """Widgets below each other, a line of status, and a button for each of some methods."""

    def __init__(self, *buttons: str) -> None:
        super().__init__()
        self._work: Any = None  # the `Work` under way, or the last one
        self._status = widgets.HTML()
        self.progress = widgets.FloatProgress(max=1, layout={"width": "200px"})
        for name in buttons:
            button = widgets.Button(description=name.capitalize(), layout={"width": "90px"})
            button.on_click(lambda _, name=name: getattr(self, name)())
            setattr(self, f"{name}_button", button)

    def __repr__(self) -> str:
        return f"{type(self).__name__}, interactive once its cell runs in JupyterLab or on Binder"

    @property
    def message(self) -> str:
        return self._status.value

    def wait(self) -> None:
        """Return when nothing is under way."""
        if self._work is not None:
            self._work.thread.join()

    def _say(self, text: str, color: str = "inherit") -> None:
        self._status.value = f'<span style="color: {color}">{escape(text)}</span>'


class Stopped(Exception):
    """Raised within a work that was asked to stop."""


class Work:
    """What `thread.start()` begins; `error` says in words why it ended early.

    `audience` is told from the thread: `ended(work)` is called once, whatever happens.
    """

    def __init__(self, audience: Any) -> None:
        self.error = ""
        self._audience = audience
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End after the step under way."""
        self._stop.set()

    def _run(self) -> None:
        try:
            self._compute()
        except Stopped:
            pass
        except Exception as error:  # whatever a network or a dataset of the user's own may do
            self.error = f"{type(error).__name__}: {error}"
        self._audience.ended(self)

    def _compute(self) -> None:
        raise NotImplementedError


def row(*parts: Any) -> Any:
    """Beside each other, and below where there is no room."""
    return widgets.HBox(parts, layout={"flex_flow": "row wrap"})


def numbered(name: str, between: str = "-") -> Iterator[str]:
    """`name`, `name`-2, `name`-3, …: the first that isn't taken yet is chosen."""
    return (name if n == 1 else f"{name}{between}{n}" for n in count(1))
