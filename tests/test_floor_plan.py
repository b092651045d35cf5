"""The floor plan: which module may import which, and what `import lookbehind` must not load."""

import ast
import importlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lookbehind

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lookbehind"
GROUND = {"checks", "files", "scores", "weights"}
# Which rooms each room may import from, as the docstring of the package says.
PLAN = re.findall(r"^    (\w+) +(?:←|·) ?(.*)$", lookbehind.__doc__ or "", re.MULTILINE)
ALLOWED = {room: set(allowed.split(", ")) - {""} for room, allowed in PLAN}
ONLY_EXPLORE = {"ipywidgets", "anywidget"}
LATE = {"torchvision", "sklearn", "matplotlib", "click", "platformdirs", "optuna", "accelerate"}
TOP_LEVEL = {
    *("notebooks", "lookbehind", "binder", "tests", "environment.yml", "README.md"),
    *("pyproject.toml", "Makefile", "LICENSE", "CITATION.cff", ".ci", ".github", ".gitignore"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(name: str) -> str:
    """The room of the floor plan that a file or folder of the package belongs to."""
    return "ground" if name in GROUND else name


def imported(path: Path) -> list[tuple[str, list[str]]]:
    """Each module that a file imports by its absolute name, with the names taken from it."""
    package = ("lookbehind", *path.relative_to(PACKAGE).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, list[str]()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            found.append((base, [alias.name for alias in node.names]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_and_through_the_door(path: Path) -> None:
    """What is imported of another room stands in the list of its `__init__`, or is a file of it."""
    here = room(path.relative_to(PACKAGE).with_suffix("").parts[0])
    allowed = {"optim"} if path == PACKAGE / "__init__.py" else {here} | ALLOWED[here]
    for module, names in imported(path):
        top, *parts = module.split(".")
        assert here == "explore" or top not in ONLY_EXPLORE
        if top != "lookbehind":
            continue
        there = room(*parts[:1] or names)
        assert there in allowed
        if there not in (here, "ground"):
            place = ROOT.joinpath(top, *parts)
            assert place.is_dir(), f"{module} is not a room"
            shown = set(importlib.import_module(module).__all__)
            assert {*names} <= shown | {file.stem for file in place.iterdir()}


def test_the_plan_is_a_house_of_floors() -> None:
    assert len(ALLOWED) == 8
    for floor, allowed in enumerate(ALLOWED.values()):
        assert allowed <= set(list(ALLOWED)[:floor])


def files_imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, at any depth of the dotted name."""
    found = set()
    for module, names in imported(path):
        for name in (module, *(f"{module}.{name}" for name in names)):
            place = ROOT.joinpath(*name.split("."))
            found |= {place.with_suffix(".py"), place / "__init__.py"} & set(FILES)
    return found - {path}


def test_no_file_imports_itself_in_a_circle() -> None:
    needs = {path: files_imported(path) for path in FILES if path.name != "__init__.py"}
    TopologicalSorter(needs).prepare()  # raises a CycleError that names them


def test_import_lookbehind_loads_no_heavy_library() -> None:
    code = f"import lookbehind, sys; print(*sorted({LATE | ONLY_EXPLORE!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


def test_top_level_holds_what_the_plan_says() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.stdout.splitlines()} <= TOP_LEVEL
