"""Time from a key press on k or ρ to the landscape explorer's redraw, in JupyterLab in Chromium.

Two networks side by side, in each of the three views; the planes are there.

usage: python tests/benchmarks/bench_landscape_explorer.py [--presses 42]
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
from bench import goal, p95

sys.path.insert(0, str(Path(__file__).parents[1]))
import lab

CELL = """from dataclasses import replace
import torch
from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.train import Recipe
torch.set_num_threads(1)
recipe = Recipe(train=300, validation=0, gradients=100)
data = recipe.load()
runs = {name: replace(recipe, method=name).run(dataset=data) for name in ("SGD", "Lookbehind-SAM")}
LandscapeExplorer(runs, data, images=300, second="Gaussian random", points=41)"""
VIEWS = ("1D profile", "2D contours", "3D surface")
GOAL = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=42)
    presses = parser.parse_args().presses  # of a multiple of 6 a slider ends where it began
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "name": "python3"}
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(notebook, Path(folder, "landscape.ipynb"))
        with lab.jupyterlab(Path(folder)) as address, lab.browser_page() as page:
            lab.run_notebook(page, address, "landscape.ipynb")
            done = "() => /Done, on/.test(document.body.innerText)"
            page.wait_for_function(done, timeout=120_000)
            return max(measure(page, view, presses) for view in VIEWS)


def measure(page: lab.Page, view: str, presses: int) -> int:
    """Print one view's figures; 1 if it misses the goal or a redraw is missing, else 0."""
    page.get_by_role("button", name=view, exact=True).click()
    page.wait_for_timeout(500)
    status = 0
    for slider in lab.controls(page, lab.SLIDERS):
        if (name := lab.slider_label(slider)) not in ("k", "ρ"):
            continue
        times = lab.redraw_times(page, slider, presses)
        if None in times:
            print(f"{view}, {name}: {times.count(None)} of {presses} moves drew nothing short")
            status = 1
            continue
        print(f"{view}, {name} median: {statistics.median(times):.1f} ms of {presses} moves")
        status |= not goal(f"{view}, {name} p95", p95(times), "<=", GOAL, "ms")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
