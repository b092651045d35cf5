"""What a notebook needs of a machine's memory: a test behind its last cell."""

import contextlib
import itertools
import threading
import time

import forks
import psutil
import pytest
from nbval.plugin import IPyNbFile

BINDER = 1.5  # GB for one notebook, of the 2 that Binder gives
SERVER = 0.15  # GB of JupyterLab's server beside the kernel

most: dict[int, float] = {}  # GB of each kernel, by its pid, with all processes that it started


def watch() -> None:
    while True:
        for pid in forks.Kernel.pids:
            with contextlib.suppress(psutil.Error):  # it, or one of its processes, has ended
                look(pid)
        time.sleep(0.5)


def look(pid: int) -> None:
    kernel = psutil.Process(pid)
    family = [kernel, *kernel.children(recursive=True)]
    if psutil.LINUX:  # of what it shares with the server that forked it, it has a part
        family.append(kernel.parent())
    found = [process.memory_full_info() for process in family]
    held = sum(getattr(one, "pss", one.rss) for one in found)  # what they share, each in part
    most[pid] = max(most.get(pid, 0.0), held / 1e9)


class Peak(pytest.Item):
    def runtest(self) -> None:
        pid = self.parent.kernel.km.provisioner.pid
        look(pid)
        peak = most[pid] + SERVER
        self.user_properties.append(("peak_GB", round(peak, 2)))
        assert peak <= BINDER, f"{self.path.name} needs {peak:.2f} GB"


def with_peaks(items: list[pytest.Item]) -> list[pytest.Item]:
    """All items, and behind those of each notebook the one that looks at its kernel's memory."""
    found = []
    for parent, some in itertools.groupby(items, key=lambda item: item.parent):
        found += some
        if isinstance(parent, IPyNbFile):
            found.append(Peak.from_parent(parent, name="memory"))
    if len(found) > len(items):
        threading.Thread(target=watch, daemon=True).start()
    return found


def table(reports: list[pytest.TestReport]) -> list[str]:
    """A line a notebook."""
    told = [(report.nodeid.split("::")[0], dict(report.user_properties)) for report in reports]
    return [f"{name}: {own['peak_GB']} GB of memory" for name, own in told if "peak_GB" in own]
