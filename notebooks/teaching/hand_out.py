"""The notebooks as students get them, without solutions and outputs: what `make student` does.

usage: python notebooks/teaching/hand_out.py FOLDER [NOTEBOOK ...]      (default: all)

Writes FOLDER, with the stored results that the notebooks read, and FOLDER.zip. A FOLDER that holds
anything else is left as it is.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parents[1]
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
MARK = "handed-out.txt"


def main(folder: Path, paths: list[Path]) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        sys.exit(f"{folder} holds something else: name a new folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("Made by make student, which replaces this folder.\n")
    for path in paths or sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(handed_out(nbformat.read(path, as_version=4)), folder / path.name)
    unread = shutil.ignore_patterns("__pycache__", "*.py", "*.lock")
    shutil.copytree(NOTEBOOKS / "results", folder / "results", ignore=unread)
    print(folder, shutil.make_archive(str(folder), "zip", folder))


def handed_out(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Stubs and checks stay; a cell that held nothing but a solution goes."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = FOLDED.sub(without_solution, cell.source).strip()
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    return notebook


def without_solution(folded: re.Match[str]) -> str:
    return "" if "```python" in folded[0] else folded[0]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
