"""The training lab in a real JupyterLab and Chromium: how soon the first curve comes, how soon a
number answers while a network trains, from the key press to the changed line of text, and what
drawing costs the training.

usage: python tests/benchmarks/bench_lab.py [--model resnet8] [--presses 40]
"""

import statistics
import tempfile
from pathlib import Path

from bench import goal, lab, p95, run
from images import paint

LAB = """from lookbehind.explore.lab import TrainingLab
from lookbehind.train import Recipe
recipe = Recipe({settings}, epochs=10_000, gradients=None)
lab = TrainingLab(recipe)
lab"""
SHARE = "print('drawing', lab._work.seconds_drawing / lab._work.seconds)"
FIRST = """async () => {
    const start = performance.now(), canvas = () => document.querySelector('.lb-plots canvas');
    [...document.querySelectorAll('button')].find(one => one.textContent === 'Start').click();
    while (!canvas().checkVisibility() && performance.now() - start < 60000)
        await new Promise(done => setTimeout(done, 1));
    return (performance.now() - start) / 1000;
}"""
ANSWER = """async ([box, key, name]) => {
    const line = document.querySelector('.lb-message');
    box.focus();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const start = performance.now();
    box.dispatchEvent(
        new KeyboardEvent('keydown', {key, code: key, bubbles: true, cancelable: true}));
    const wanted = `${name} ${parseFloat(box.value)},`;
    while (performance.now() - start < 5000) {
        if (line.textContent.includes(wanted)) return performance.now() - start;
        await new Promise(done => setTimeout(done, 1));
    }
    return null;
}"""


def answers(page: lab.Page, presses: int) -> list[float | None]:
    """Milliseconds from a key to the line that names the new setting, for k, ρ and α in turn."""
    page.wait_for_function("() => /Training:/.test(document.body.innerText)", timeout=180_000)
    times = []
    for name in ("k", "ρ", "α"):
        box = page.query_selector(f"[role=spinbutton][aria-label^='{name},']")
        for press in range(presses):
            key = "ArrowRight" if press % 2 == 0 else "ArrowLeft"
            times.append(page.evaluate(ANSWER, [box, key, name]))
            page.wait_for_timeout(100 + 37 * (press % 5))  # not in step with the training
    return times


def drawing_share(page: lab.Page) -> float:
    """Stop the run, and ask the kernel."""
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_function("() => /Stopped after/.test(document.body.innerText)", timeout=60_000)
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(SHARE)
    page.keyboard.press("Shift+Enter")
    output = page.locator(".jp-OutputArea-output", has_text="drawing 0.").last
    return float(output.inner_text(timeout=30_000).split()[-1])


def measure(settings: str, presses: int) -> tuple[float, list[float | None], float]:
    """Seconds to the first curve, the answers, and the share of drawing."""
    with tempfile.TemporaryDirectory() as scratch:
        lab.write_notebook(Path(scratch, "lab.ipynb"), [LAB.format(settings=settings), "0"])
        with lab.jupyterlab(Path(scratch)) as address, lab.browser_page() as page:
            lab.run_notebook(page, address, "lab.ipynb")
            return page.evaluate(FIRST), answers(page, presses), drawing_share(page)


def main(model: str, presses: int) -> None:
    with tempfile.TemporaryDirectory() as images:
        paint(Path(images), per_class=256, size=(32, 32))  # its speed does not depend on them
        resnet = f"dataset={images!r}, model={model!r}, batch_size=128, lr=0.01, rho=0.05"
        _, times, resnet_share = measure(resnet, presses)
    first, _, digits_share = measure("label_noise=0.4", 3)
    assert None not in times, f"{times.count(None)} of {len(times)} moves got no answer"
    print(f"answers, median: {statistics.median(times):.0f} ms of {len(times)} moves")
    print(f"drawing: {resnet_share:.2%} of a {model}'s time, {digits_share:.2%} of an MLP's")
    goal("first curve on digits", first, "<=", 1.5, "s")
    goal(f"a number's answer while a {model} trains p95", p95(times), "<=", 200, "ms")
    share = 100 * max(resnet_share, digits_share)
    goal("drawing share of training time", share, "<=", 3, "%")


if __name__ == "__main__":
    run(main, __doc__, model="resnet8", presses=20)
