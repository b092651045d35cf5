"""The recipe of the notebooks: how each is built, what it saves, and that its exercises work."""

import ast
import base64
import contextlib
import io
import itertools
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(os.environ.get("LOOKBEHIND_NOTEBOOKS", Path(__file__).parents[1] / "notebooks"))
PATHS = sorted(FOLDER.glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STABLE_OUTPUTS = {"text/plain", "text/markdown", "text/latex", "image/png", WIDGET_VIEW}
FORBIDDEN = re.compile(r"(?m)sys\.path|import \*|\.cuda\(|^\s*[!%]|NBVAL_|PYTEST_VALIDATE")
FENCE = re.compile(r"```.*?```", re.DOTALL)
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```.*?</details>", re.DOTALL)
COLAB = """import os

if "COLAB_RELEASE_TAG" in os.environ:  # Colab has but the notebook: fetch the rest
    from google.colab import output

    os.system("git clone -q https://github.com/OWNER/lookbehind && cp -r lookbehind/notebooks/* .")
    os.system("pip install -q -U ./lookbehind anywidget ipywidgets")
    output.enable_custom_widget_manager()

"""
EMPTY_STUB = "not yet: the function above is still empty. Write your answer in place of ..."
IMPORTS = (ast.Import, ast.ImportFrom)
TAGS = {"exercise-stub", "exercise-check", "nbval-ignore-output", "slide", "slide-part"}

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture
def notebook(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    """All Markdown without its fenced code."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return FENCE.sub("", "\n\n".join(texts))


def code_lines(source: str) -> int:
    """Lines that aren't empty, without those that serve Colab."""
    return sum(map(bool, source.removeprefix(COLAB).splitlines()))


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_each_number_is_used_once() -> None:
    names = [re.fullmatch(r"(\d\d)(-[a-z0-9]+)+\.ipynb", path.name) for path in PATHS]
    assert names and len({name and name[1] for name in names}) == len(names)


@every_notebook
def test_imports_then_settings_and_plain_code(notebook: NotebookNode) -> None:
    assert not any(FORBIDDEN.search(cell.source) for cell in code_cells(notebook))
    first, settings = (cell.source for cell in code_cells(notebook)[:2])
    colab, found, imports = first.partition(COLAB)
    assert found and not colab
    assert code_lines(imports) <= 8
    assert all(isinstance(node, IMPORTS) for node in ast.parse(imports).body)
    kinds = {type(node) for node in ast.parse(settings).body}
    assert {ast.Assign} <= kinds <= {ast.Assign, ast.AnnAssign, ast.Expr}, "settings have names"


@every_notebook
def test_title_sections_length_and_ending(notebook: NotebookNode) -> None:
    first, *_, last = notebook.cells
    assert first.source.startswith("# ")
    headings = re.findall(r"^## (.*)$", prose(notebook), re.MULTILINE)
    assert len(headings) >= 3 and headings[-1] == "References"
    assert last.cell_type == "markdown" and "**Next" in last.source
    sizes = [code_lines(cell.source) for cell in code_cells(notebook)]
    assert len(notebook.cells) <= 60 and sum(sizes) <= 250 and max(sizes) <= 20
    assert len(re.findall(r"\b[^\W\d_]{2,}\b", prose(notebook))) <= 1500


@every_notebook
def test_the_reader_moves_or_bets_before_the_first_result(notebook: NotebookNode) -> None:
    assert WIDGET_VIEW in outputs(notebook)[0].get("data", {})
    assert "Bet(" in "".join(cell.source for cell in code_cells(notebook))


@every_notebook
def test_every_code_cell_shows_something(notebook: NotebookNode) -> None:
    """But imports, settings, stubs, and definitions of what the next code cell shows."""
    cells = code_cells(notebook)[2:]
    for cell, after in itertools.pairwise([*cells, None]):
        if cell.outputs or "exercise-stub" in tags(cell):
            continue
        names = {node.name for node in ast.parse(cell.source).body if hasattr(node, "name")}
        assert after and names and after.outputs, f"shows nothing:\n{cell.source}"
        assert names & set(re.findall(r"\w+", after.source)), f"{names} not used at once"


@every_notebook
def test_outputs_are_short_clean_comparable_and_told_in_words(notebook: NotebookNode) -> None:
    for output in outputs(notebook):
        data = output.get("data", {})
        text, kinds = output.get("text", "") or data.get("text/plain", ""), set(data)
        assert output.output_type != "error" and output.get("name") != "stderr"
        assert kinds <= STABLE_OUTPUTS | ({"text/html"} if WIDGET_VIEW in kinds else set())
        assert len(text.splitlines()) <= 25, text
        assert not re.search(r"object at 0x|Warning\b|/site-packages/", text), text
        for line in text.splitlines():  # a boolean stands beside its value
            assert not re.search(r"\b(True|False)\b", line) or re.search(r"\d", line), line
        if picture := data.get("image/png"):
            words = output.metadata.get("image/png", {}).get("alt", "")
            assert len(words) >= 40, f"no alternative text: {words!r}"
            dpi = Image.open(io.BytesIO(base64.b64decode(picture))).info["dpi"]
            assert min(dpi) >= 109.9, dpi


@every_notebook
def test_saved_as_after_restart_and_run_all(path: Path, notebook: NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:  # an output is ignored for a reason
        assert set(cell.metadata) <= {"tags", "nbval-ignore-reason"} and tags(cell) <= TAGS
        reason = cell.metadata.get("nbval-ignore-reason", "")
        assert ("nbval-ignore-output" in tags(cell)) == (len(reason.split()) >= 4)
    assert path.stat().st_size <= 700_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells] == [f"cell-{n:02d}" for n in range(len(cells))]


def common_ground(notebook: NotebookNode) -> dict[str, object]:
    """What an exercise may build on: imports, settings, every def, class and literal."""
    start = [cell for cell in code_cells(notebook) if "exercise-stub" not in tags(cell)]
    parts = [node for cell in start[2:] for node in ast.parse(cell.source).body if defines(node)]
    space: dict[str, object] = {"__name__": "__main__"}
    for cell in start[:2]:
        exec(cell.source, space)
    exec(compile(ast.Module(parts, []), "<definitions>", "exec"), space)
    return space


def defines(node: ast.stmt) -> bool:
    """Whether a statement costs nothing to run: an import, a def, a class, or `name = literal`."""
    if isinstance(node, ast.Assign):
        return not any(isinstance(part, ast.Call | ast.Name) for part in ast.walk(node.value))
    return isinstance(node, (*IMPORTS, ast.FunctionDef, ast.ClassDef))


def verdict_of(answer: str, check: str, space: dict[str, object]) -> str:
    """What the check cell prints last after the answer's cell."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(answer, space)
        exec(check, space)
    return printed.getvalue().splitlines()[-1]


@every_notebook
def test_exercises_tell_right_from_wrong(notebook: NotebookNode) -> None:
    """Prompt, stub, check and solution stand in this order; a stub is a docstring and `...`."""
    space, cells = common_ground(notebook), notebook.cells
    stubs = [n for n, cell in enumerate(cells) if "exercise-stub" in tags(cell)]
    checks = [n for n, cell in enumerate(cells) if "exercise-check" in tags(cell)]
    assert 2 <= len(stubs) <= 4 and checks == [at + 1 for at in stubs]
    for at in stubs:
        prompt, stub, check, answer = (cell.source for cell in cells[at - 1 : at + 3])
        assert len(prompt.split()) >= 8, f"a prompt says what to do\n{prompt}"
        [function] = ast.parse(stub).body
        assert isinstance(function, ast.FunctionDef) and len(function.body) <= 2, stub
        assert ast.unparse(function.body[-1]) == "...", f"the stub does more than ...\n{stub}"
        solution = SOLUTION.search(answer)
        assert solution, f"no <details> with a ```python solution in\n{answer}"
        assert verdict_of(stub, check, space) == EMPTY_STUB
        assert verdict_of(solution[1], check, space) == "correct", answer
