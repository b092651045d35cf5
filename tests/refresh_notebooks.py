"""Format, run and clean notebooks in place: what `make notebooks` does.

usage: python tests/refresh_notebooks.py [NOTEBOOK ...]      (default: all of notebooks/)
"""

import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
SANITIZE = ROOT / "tests" / "nbval.cfg"
FORMAT = [sys.executable, "-m", "ruff", "format", "-q", f"--config={ROOT / 'pyproject.toml'}"]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}


def main(names: list[str]) -> int:
    paths = [Path(name) for name in names] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    return int(False in [refreshed(path) for path in paths])


def refreshed(path: Path) -> bool:
    """Refresh one notebook and say so; on a problem say which, and leave the file as it was."""
    start = time.perf_counter()
    try:
        subprocess.run([*FORMAT, str(path)], check=True)
        notebook = executed(path)
        clean(notebook)
    except Exception as error:
        print(f"{path}: FAILED, not saved\n{error}", file=sys.stderr)
        return False
    save(notebook, path)
    print(f"{path}: {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1000:.0f} kB")
    return True


def executed(path: Path) -> NotebookNode:
    """The notebook after a run of all its cells in a fresh kernel of this very Python."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": KERNELSPEC, "language_info": LANGUAGE}
    folder = {"metadata": {"path": str(path.resolve().parent)}}
    options = {"timeout": 600, "record_timing": False, "store_widget_state": False}
    NotebookClient(notebook, resources=folder, **options).execute()
    return notebook


def clean(notebook: NotebookNode) -> None:
    """Keep what is the same on every machine; raise where an output is an error or a warning."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    rules = sanitize_rules()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        kept = {"tags", "nbval-ignore-reason"} & {*cell.metadata}
        cell.metadata = {key: cell.metadata[key] for key in sorted(kept, reverse=True)}
        for output in cell.get("outputs", []):
            clean_output(output, cell, rules)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        assert cell.execution_count == number, f"execution count of {cell.source!r}"
    nbformat.validate(notebook)


def clean_output(output: NotebookNode, cell: NotebookNode, rules: list[tuple[str, str]]) -> None:
    if output.output_type == "error" or output.get("name") == "stderr":
        raise ValueError(f"{output.get('text', output)}\nin the cell\n{cell.source}")
    data = output.get("data", {})
    if WIDGET_VIEW in data:
        data[WIDGET_VIEW]["model_id"] = uuid.uuid5(uuid.NAMESPACE_OID, cell.id).hex
        for regex, replacement in rules if "text/plain" in data else []:
            data["text/plain"] = re.sub(regex, replacement, data["text/plain"])


def sanitize_rules() -> list[tuple[str, str]]:
    return re.findall(r"^regex: (.*)$\n^replace: (.*)$", SANITIZE.read_text(), re.MULTILINE)


def save(notebook: NotebookNode, path: Path) -> None:
    """Write beside the file, then rename: an interruption leaves the old file or the new one."""
    scratch = path.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, scratch)
    os.replace(scratch, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
