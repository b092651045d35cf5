"""The teacher's pack: what students get, and slides whose explorers live without a network."""

import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from lookbehind.explore.toy import ToyExplorer

TEACHING = Path(__file__).parents[1] / "notebooks" / "teaching"
NOTEBOOKS = sorted(TEACHING.parent.glob("*.ipynb"))
TALLER = """async () => {
    const found = [], rest = ms => new Promise(done => setTimeout(done, ms));
    for (let i = 0; i < Reveal.getHorizontalSlides().length; i++) {
        Reveal.slide(i);
        await rest(40);
        const { scrollWidth, scrollHeight } = Reveal.getCurrentSlide();
        if (scrollWidth > innerWidth || scrollHeight > innerHeight) found.push(i);
    }
    return found;
}"""
SOLUTION = re.compile(r"<details>(?:(?!</details>).)*```python", re.DOTALL)


def make(what, folder, paths):
    runpy.run_path(str(TEACHING / f"{what}.py"))["main"](folder, paths)


def open_slides(tab, path):
    tab.set_viewport_size({"width": 1024, "height": 768})
    tab.goto(path.as_uri())
    tab.wait_for_function("() => window.Reveal?.isReady() && window.MathJax?.version")


def test_students_get_stubs_and_checks_and_no_solution(tmp_path) -> None:
    make("hand_out", tmp_path / "student", NOTEBOOKS)
    for path in NOTEBOOKS:
        before, after = (nbformat.read(p, 4) for p in (path, tmp_path / "student" / path.name))
        nbformat.validate(after)
        code = [[c.source for c in nb.cells if c.cell_type == "code"] for nb in (before, after)]
        assert code[0] == code[1]
        assert not any(cell.get("outputs") for cell in after.cells)
        prose = "".join(cell.source for cell in after.cells if cell.cell_type == "markdown")
        assert "## References" in prose and not SOLUTION.search(prose)
    stored = {path.name for path in TEACHING.parent.glob("results/[a-z0-9]*.json*")}
    assert {path.name for path in (tmp_path / "student" / "results").iterdir()} == stored
    assert (tmp_path / "student.zip").stat().st_size > 10_000


def test_only_a_folder_of_its_own_is_replaced(tmp_path) -> None:
    (tmp_path / "grades.txt").write_text("A")
    with pytest.raises(SystemExit, match=f"{tmp_path} holds something else: name a new folder"):
        make("hand_out", tmp_path, NOTEBOOKS[:1])
    assert (tmp_path / "grades.txt").read_text() == "A"
    for _ in range(2):
        make("hand_out", tmp_path / "student", NOTEBOOKS[:1])


def test_a_notebook_without_slides_is_named(tmp_path) -> None:
    empty = v4.new_notebook(cells=[v4.new_markdown_cell("# Title")])
    nbformat.write(empty, tmp_path / "empty.ipynb")
    with pytest.raises(ValueError, match='empty: no cell has the tag "slide"'):
        make("slides", tmp_path, [tmp_path / "empty.ipynb"])


@pytest.mark.browser
def test_every_slide_fits_a_projector_and_says_what_its_picture_shows(tab, tmp_path) -> None:
    make("slides", tmp_path, NOTEBOOKS[1:4])
    for path in sorted(tmp_path.glob("*.html")):
        open_slides(tab, path)
        tab.evaluate("() => MathJax.startup.promise")
        assert tab.evaluate(TALLER) == [], path.stem
        told = [one.get_attribute("alt") for one in tab.locator("img").all()]
        assert told and all(len(words) >= 40 and "No description" not in words for words in told)


@pytest.mark.parametrize("path", NOTEBOOKS[1:4], ids=lambda path: path.stem)
def test_what_make_slides_shows_is_tagged(path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    tags = [{"slide", "slide-part"} & set(cell.metadata.get("tags", [])) for cell in cells]
    assert 10 <= sum("slide" in some for some in tags) <= 25
    assert tags[0] == {"slide"} and not tags[1] and not tags[2]  # imports, settings


@pytest.mark.browser
def test_the_explorer_of_a_slide_is_alive_and_keeps_its_keys(tab, tmp_path) -> None:
    data, metadata = ToyExplorer()._repr_mimebundle_()
    output, slide = v4.new_output("display_data", data, metadata=metadata), {"tags": ["slide"]}
    cells = [
        v4.new_markdown_cell("# One step: $\\varphi - \\alpha$", metadata=slide),
        v4.new_code_cell("explorer", outputs=[output], metadata=slide),
        v4.new_markdown_cell("Not on a slide."),
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "toy.ipynb")
    make("slides", tmp_path / "deck", [tmp_path / "toy.ipynb"])
    open_slides(tab, tmp_path / "deck" / "toy.html")
    assert tab.evaluate("() => Reveal.getTotalSlides()") == 2
    assert tab.locator(".present h1").count() == 1
    tab.keyboard.press("ArrowRight")
    number = tab.locator("section.present .lb-number").first
    number.wait_for()
    tab.wait_for_function("() => window.__redraws?.length")
    before = number.input_value()
    number.press("ArrowLeft")
    assert number.input_value() != before
    assert tab.evaluate("() => Reveal.getIndices().h") == 1
    assert not tab.problems
