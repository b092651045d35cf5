"""Slides of notebooks, their explorers alive, without a network: what `make slides` does.

usage: python notebooks/teaching/slides.py FOLDER [NOTEBOOK ...]      (default: 01, 02 and 03)

A cell with the tag "slide" opens a slide, one with "slide-part" goes on with it, all others are
left out. Code isn't shown, its stored output is. Needs the package's `site` extra.
"""

import shutil
import sys
from pathlib import Path

import mathjax
import nbformat
import sphinx_revealjs
from nbconvert import SlidesExporter

HERE = Path(__file__).parent
MATHJAX = Path(mathjax.__file__).parent / "static/mathjax/es5"
REVEAL = Path(sphinx_revealjs.__file__).parent / "_static/revealjs"
FONTS = "output/chtml/fonts/woff-v2"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
TYPES = {"slide": "slide", "slide-part": "-"}


def main(folder: Path, paths: list[Path]) -> None:
    for path in paths or sorted(HERE.parent.glob("0[1-3]-*.ipynb")):
        page = slides(nbformat.read(path, as_version=4), path.stem)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")
        print(folder / f"{path.stem}.html")
    for part in ("dist", "plugin/notes"):
        shutil.copytree(REVEAL / part, folder / "reveal" / part, dirs_exist_ok=True)
    shutil.copytree(MATHJAX / FONTS, folder / "mathjax" / FONTS, dirs_exist_ok=True)
    shutil.copy2(MATHJAX / "tex-chtml.js", folder / "mathjax")


def slides(notebook: nbformat.NotebookNode, name: str) -> str:
    """The page of a notebook; ValueError where none of its cells has the tag "slide"."""
    kinds = [TYPES.get(next(iter(TYPES.keys() & tags(cell)), "")) for cell in notebook.cells]
    if "slide" not in kinds:
        raise ValueError(f'{name}: no cell has the tag "slide"')
    for cell, kind in zip(notebook.cells, kinds, strict=True):
        cell.metadata["slideshow"] = {"slide_type": kind or "skip"}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)  # its living HTML needs no kernel
    exporter = SlidesExporter(
        extra_template_basedirs=[str(HERE)],
        template_name="slides",
        exclude_input=True,
        reveal_url_prefix="reveal",
    )
    return exporter.from_notebook_node(notebook, {"metadata": {"name": name}})[0]


def tags(cell: nbformat.NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
