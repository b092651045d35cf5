"""Work in a thread beside the page."""

import threading
from typing import Any


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
