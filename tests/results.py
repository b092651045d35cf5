"""What the tests of the stored results share: the folder, and its scripts as modules."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the scripts can be imported from."""
    monkeypatch.syspath_prepend(str(RESULTS))
    yield
    for path in RESULTS.glob("*.py"):
        sys.modules.pop(path.stem, None)
