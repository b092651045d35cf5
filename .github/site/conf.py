"""The site: the notebooks with their stored outputs, and the docstrings. `make site` builds it."""

import re
import shutil
import sys
from functools import partial
from pathlib import Path
from textwrap import indent

import mathjax
import nbformat
from sphinx.application import Sphinx

from lookbehind.explore.toy import ToyExplorer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MATHJAX = Path(mathjax.__file__).parent / "static/mathjax/es5"
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]

project = author = html_title = "lookbehind"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
default_role = "code"
autodoc_default_options = {"members": True, "exclude-members": "asdict"}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_heading_slug_func = partial(re.sub, " ", "-")  # as JupyterLab calls the place of a heading
suppress_warnings = ["config.cache"]  # a function of the configuration isn't kept
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"  # tables that a cell makes
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "sphinx_book_theme"
html_baseurl = URLS["Site"]
html_context = {"default_mode": "auto"}
html_favicon = "static/icon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_use_index = html_domain_indices = False
html_theme_options = {
    "repository_url": URLS["Repository"],
    "repository_branch": "main",
    "use_repository_button": True,
    "launch_buttons": {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    },
    "navbar_persistent": [],
    "back_to_top_button": False,
}


def setup(app: Sphinx) -> None:
    """Put the sources together: notebooks, these pages, the explorer of the index, MathJax."""
    shutil.copytree(HERE, app.srcdir, dirs_exist_ok=True)
    notebooks = app.srcdir / "notebooks"
    notebooks.mkdir(exist_ok=True)
    for path in ROOT.glob("notebooks/*.ipynb"):
        page = nbformat.read(path, as_version=4)
        for cell in [cell for cell in page.cells if cell.cell_type == "code"][:2]:
            cell.metadata["tags"] = ["hide-input"]  # imports and settings: a reader unfolds them
        nbformat.write(page, notebooks / path.name)
    shutil.copy2(ROOT / "README.md", app.srcdir / "readme.txt")
    shutil.copytree(ROOT / "notebooks/teaching", notebooks / "teaching", dirs_exist_ok=True)
    explorer, _ = ToyExplorer()._repr_mimebundle_()
    (app.srcdir / "explorer.html").write_text(explorer["text/html"], encoding="utf-8")
    (app.srcdir / "alone").mkdir(exist_ok=True)
    ToyExplorer().save_html(app.srcdir / "alone/explorer.html")  # its address holds its setting
    app.config.html_extra_path = [str(app.srcdir / "alone")]
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(MATHJAX / fonts, app.srcdir / "static/mathjax" / fonts, dirs_exist_ok=True)
    shutil.copy2(MATHJAX / "tex-chtml.js", app.srcdir / "static/mathjax")
    app.config.html_static_path = [str(app.srcdir / "static")]
    app.connect("autodoc-process-docstring", as_written)
    app.connect("build-finished", without_icon_script)


def without_icon_script(app: Sphinx, error: Exception | None) -> None:
    """The theme has its icons twice: as fonts, and in 1.5 MB of script that a phone reads first."""
    (app.outdir / "_static/scripts/fontawesome.js").write_text("", encoding="utf-8")


def as_written(app: Sphinx, what: str, name: str, thing: object, how: object, lines: list) -> None:
    """Docstrings are plain text with `code`: what is indented or in columns stays as it is."""
    blocks = "\n".join(lines).split("\n\n")
    for number, block in enumerate(blocks):
        if re.search(r"^ {4}|\S {2,}\S", block, re.MULTILINE):
            blocks[number] = "::\n\n" + indent(block, "    ")
        else:
            blocks[number] = re.sub(r"(`[^`]*`)|([*|])", lambda m: m[1] or "\\" + m[2], block)
    lines[:] = "\n\n".join(blocks).split("\n")
