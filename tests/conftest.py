"""What all tests share: hypothesis without a clock, what a machine lacks, torch as it was."""

import os
import signal
from collections.abc import Iterator

import forks
import hypothesis
import lab
import peaks
import pytest
import torch

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
# On a busy machine two threads mostly wait for each other over problems as small as these.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
forks.kernels()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to `make test &`
    signal.signal(signal.SIGINT, signal.default_int_handler)

# These files take longest; first in line, they leave neither process of `make test` waiting.
LONGEST = (
    "test_browser.py", "test_explore_pages.py", "test_site.py", "06-loss-landscape.ipynb",
    "09-lifelong-learning.ipynb", "test_explore_toy_page.py", "test_explore_landscape_page.py",
    "test_explore_lab_page.py", "test_explore_maps.py", "test_train_ranks.py", "test_results.py",
    "test_command_line.py", "test_study_sweep_file.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    items[:] = peaks.with_peaks(items)
    for item in items:
        if hasattr(item, "output_timeout"):  # of nbval: seconds until a cell says something more
            item.output_timeout = 60


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.write_line("\n".join(peaks.table(terminalreporter.stats.get("passed", []))))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if item.get_closest_marker("browser") and lab.find_browser() is None:
        missing = "no Chromium found: install it, or name one in LOOKBEHIND_CHROMIUM"
        required = os.environ.get("LOOKBEHIND_REQUIRE_BROWSER") == "1"
        (pytest.fail if required else pytest.skip)(missing)


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """The settings cell of a notebook may choose double precision and one thread."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tab() -> Iterator[lab.Page]:
    """A page without a network, for explorers that need no kernel."""
    with lab.browser_page() as page:
        page.context.set_offline(True)
        yield page
