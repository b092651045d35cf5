"""How fast every control of the maps and the atlas answers, in their exported pages in Chromium.

usage: python tests/benchmarks/bench_maps.py [--moves 60]

Timed as in bench_sliders.py: the main thread's CPU from an event to the end of its drawing.
"""

import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from bench import goal, option, p95
from bench_sliders import EVENTS, GOAL, SCREENS

sys.path.insert(0, str(Path(__file__).parents[1]))
import lab

from lookbehind.explore.maps import HeatMaps, Intervals, TrainingAtlas
from lookbehind.optim import METHODS

FIRST = 300
ATLAS = Path(__file__).parents[2] / "notebooks" / "results" / "atlas.json"
# A frame passes between two moves.
MOVES = """async ([kind, name, moves]) => {
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)));
    const one = [...document.querySelectorAll('.lb-explorer :is(input, select, canvas)')]
        .find(node => node.tagName === name
            || (node.getAttribute('aria-label') ?? '').startsWith(name));
    const { left, top, width, height } = one.getBoundingClientRect();
    const acts = {
        key: i => new KeyboardEvent('keydown',
            {key: (i / 3 | 0) % 2 ? 'ArrowLeft' : 'ArrowRight', bubbles: true, cancelable: true}),
        drag: i => new PointerEvent('pointermove', {bubbles: true,
            clientX: left + (.5 + .4 * Math.cos(i / 5)) * width,
            clientY: top + (.3 + .2 * Math.sin(i / 5)) * height}),
        loss: i => {
            one.selectedIndex = i % one.length;
            return new Event('change');
        },
    };
    for (let i = 0; i < moves; i++) {
        await frame();
        one.dispatchEvent(acts[kind](i));
    }
    await frame();
}"""
CONTROLS = {
    "heat maps": [("loss", "map of"), ("loss", "×"), ("key", "INPUT"), ("drag", "a cell")],
    "intervals": [("loss", "noise"), ("key", "level"), ("loss", "compared"), ("drag", "a row")],
    "atlas": [
        ("key", "k,"), ("key", "ρ,"), ("key", "α,"), ("loss", "learning"), ("loss", "training"),
        ("drag", "epoch"),
    ],
}  # fmt: skip


def pages():
    """As large as in notebooks 08 and 10."""
    rng = np.random.default_rng(0)
    axes = {"k": range(4), "α": range(5), "ρ": range(5)}
    values = rng.uniform(10, 90, (2, 4, 5, 5, 2))
    levels = {"relative": [0, 0.3, 0.5, 0.7, 1], "bits": [2, 3, 4, 5, 6, 7, 8]}
    names = [name + more for more in ("", ", tuned") for name in METHODS]
    tables = {k: {n: rng.uniform(size=(3, len(v))) for n in names} for k, v in levels.items()}
    yield "heat maps", HeatMaps({"accuracy (%)": values[0], "rise": values[1]}, axes, seeds=5)
    yield "intervals", Intervals(tables, levels, other="SAM")
    yield "atlas", TrainingAtlas(ATLAS)


def main() -> int:
    moves, met = option(__doc__, "moves", 60), []
    with tempfile.TemporaryDirectory() as scratch, lab.chromium() as browser:
        for name, explorer in pages():
            path = Path(scratch, "page.html")
            explorer.save_html(path)
            for screen in SCREENS:
                met += measured(browser, path, name, screen, moves)
    return int(not all(met))


def measured(browser, path, name, screen, moves):
    """Whether the first picture and every control of a page meet their goals on a screen."""
    options, rate = SCREENS[screen]
    page = browser.new_context(**options).new_page()
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(path.as_uri())
    page.wait_for_function("() => window.__redraws?.length")
    first, called = page.evaluate("() => window.__redraws[0]"), f"{name}, {screen}"
    met = [goal(f"{called}, first picture", first, "<=", FIRST * rate, "ms")]
    for kind, label in CONTROLS[name]:
        times = answers(browser, page, [kind, label, moves], EVENTS[kind])
        print(f"{called}, {label}: median {median(times):.1f} ms of {len(times)} moves")
        met.append(goal(f"{called}, {label} p95", p95(times), "<=", GOAL, "ms"))
    page.context.close()
    return met


def answers(browser, page, move, event):
    browser.start_tracing(page=page, categories=["devtools.timeline"])
    page.evaluate(MOVES, move)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    wanted = [e for e in events if e["name"] == "EventDispatch"]
    return [e["tdur"] / 1000 for e in wanted if e["args"]["data"]["type"] == event]


if __name__ == "__main__":
    sys.exit(main())
