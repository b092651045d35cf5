"""A real JupyterLab on loopback, driven in Chromium, for the browser tests and bench_pages."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import forks
import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, sync_playwright

MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", MAC)
BROWSER_ARGS = ["--disable-gpu", "--disable-quic"]
QUIET_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
ERRORS = ".jp-OutputArea-output:is([data-mime-type$='.stderr'], [data-mime-type$='.error'])"
KERNEL_TROUBLE = re.compile(r'"msg_type": ?"error"|"name": ?"stderr"')
# JupyterLab asks a fresh kernel for the widgets of the last one, and a page that is left closes its
# subshell, whose loop then complains of messages that came too late.
JUPYTERS_OWN = re.compile(
    r"No such comm|never awaited.{1,9}self\._ready\.clear\(\)|Task was destroyed.*zmqstream|"
    r"ipykernel/subshell_manager\.py.*KeyError|main\(\) running at \S*ipykernel/kernelbase\.py"
)
IDLE = """document.querySelector(".jp-Notebook-ExecutionIndicator[data-status='idle']")"""
PROMPTS = "[...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]"
ALL_RAN = PROMPTS + r".every(prompt => /\d/.test(prompt.textContent))"
CONNECTED = r"/\| Idle/.test(document.querySelector('#jp-main-statusbar')?.textContent)"
# What is scrolled out of sight need not be drawn.
BLANK_CANVASES = """() => [...document.querySelectorAll('.jp-OutputArea canvas')].filter(canvas => {
    const { x, y, width, height } = canvas.getBoundingClientRect();
    const there = document.elementFromPoint(x + width / 2, y + height / 2);
    const seen = canvas.checkVisibility() && canvas.parentElement.contains(there);
    const drawn = canvas.width && canvas.height && seen;
    if (!drawn || !canvas.getContext('2d')) return false; // WebGL keeps no pixels to read
    const copy = document.createElement('canvas');
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const pen = copy.getContext('2d');
    pen.drawImage(canvas, 0, 0);
    const pixels = new Uint32Array(pen.getImageData(0, 0, copy.width, copy.height).data.buffer);
    return pixels.every(pixel => pixel === pixels[0]);
}).length"""

HEAD = """<html lang=en><title>saved</title><meta charset=utf-8>
<meta name=color-scheme content="light dark"><meta name=viewport content="width=device-width">"""
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
PIXELS = "selector => document.querySelector(selector).toDataURL()"
FITTING = """() => [...document.querySelectorAll('.lb-explorer figure canvas')].every(one =>
    !one.checkVisibility() || Math.abs(one.width - one.clientWidth * devicePixelRatio) < 2)"""
PANEL = ".jp-WindowedPanel-outer"
DOWN = """panel => {
    const before = panel.scrollTop;
    panel.scrollBy(0, 900);
    return panel.scrollTop > before;
}"""
AGAIN = """setting => {
    if (!window.begin) return false;
    window.end();
    document.querySelectorAll('#explorer > :not(h1)').forEach(one => one.remove());
    history.replaceState(null, '', setting);
    scrollTo(0, 0);
    window.__redraws = [];
    window.begin();
    return true;
}"""


def find_browser() -> str | None:
    """Path of a Chromium or Chrome on this machine, or None. LOOKBEHIND_CHROMIUM names another."""
    names = (os.environ.get("LOOKBEHIND_CHROMIUM", ""), *BROWSERS)
    return next(filter(None, map(shutil.which, names)), None)


def fresh_environment(folder: Path) -> dict[str, str]:
    """Environment variables that keep JupyterLab away from the user's own settings."""
    for name, settings in QUIET_SETTINGS.items():
        path = folder / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    names += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    return os.environ | {name: str(folder / name) for name in names}


def wait_until_up(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Return when `url` answers; raise with the log when the server ends or stays silent."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            return urllib.request.urlopen(url, timeout=5).close()
        time.sleep(0.2)
    raise RuntimeError(f"no server at {url}:\n{log.read_text()}")


def stop_group(process: subprocess.Popen) -> None:
    """End a process that leads its own session, with all that it started."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "name": "python3"}
    nbformat.write(notebook, path)


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Serve a folder in JupyterLab with fresh settings; yields its address (no token)."""
    port = forks.free_port()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
        command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder.resolve()}"]
        with log.open("w") as output:
            options = {"env": fresh_environment(Path(scratch)), "start_new_session": True}
            process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/api", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop_group(process)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files; yields their address."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_ARGS)
        yield browser
        browser.close()


