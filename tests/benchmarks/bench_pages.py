"""How fast every control of the toy explorer, the maps and the atlas answers, in Chromium.

usage: make site && python tests/benchmarks/bench_pages.py [--moves 60]

The pages are exported ones. A move is answered when the event's handler is done: what it drew
appears with the next frame. Timed is the main thread's own CPU, which other processes of a busy
machine don't change; Chromium slows that thread down itself for the phone
(`Emulation.setCPUThrottlingRate`). Of the site's index: how soon its explorer is drawn on a phone.
"""

import json
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from bench import goal, lab, p95, run

from lookbehind.explore.maps import HeatMaps, Intervals, TrainingAtlas
from lookbehind.explore.toy import ToyExplorer
from lookbehind.optim import METHODS

GOAL, COARSE, WHOLE, WEIGHT, INDEX, LOADS = 16, 50, 250, 150, 2000, 5
FIRST = {"toy": 1000, "heat maps": 300, "intervals": 300, "atlas": 300}  # on a desktop
ROOT = Path(__file__).parents[2]
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "has_touch": True}
SCREENS = {"desktop": (DESKTOP, 1), "phone, 4x slower": (PHONE, 4)}
# A frame passes between two moves.
MOVES = """async ([kind, name, moves]) => {
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)));
    const all = '.lb-explorer :is(input, select, button, canvas, div)';
    const one = [...document.querySelectorAll(all)].find(node => node.tagName === name
        || (node.getAttribute('aria-label') ?? '').startsWith(name)
        || node.tagName === 'BUTTON' && node.textContent.startsWith(name));
    const box = (kind === 'drag' ? document.querySelector('.lb-map') : one).getBoundingClientRect();
    const point = (type, u, v) => one.dispatchEvent(new PointerEvent(type, {
        pointerId: 1, button: 0, bubbles: true,
        clientX: box.left + u * box.width, clientY: box.top + v * box.height}));
    const acts = {
        key: i => one.dispatchEvent(new KeyboardEvent('keydown',
            {key: (i / 3 | 0) % 2 ? 'ArrowLeft' : 'ArrowRight', bubbles: true, cancelable: true})),
        drag: i => point('pointermove', .5 + .4 * Math.cos(i / 5), .5 + .4 * Math.sin(i / 5)),
        hover: i => point('pointermove', .5 + .4 * Math.cos(i / 5), .3 + .2 * Math.sin(i / 5)),
        press: () => one.click(),
        menu: i => {
            one.selectedIndex = i % one.length;
            one.dispatchEvent(new Event('change'));
        },
    };
    if (kind === 'drag') {
        one.setPointerCapture = () => {};
        point('pointerdown', .5, .5);
    }
    for (let i = 0; i < moves; i++) {
        await frame();
        acts[kind](i);
    }
    if (kind === 'drag') point('pointerup', .5, .5);
    await frame();
}"""
EVENTS = {"key": "keydown", "drag": "pointermove", "hover": "pointermove", "press": "click",
          "menu": "change"}  # fmt: skip
CONTROLS = {
    "toy": [
        ("key", "k,"), ("key", "ρ, reach"), ("key", "α, share"), ("key", "learning rate"),
        ("key", "momentum"), ("key", "steps"), ("key", "start;"), ("drag", "start;"),
        ("key", "outer step"), ("press", "ASAM"), ("menu", "loss"),
    ],
    "heat maps": [("menu", "map of"), ("menu", "×"), ("key", "INPUT"), ("hover", "a cell")],
    "intervals": [("menu", "noise"), ("key", "level"), ("menu", "compared"), ("hover", "a row")],
    "atlas": [
        ("key", "k,"), ("key", "ρ,"), ("key", "α,"), ("menu", "learning"), ("menu", "training"),
        ("hover", "epoch"),
    ],
}  # fmt: skip
BASINS = """() => new Promise(done => {
    const found = {}, began = performance.now(), legend = '.lb-legend li';
    const look = () => {
        if (document.querySelector(legend)) found.first ??= performance.now() - began;
        if (/from 7\\d{3} starts/.test(document.querySelector('figcaption').textContent))
            return done({...found, whole: performance.now() - began});
        setTimeout(look, 1);
    };
    [...document.querySelectorAll('button')].find(b => b.textContent.startsWith('Where')).click();
    look();
})"""
FIRST_PICTURE = "() => window.__redraws[0]"


