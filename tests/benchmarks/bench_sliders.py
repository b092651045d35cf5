"""Time from a key press on a slider to the explorer's redraw, in a real JupyterLab in Chromium.

usage: python tests/benchmarks/bench_sliders.py [NOTEBOOK] [--presses 40]
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from bench import goal, p95

sys.path.insert(0, str(Path(__file__).parents[1]))
import lab

EXPLORER = Path(__file__).parents[2] / "notebooks" / "02-k-steps-back.ipynb"
MEASURED = ("k", "ρ", "α")
GOAL = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="?", type=Path, default=EXPLORER)
    parser.add_argument("--presses", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(arguments.notebook.parent, Path(scratch, "notebooks")))
        with lab.jupyterlab(folder) as address, lab.browser_page() as page:
            lab.run_notebook(page, address, arguments.notebook.name)
            times = redraws(page, arguments.presses)
    return max([report(name, found) for name, found in times.items()])


def redraws(page: lab.Page, presses: int) -> dict[str, list[float | None]]:
    times = {name: [] for name in MEASURED}
    for slider in lab.controls(page, lab.SLIDERS):
        name = (lab.slider_label(slider).split() or [""])[0]
        if name in MEASURED and not times[name]:
            times[name] = lab.redraw_times(page, slider, presses)
    return times


def report(name: str, times: list[float | None]) -> int:
    """Print one slider's figures; 1 if it misses the goal or a redraw is missing, else 0."""
    if not times or None in times:
        print(f"slider {name}: {times.count(None)} of {len(times)} moves drew nothing short")
        return 1
    print(f"slider {name} median: {statistics.median(times):.1f} ms of {len(times)} moves")
    return int(not goal(f"slider {name} p95", p95(times), "<=", GOAL, "ms"))


if __name__ == "__main__":
    sys.exit(main())
