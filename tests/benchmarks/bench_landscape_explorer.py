"""The landscape explorer's exported page in Chromium: three networks, 41 × 41 points.

First picture, a move of k or ρ in each view, frames while a surface is turned, size, memory.

usage: python tests/benchmarks/bench_landscape_explorer.py [--moves 42]
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from bench import goal, heap, lab, p95, run
from bench_pages import FIRST_PICTURE, opened

from lookbehind.explore.landscape import LandscapeExplorer
from lookbehind.train import Recipe

VIEWS = ("1D profile", "2D contours", "3D surface")
# Milliseconds of the main thread from a key to the picture, which is drawn at once or next frame.
MOVE = """async ([name, key]) => {
    const box = document.querySelector(`[aria-label^="${name}"]`);
    box.focus();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const seen = window.__redraws.length, start = performance.now();
    box.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    return window.__redraws.length > seen ? performance.now() - start : null;
}"""
# Pictures a second while a hand turns the surfaces, an event a frame.
TURN = """async (frames) => {
    const canvas = document.querySelector('.lb-over');
    const at = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind,
        {pointerId: 1, clientX: x, clientY: 400, bubbles: true, pointerType: 'mouse'}));
    canvas.setPointerCapture = () => {};
    at('pointerdown', 300);
    const before = window.__redraws.length, start = performance.now();
    for (let i = 0; i < frames; i++) {
        await new Promise(done => requestAnimationFrame(done));
        at('pointermove', 300 + 3 * i);
    }
    const seconds = (performance.now() - start) / 1000;
    at('pointerup', 300);
    return (window.__redraws.length - before) / seconds;
}"""


def main(moves: int) -> None:
    torch.set_num_threads(1)
    explorer, first = computed()
    with tempfile.TemporaryDirectory() as folder, lab.chromium() as browser:
        path = Path(folder, "landscape.html")
        explorer.save_html(path)
        for _ in range(2):  # a browser that is awake
            page = opened(browser, path.as_uri(), "desktop")
        drawn = page.evaluate(FIRST_PICTURE) / 1e3
        goal(f"first picture, {first:.2f} s in the kernel", first + drawn, "<=", 0.5, "s")
        goal("the page", path.stat().st_size / 1e3, "<=", 1000, "kB")
        for view in VIEWS:
            goal(f"k, ρ in {view}, p95 of {moves}", moved(page, view, moves), "<=", 16, "ms")
        fastest = max(page.evaluate(TURN, 60) for _ in range(3))
        goal("3D, best of three rounds", fastest, ">=", 50, "frames/s")
        before = heap(page)
        moved(page, VIEWS[1], 200)
        goal("growth after 200 moves", (heap(page) - before) / 1e6, "<=", 1, "MB")


def computed() -> tuple[LandscapeExplorer, float]:
    """An explorer of three networks, and the seconds to its first picture of all."""
    recipe = Recipe(train=300, validation=0, gradients=100)
    data = recipe.load()
    every = ("SGD", "SAM", "Lookbehind-SAM")
    runs = {name: replace(recipe, method=name).run(dataset=data) for name in every}
    explorer, seen = LandscapeExplorer(runs, data, images=300, points=41), []
    explorer.observe(lambda change: seen.append((time.perf_counter(), change.new)), "scene")
    start = time.perf_counter()
    explorer.compute()
    explorer.wait()
    return explorer, next(t for t, scene in seen if len(scene["networks"]) == 3) - start


def moved(page: lab.Page, view: str, moves: int) -> float:
    """The p95 of moves of k and ρ in one view, in ms; every move drew."""
    page.get_by_role("button", name=view).click()
    page.wait_for_timeout(500)
    keys = [(name, key) for key in ("ArrowRight", "ArrowLeft") for name in ("k,", "ρ, reach")]
    times = [page.evaluate(MOVE, keys[i % 4]) for i in range(moves)]
    assert None not in times, f"{times.count(None)} of {moves} moves drew nothing at once"
    return p95(times)


if __name__ == "__main__":
    run(main, __doc__, moves=42)
