"""The floor plan: which module may import which, and what `import lookbehind` must not load."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lookbehind

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lookbehind"
GROUND = {"checks", "files", "scores", "weights"}


def plan() -> dict[str, set[str]]:
    """Which rooms each room may import from, as the docstring of the package says."""
    lines = re.findall(r"^    (\w+) +(?:←|·) ?(.*)$", lookbehind.__doc__ or "", re.MULTILINE)
    return {room: set(allowed.split(", ")) - {""} for room, allowed in lines}


ALLOWED = plan()
ONLY_EXPLORE = {"ipywidgets", "anywidget"}
LATE = {*ONLY_EXPLORE, "torchvision", "sklearn", "matplotlib", "click", "platformdirs"}
LATE |= {"accelerate", "optuna"}
TOP_LEVEL = {
    *("notebooks", "lookbehind", "binder", "tests", "environment.yml", "README.md"),
    *("pyproject.toml", "Makefile", "LICENSE", "CITATION.cff", ".ci", ".github", ".gitignore"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The room of the floor plan that a file belongs to."""
    return room_called(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))


def room_called(name: str) -> str:
    return "ground" if name in GROUND else name


def imported(path: Path) -> set[str]:
    """Absolute dotted names of everything that a file imports, `from a import b` as `a.b`."""
    package = ("lookbehind", *path.relative_to(PACKAGE).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in imported(path))
    return {room_called(name[1]) for name in names if name[0] == "lookbehind"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert rooms_imported(path) == {"optim"}
        return
    assert room(path) in ALLOWED, "a room that the floor plan does not know"
    assert rooms_imported(path) - {room(path)} <= ALLOWED[room(path)]


def test_the_plan_is_a_house_of_floors() -> None:
    rooms = list(ALLOWED)
    assert len(rooms) == 8
    for floor, name in enumerate(rooms):
        assert ALLOWED[name] <= set(rooms[:floor])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_are_entered_by_the_door(path: Path) -> None:
    """What is imported of another room stands in the list of its `__init__`, or is a file of it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = (getattr(node, "module", None) or "").split(".")
        if parts[0] != "lookbehind" or len(parts) < 2 or parts[1] in {room(path), *GROUND}:
            continue
        place = ROOT.joinpath(*parts)
        assert place.is_dir(), f"{'.'.join(parts)} is not a room"
        shown = set(importlib.import_module(".".join(parts)).__all__)
        files = {file.stem for file in place.iterdir()}
        assert {alias.name for alias in node.names} <= shown | files


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_explore_uses_the_widget_libraries(path: Path) -> None:
    if room(path) != "explore":
        assert not {name.split(".")[0] for name in imported(path)} & ONLY_EXPLORE


def files_imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, at any depth of the dotted name."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        for length in range(2, len(parts) + 1):
            place = ROOT.joinpath(*parts[:length])
            found |= {place.with_suffix(".py"), place / "__init__.py"} & set(FILES)
    return found - {path}


def test_no_file_imports_itself_in_a_circle() -> None:
    waiting = {path: files_imported(path) for path in FILES if path.name != "__init__.py"}
    while free := [path for path, needs in waiting.items() if not needs & set(waiting)]:
        for path in free:
            del waiting[path]
    assert not waiting, f"circle among {sorted(path.stem for path in waiting)}"


def test_import_lookbehind_loads_no_heavy_library() -> None:
    code = f"import lookbehind, sys; print(*sorted({LATE!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_top_level_holds_what_the_plan_says() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    present = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert present <= TOP_LEVEL
