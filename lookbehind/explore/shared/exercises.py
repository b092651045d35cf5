"""The verdict on an exercise of a notebook."""

import dis
from collections.abc import Callable
from typing import Any

EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}  # of "return None"


def verdict(check: Callable[[Any], None], answer: object) -> str:
    """Say whether `check(answer)` passes: "correct", or "not yet: <reason>".

    The reason is the failed assertion, or the error that the answer raised: an exercise that is not
    solved yet never stops a notebook, and an empty function is told so.
    """
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
    steps = [*dis.get_instructions(code)] if code else []
    given = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return given == [None] and {step.opname for step in steps} <= EMPTY