def explorers():
    """The maps as large as in notebooks 08 and 10."""
    rng = np.random.default_rng(0)
    axes = {"k": range(4), "α": range(5), "ρ": range(5)}
    values = rng.uniform(10, 90, (2, 4, 5, 5, 2))
    levels = {"relative": [0, 0.3, 0.5, 0.7, 1], "bits": [2, 3, 4, 5, 6, 7, 8]}
    names = [name + more for more in ("", ", tuned") for name in METHODS]
    tables = {k: {n: rng.uniform(size=(3, len(v))) for n in names} for k, v in levels.items()}
    yield "toy", ToyExplorer()
    yield "heat maps", HeatMaps({"accuracy (%)": values[0], "rise": values[1]}, axes, seeds=5)
    yield "intervals", Intervals(tables, levels, other="SAM")
    yield "atlas", TrainingAtlas(ROOT / "notebooks" / "results" / "atlas.json")


def main(moves):
    if not (ROOT / "site" / "index.html").is_file():
        raise SystemExit(f"{ROOT / 'site'} must hold the site: make site")
    with tempfile.TemporaryDirectory() as scratch, lab.chromium() as browser:
        for name, explorer in explorers():
            path = Path(scratch, f"{name}.html")
            explorer.save_html(path)
            for screen in SCREENS:
                measure(browser, path, screen, moves)
        size = Path(scratch, "toy.html").stat().st_size / 1000
        with lab.served(ROOT / "site") as address:
            pages = loads(browser, f"{address}/index.html", "phone, 4x slower")
            firsts = [page.evaluate(FIRST_PICTURE) for page in pages]
    goal("the toy explorer's page", size, "<=", WEIGHT, "kB")
    goal("the index on a phone", median(firsts), "<=", INDEX, "ms")


def measure(browser, path, screen, moves):
    """A page on a screen: first picture, every control, the basins."""
    name, rate = path.stem, SCREENS[screen][1]
    firsts, basins, called = [], [], f"{name}, {screen}"
    for page in loads(browser, path.as_uri(), screen):
        firsts.append(page.evaluate(FIRST_PICTURE))
        if name == "toy":
            page.wait_for_timeout(1000 + 1000 * rate)
            basins.append(page.evaluate(BASINS))
    slower = 1 if name == "toy" else rate
    goal(f"{called}, first picture", median(firsts), "<=", FIRST[name] * slower, "ms")
    page = opened(browser, path.as_uri(), screen)
    page.wait_for_timeout(1000 * rate)  # the other losses are made ready
    for act in CONTROLS[name]:
        page.wait_for_timeout(300)
        report(f"{called}, {' '.join(act)}", answers(browser, page, [*act, moves]))
    page.context.close()
    if basins and screen == "desktop":
        for part, most in {"first": COARSE, "whole": WHOLE}.items():
            found = median(one[part] for one in basins)
            goal(f"basins, {part} picture", found, "<=", most, "ms")


def loads(browser, address, screen):
    for _ in range(LOADS):
        page = opened(browser, address, screen)
        yield page
        page.context.close()


def opened(browser, address, screen):
    """A page whose explorer has drawn, in a context of its own: nothing is in its caches."""
    options, rate = SCREENS[screen]
    page = browser.new_context(**options).new_page()
    throttle = page.context.new_cdp_session(page)
    throttle.send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(address)
    page.wait_for_function("() => window.__redraws?.length")
    return page


def answers(browser, page, move):
    """CPU milliseconds of each of a control's moves."""
    browser.start_tracing(page=page, categories=["devtools.timeline"])
    page.evaluate(MOVES, move)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    wanted = [e for e in events if e["name"] == "EventDispatch"]
    return [e["tdur"] / 1000 for e in wanted if e["args"]["data"]["type"] == EVENTS[move[0]]]


def report(called, times):
    print(f"{called}: median {median(times):.1f} ms of {len(times)} moves")
    goal(f"{called} p95", p95(times), "<=", GOAL, "ms")


if __name__ == "__main__":
    run(main, __doc__, moves=60)
