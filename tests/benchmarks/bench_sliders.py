"""How fast every control of the toy explorer answers, in its exported page in Chromium.

usage: python tests/benchmarks/bench_sliders.py [--moves 60]

A move is answered when the event's handler is done: what it drew appears with the next frame. Timed
is the main thread's own CPU, which other processes of a busy machine don't change; Chromium slows
that thread down itself for the phone (`Emulation.setCPUThrottlingRate`).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench import goal, p95

sys.path.insert(0, str(Path(__file__).parents[1]))
import lab

from lookbehind.explore.toy import ToyExplorer

GOAL, FIRST, COARSE, WHOLE, WEIGHT = 16, 1000, 50, 250, 150
SCREENS = {
    "desktop": ({"viewport": {"width": 1280, "height": 800}}, 1),
    "phone, 4x slower": (
        {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3, "has_touch": True},
        4,
    ),
}
# What `move(i)` does; a frame passes between two moves.
MOVES = """async ([kind, name, moves]) => {
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)));
    const all = [...document.querySelectorAll('.lb-explorer :is(input, button, canvas, div)')];
    const one = name => all.find(node => (node.getAttribute('aria-label') ?? '').startsWith(name)
        || node.tagName === 'BUTTON' && node.textContent.startsWith(name));
    const press = (node, key) => node.dispatchEvent(
        new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    const keys = i => (i / 3 | 0) % 2 ? 'ArrowLeft' : 'ArrowRight';
    const box = document.querySelector('.lb-map').getBoundingClientRect();
    const point = (type, u, v) => one(name).dispatchEvent(new PointerEvent(type, {
        pointerId: 1, button: 0, bubbles: true,
        clientX: box.left + u * box.width, clientY: box.top + v * box.height}));
    const menu = () => [...document.querySelectorAll('.lb-explorer select')]
        .find(menu => [...menu.options].some(option => option.value === 'ring'));
    const acts = {
        key: i => press(one(name), keys(i)),
        drag: i => point('pointermove', .5 + .4 * Math.cos(i / 5), .5 + .4 * Math.sin(i / 5)),
        press: () => one(name).click(),
        loss: i => {
            menu().selectedIndex = i % menu().length;
            menu().dispatchEvent(new Event('change'));
        },
    };
    if (kind === 'drag') {
        one(name).setPointerCapture = () => {};
        point('pointerdown', .5, .5);
    }
    for (let i = 0; i < moves; i++) {
        await frame();
        acts[kind](i);
    }
    if (kind === 'drag') point('pointerup', .5, .5);
    await frame();
}"""
CONTROLS = {
    "k": ("key", "k,"),
    "ρ": ("key", "ρ, reach"),
    "α": ("key", "α, share"),
    "learning rate": ("key", "learning rate"),
    "momentum": ("key", "momentum"),
    "steps": ("key", "steps"),
    "start, by key": ("key", "start;"),
    "start, under the finger": ("drag", "start;"),
    "timeline": ("key", "outer step"),
    "a method": ("press", "ASAM"),
    "loss": ("loss", ""),
}
EVENTS = {"key": "keydown", "drag": "pointermove", "press": "click", "loss": "change"}
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=60)
    moves = parser.parse_args().moves
    with tempfile.TemporaryDirectory() as scratch, lab.chromium() as browser:
        path = Path(scratch, "page.html")
        ToyExplorer().save_html(path)
        found = [measured(browser, path, name, moves) for name in SCREENS]
        size = path.stat().st_size / 1000
    met = [report(name, *figures) for name, figures in zip(SCREENS, found, strict=True)]
    met.append(goal("exported page", size, "<=", WEIGHT, "kB"))
    return int(not all(met))


def measured(browser, path, name, moves):
    """CPU milliseconds of every control's moves; until the first picture, and of the basins, the
    medians of five loads."""
    firsts, basins, rate = [], [], SCREENS[name][1]
    for _ in range(5):
        page = opened(browser, path.as_uri(), name)
        firsts.append(page.evaluate(FIRST_PICTURE))
        page.wait_for_timeout(1000 + 1000 * rate)
        basins.append(page.evaluate(BASINS))
        page.context.close()
    page = opened(browser, path.as_uri(), name)
    page.wait_for_timeout(1000 * rate)  # the other losses are made ready
    times = {}
    for control, (kind, label) in CONTROLS.items():
        page.wait_for_timeout(300)
        times[control] = answers(browser, page, [kind, label, moves])
    page.context.close()
    return times, median(firsts), {k: median(one[k] for one in basins) for k in basins[0]}


def opened(browser, address, name):
    """A page whose explorer has drawn, in a context of its own: nothing is in its caches."""
    screen, rate = SCREENS[name]
    page = browser.new_context(**screen).new_page()
    throttle = page.context.new_cdp_session(page)
    throttle.send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(address)
    page.wait_for_function("() => window.__redraws?.length")
    return page


def answers(browser, page, move):
    browser.start_tracing(page=page, categories=["devtools.timeline"])
    page.evaluate(MOVES, move)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    wanted = [e for e in events if e["name"] == "EventDispatch"]
    return [e["tdur"] / 1000 for e in wanted if e["args"]["data"]["type"] == EVENTS[move[0]]]


def report(screen, times, first, basins):
    for control, found in times.items():
        print(f"{screen}, {control}: median {median(found):.1f} ms of {len(found)} moves")
    met = [goal(f"{screen}, {c} p95", p95(found), "<=", GOAL, "ms") for c, found in times.items()]
    met.append(goal(f"{screen}, first picture", first, "<=", FIRST, "ms"))
    if screen == "desktop":
        met.append(goal("basins, first picture", basins["first"], "<=", COARSE, "ms"))
        met.append(goal("basins, whole", basins["whole"], "<=", WHOLE, "ms"))
    return all(met)


if __name__ == "__main__":
    sys.exit(main())
