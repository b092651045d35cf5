"""How long the site's first page takes on a phone until its explorer is drawn.

usage: make site && python tests/benchmarks/bench_site.py

The median of five loads from this machine, each with empty caches, the main thread slowed down.
"""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from threading import Thread

from bench import goal, lab, run
from bench_pages import FIRST_PICTURE, opened

SITE = Path(__file__).parents[2] / "site"
FIRST = 2000


def main() -> None:
    if not (SITE / "index.html").is_file():
        raise SystemExit(f"{SITE} must hold the site: make site")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    folder, firsts = partial(quiet, directory=str(SITE)), []
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server, lab.chromium() as browser:
        Thread(target=server.serve_forever, daemon=True).start()
        for _ in range(5):
            address = f"http://127.0.0.1:{server.server_port}/index.html"
            page = opened(browser, address, "phone, 4x slower")
            firsts.append(page.evaluate(FIRST_PICTURE))
            page.context.close()
        server.shutdown()
    goal("the index on a phone", median(firsts), "<=", FIRST, "ms")


if __name__ == "__main__":
    run(main, __doc__)
