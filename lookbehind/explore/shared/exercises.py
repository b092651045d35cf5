"""The verdict on an exercise of a notebook."""

from collections.abc import Callable
from typing import Any


def verdict(check: Callable[[Any], None], answer: object) -> str:
    """Say whether `check(answer)` passes: "correct", or "not yet: <reason>".

    The reason is the failed assertion, or the error that the answer raised: an exercise that is not
    solved yet never stops a notebook.
    """
    try:
        check(answer)
    except AssertionError as error:
        return f"not yet: {error or 'the check failed'}"
    except Exception as error:
        return f"not yet: {type(error).__name__}: {error}"
    return "correct"
