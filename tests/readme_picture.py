"""Make the README's picture: the toy explorer's exported page, photographed in Chromium."""

import tempfile
from pathlib import Path

import lab

from lookbehind.explore.toy import ToyExplorer

PICTURE = Path(__file__).parents[1] / "notebooks" / "pictures" / "explorer.png"

methods = ["SGD", "SAM", "Multistep-SAM", "Lookbehind-SAM"]
explorer = ToyExplorer("valley", methods=methods, k=3, rho=0.2, alpha=0.3, t=4)
PICTURE.parent.mkdir(exist_ok=True)
with tempfile.TemporaryDirectory() as folder, lab.browser_page() as page:
    explorer.save_html(Path(folder, "page.html"))
    page.goto(Path(folder, "page.html").as_uri())
    page.locator(".lb-explorer canvas").first.wait_for()
    lab.rest(page, 2500)  # the lines under the lens come last
    page.locator(".lb-explorer").screenshot(path=PICTURE)
