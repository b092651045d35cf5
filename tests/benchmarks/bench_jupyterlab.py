"""The toy explorer in JupyterLab: its controls, a Python function as its loss, and re-runs.

usage: python tests/benchmarks/bench_jupyterlab.py [--moves 60]

The controls are timed as in bench_sliders.py. The first picture counts from the kernel's idle, and
may be there before it. A loss that is a Python function is drawn by the kernel: from a key on k to
the picture. The cell is run five times more: what each run leaves in the page's heap and in the
kernel, which keep a widget's state until the kernel ends (ipywidgets).
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

import psutil
from bench import goal, heap, option, p95
from bench_sliders import CONTROLS, GOAL, answers, lab

FIRST, OWN, HEAP, MEMORY, RERUNS = 300, 100, 1, 3, 5
SHOWN = "from lookbehind.explore.toy import ToyExplorer\nToyExplorer()"
FUNCTION = """import torch
from lookbehind.explore.toy import ToyExplorer
ToyExplorer(lambda w: torch.cosh(w[..., 0]) + w[..., 1]**4, start=(1, 1), window=(-2, 2, -2, 2))"""
AGAIN = """key => new Promise(done => {
    const draws = window.__redraws.length, began = performance.now();
    const look = () => window.__redraws.length > draws + 1 // at once, and with the kernel's path
        ? done(performance.now() - began) : setTimeout(look, 1);
    const cell = [...document.querySelectorAll('.lb-explorer')].at(-1);
    cell.querySelector('[aria-label^="k,"]').dispatchEvent(
        new KeyboardEvent('keydown', { key, bubbles: true }));
    look();
})"""
FIRST_PICTURE = """() => new Promise(done => {
    window.__redraws = [];
    const began = performance.now(), idle = () => document.querySelector(
        ".jp-Notebook-ExecutionIndicator[data-status='idle']");
    let ran = null;
    const look = () => {
        if (idle()) ran ??= performance.now();
        const first = window.__redraws[0];
        return first && ran ? done(first - ran) : setTimeout(look, 1);
    };
    setTimeout(look, 5);
})"""


def main() -> int:
    moves = option(__doc__, "moves", 60)
    with tempfile.TemporaryDirectory() as scratch, lab.jupyterlab(Path(scratch)) as address:
        for name, cells in {"toy": [SHOWN], "own": [FUNCTION]}.items():
            lab.write_notebook(Path(scratch, f"{name}.ipynb"), cells)
        with lab.chromium() as browser, lab.blank_page(browser) as page:
            lab.run_notebook(page, address, "toy.ipynb")
            times = {name: answers(browser, page, [*act, moves]) for name, act in CONTROLS.items()}
            left, memory, first = rerun(page)
            lab.run_notebook(page, address, "own.ipynb")
            page.eval_on_selector(".jp-WindowedPanel-outer", "panel => panel.scrollTo(0, 0)")
            page.wait_for_function("() => window.__redraws?.length")
            own = [page.evaluate(AGAIN, key) for key in ("ArrowLeft", "ArrowRight") * 5]
    for control, found in times.items():
        print(f"{control}: median {median(found):.1f} ms of {len(found)} moves")
    met = [goal(f"{name} p95", p95(found), "<=", GOAL, "ms") for name, found in times.items()]
    met.append(goal("first picture after the cell ran", median(first), "<=", FIRST, "ms"))
    met.append(goal("a Python function", median(own), "<=", OWN, "ms"))
    met.append(goal("heap, a re-run", left, "<=", HEAP, "MB"))
    met.append(goal("kernel, a re-run", memory, "<=", MEMORY, "MB"))
    return int(not all(met))


def rerun(page):
    """Megabytes a re-run leaves in the page and in the kernel; ms until each one's picture."""
    first, used = [], []
    (kernel,) = [p for p in psutil.Process().children(recursive=True) if is_kernel(p)]
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Escape")
    for _ in range(1 + RERUNS):
        page.keyboard.press("Control+Enter")
        first.append(page.evaluate(FIRST_PICTURE))
        page.wait_for_timeout(1500)
        used.append((heap(page), kernel.memory_info().rss))
    grown = [(now - then) / RERUNS / 1e6 for then, now in zip(used[0], used[-1], strict=True)]
    return *grown, first


def is_kernel(process) -> bool:
    return "ipykernel_launcher" in " ".join(process.cmdline())


if __name__ == "__main__":
    sys.exit(main())
