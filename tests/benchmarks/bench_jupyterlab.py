"""The explorers in JupyterLab: the toy explorer's controls, and the memory that each of them takes.

usage: python tests/benchmarks/bench_jupyterlab.py [--moves 60]

The controls are timed as in bench_pages.py. The first picture counts from the kernel's idle, and
may be there before it. A loss that is a Python function is drawn by the kernel: from a key on k to
the picture. Every explorer's first control is moved 200 times, and its cell is run five times more:
what that leaves in the page's heap, and what each run leaves there and in the kernel, which keep a
widget's state until the kernel ends (ipywidgets).
"""

import tempfile
from pathlib import Path
from statistics import median

import psutil
from bench import goal, heap, lab, run
from bench_pages import CONTROLS, MOVES, answers, report

FIRST, OWN, GROWN, HEAP, MEMORY, RERUNS = 300, 100, 0.5, 1, 3, 5
RESULTS = Path(__file__).parents[2] / "notebooks" / "results"
EXPLORERS = {
    "toy": "from lookbehind.explore.toy import ToyExplorer\nToyExplorer()",
    "lab": "from lookbehind.explore.lab import TrainingLab\nTrainingLab()",
    "landscape": """from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.train import Recipe
recipe = Recipe(train=200, validation=0)
data = recipe.load()
LandscapeExplorer({"a network": recipe.make_model(data)}, data, images=100, points=11)""",
    "heat-maps": """import numpy
from lookbehind.explore.maps import HeatMaps
HeatMaps({"accuracy": numpy.ones((2, 3, 4, 2))},
    {"k": [1, 2], "α": [0.2, 0.5, 0.8], "ρ": [1, 2, 3, 4]}, seeds=5)""",
    "intervals": """from lookbehind.explore.maps import Intervals
Intervals({"bits": {"SGD": [[0.1, 0.2]] * 3}}, {"bits": [2, 3]}, other="SGD")""",
    "atlas": f"""from lookbehind.explore.maps import TrainingAtlas
TrainingAtlas({str(RESULTS / "atlas.json")!r})""",
}
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
FIRST_CONTROL = {
    "toy": ("key", "k,"), "lab": ("menu", "model"), "landscape": ("menu", "direction a"),
    "heat-maps": ("menu", "map of"), "intervals": ("menu", "noise"), "atlas": ("key", "k,"),
}  # fmt: skip
FIRST_PICTURE = """() => new Promise(done => {
    window.__redraws = [];
    let ran = null;
    const look = () => {
        if (IDLE) ran ??= performance.now();
        const first = window.__redraws[0];
        return first && ran ? done(first - ran) : setTimeout(look, 1);
    };
    setTimeout(look, 5);
})""".replace("IDLE", lab.IDLE)


def main(moves):
    with tempfile.TemporaryDirectory() as scratch, lab.jupyterlab(Path(scratch)) as address:
        for name, source in {**EXPLORERS, "own": FUNCTION}.items():
            lab.write_notebook(Path(scratch, f"{name}.ipynb"), [source])
        with lab.chromium() as browser:
            controls(browser, address, moves)
            for name in EXPLORERS:
                memory(browser, address, name)


def controls(browser, address, moves):
    with lab.blank_page(browser) as page:
        lab.run_notebook(page, address, "toy.ipynb")
        times = {" ".join(act): answers(browser, page, [*act, moves]) for act in CONTROLS["toy"]}
        lab.run_notebook(page, address, "own.ipynb")
        page.eval_on_selector(".jp-WindowedPanel-outer", "panel => panel.scrollTo(0, 0)")
        page.wait_for_function("() => window.__redraws?.length")
        own = []
        for key in ("ArrowLeft", "ArrowRight") * 5:
            lab.rest(page, 300)  # what comes within one frame is one picture
            own.append(page.evaluate(AGAIN, key))
    for name, found in times.items():
        report(name, found)
    goal("a Python function", median(own), "<=", OWN, "ms")


def memory(browser, address, name):
    """Megabytes that 200 moves, and a re-run, leave; ms until the picture of a re-run."""
    with lab.blank_page(browser) as page:
        lab.run_notebook(page, address, f"{name}.ipynb")
        page.eval_on_selector(".jp-WindowedPanel-outer", "panel => panel.scrollTo(0, 0)")
        move = [*FIRST_CONTROL[name], 200]
        page.evaluate(MOVES, move)  # the first moves fill what is kept from move to move
        before = resting(page)
        page.evaluate(MOVES, move)
        moved = (resting(page) - before) / 1e6
        found, first = reruns(page)
    grown = [(now - then) / RERUNS / 1e6 for then, now in zip(found[0], found[-1], strict=True)]
    goal(f"{name}, first picture after the cell ran", median(first), "<=", FIRST, "ms")
    goal(f"{name}, heap after 200 moves", moved, "<=", GROWN, "MB")
    goal(f"{name}, heap, a re-run", grown[0], "<=", HEAP, "MB")
    goal(f"{name}, kernel, a re-run", grown[1], "<=", MEMORY, "MB")


def resting(page):
    page.wait_for_timeout(1500)
    return heap(page)


def reruns(page):
    """Bytes of the page's heap and of the kernel after each run; ms until each one's picture."""
    family, used, first = psutil.Process().children(recursive=True), [], []
    kernels = [p for p in family if "ipykernel_launcher" in " ".join(p.cmdline())]
    kernel = max(kernels, key=psutil.Process.create_time)
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Escape")
    for _ in range(1 + RERUNS):
        page.keyboard.press("Control+Enter")
        first.append(page.evaluate(FIRST_PICTURE))
        used.append((resting(page), kernel.memory_info().rss))
    return used, first


if __name__ == "__main__":
    run(main, __doc__, moves=60)
