"""Work in a thread beside the page."""

import threading
from typing import Any


class Stopped(Exception):
    """Raised within a work that was asked to stop."""


class Work:
    """What `thread.start()` begins; `error` says in words why it ended early. It calls
    `audience.ended(work)` from the thread, once, whatever happens."""

    def __init__(self, audience: Any) -> None:
        self.error, self.stopped = "", False
        self._audience = audience
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        """End after the step under way."""
        self.stopped = True

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
