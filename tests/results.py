"""What the tests of the stored results share: the folder, and its scripts as modules."""

import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from lookbehind.optim import METHODS
from lookbehind.train.models import MODELS

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"


@pytest.fixture
def scripts(monkeypatch):
    """The folder of the scripts can be imported from; what they register goes with them."""
    monkeypatch.syspath_prepend(str(RESULTS))
    with patch.dict(METHODS), patch.dict(MODELS):
        yield
    for path in RESULTS.glob("*.py"):
        sys.modules.pop(path.stem, None)