@contextmanager
def blank_page(browser: Browser) -> Iterator[Page]:
    """A blank page; its scripts' errors collect in `page.problems`.

    So do the kernel's that no cell shows: those of a widget's callback. Not anywidget's word on a
    module that took two seconds to load on a busy machine: it comes.
    """

    def note(frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
        if KERNEL_TROUBLE.search(text) and not JUPYTERS_OWN.search(text):
            page.problems.append(text)

    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.problems, slow = [], "[anywidget] Failed to initialize model."
    page.on("pageerror", lambda e: str(e) == slow or page.problems.append(str(e)))
    page.on("websocket", lambda socket: socket.on("framereceived", note))
    yield page
    page.close()


@contextmanager
def browser_page() -> Iterator[Page]:
    """A blank page in a headless Chromium of its own."""
    with chromium() as browser, blank_page(browser) as page:
        yield page


def saved(explorer: Any, folder: Path, old: str = "", new: str = "") -> str:
    """The address of an explorer's own page, which `show` can begin again; `old` in it is `new`."""
    path = folder / "page.html"
    explorer.save_html(path)
    head, begin, rest = path.read_text("utf-8").rpartition("\nrender({ model: ")
    rest = rest.replace(");\n</script>", "));\nbegin();\n</script>")
    begin = f"\nwindow.begin = () => (window.end = {begin.strip()} "
    path.write_text(head + (begin + rest).replace(old, new), "utf-8")
    return path.as_uri()


def show(page: Page, address: str) -> None:
    """Show an explorer's own page as it is at first, on a desktop, and wait until it has drawn.

    Where it is there already it only begins again: to load it takes a second.
    """
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.mouse.move(0, 0)
    path, _, setting = address.partition("#")
    if page.url.partition("#")[0] != path or not page.evaluate(AGAIN, f"#{setting}"):
        page.goto("about:blank")
        page.goto(address)
    page.wait_for_function("() => window.__redraws?.length")
    rest(page, 0)


def rest(page: Page, milliseconds: int) -> None:
    """Until the page has drawn, and has come to all that it had put off for so long."""
    frame = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
    wait = "new Promise(done => setTimeout(done, ms))"
    page.evaluate(f"async ms => {{ await {frame}; await {wait}; await {frame}; }}", milliseconds)


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page at a module's `address`; no script of it may fail."""
    show(tab, address)
    yield tab
    assert not tab.problems, tab.problems


@pytest.fixture
def opened(tab: Page, tmp_path: Path) -> Iterator[Callable[[Any], Page]]:
    """Shows an explorer's own page, where no script may fail."""
    yield lambda explorer: show(tab, saved(explorer, tmp_path)) or tab
    assert not tab.problems, tab.problems


def as_document(living: str, path: Path) -> str:
    """The address of a page that holds what a notebook has saved."""
    path.write_text(f"{HEAD}<main><h1>saved</h1>{living}</main>", "utf-8")
    return path.as_uri()


def check_with_axe(page: Page, **options: Any) -> None:
    found = Axe().run(page, **options)
    assert found.violations_count == 0, found.generate_report()
    assert not page.problems, page.problems


def drag(part: Locator, start: Sequence[float], end: Sequence[float]) -> None:
    """From one place to another, in pixels from the left upper corner of the part."""
    box, mouse = part.bounding_box(), part.page.mouse
    mouse.move(box["x"] + start[0], box["y"] + start[1])
    mouse.down()
    mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
    mouse.up()


def number(page: Page | Locator, name: str) -> Locator:
    """The number of a sentence whose name begins so."""
    return page.get_by_role("spinbutton", name=re.compile(f"^{re.escape(name)}"))


def type_in(page: Page, name: str, value: object) -> Locator:
    number(page, name).fill(str(value))
    number(page, name).press("Enter")
    return number(page, name)


def changed(page: Page, act: Callable[[], object], *canvases: str) -> list[bool]:
    """Whether each canvas looks otherwise after `act`, and the drawing comes within a frame."""
    before = [page.evaluate(PIXELS, canvas) for canvas in canvases]
    act()
    rest(page, 60)
    return [page.evaluate(PIXELS, one) != old for one, old in zip(canvases, before, strict=True)]


def run_notebook(page: Page, address: str, name: str, seconds: float = 180) -> None:
    """Open a notebook, run all its cells, wait until the kernel is idle, show every output once."""
    workspace = f"{Path(name).stem}-{time.monotonic_ns()}"  # a new one: nothing to restore
    page.goto(f"{address}/lab/workspaces/{workspace}/tree/{name}", wait_until="domcontentloaded")
    # Before the kernel is there, JupyterLab answers "Run All Cells" with a dialog, or not at all.
    page.wait_for_function(f"() => {CONNECTED}")
    page.wait_for_selector(".jp-CodeCell")
    for name in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=name, exact=True).click()
    # Every code cell has run ([1], not [*]), or one failed.
    done = f"() => {IDLE} && ({ALL_RAN} || document.querySelector(`{ERRORS}`))"
    page.wait_for_function(done, timeout=seconds * 1000)
    # JupyterLab renders an output when it first comes in view.
    page.mouse.move(700, 500)
    page.eval_on_selector(PANEL, "panel => panel.scrollTo(0, 0)")
    while page.eval_on_selector(PANEL, DOWN):
        rest(page, 120)
    rest(page, 500)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def says(page: Page, text: str) -> None:
    """Wait until the page says so: in a line of status, or a table."""
    page.wait_for_function(f"() => new RegExp({text!r}).test(document.body.innerText)")
