"""Format, run and clean notebooks in place: what `make notebooks` does.

usage: python tests/refresh_notebooks.py [NOTEBOOK ...]      (default: all of notebooks/)
"""

import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from lookbehind.files import written_whole

ROOT = Path(__file__).parents[1]
# What is saved in place of an output's text: (regular expression, replacement).
RULES = re.findall(r"^regex: (.*)$\n^replace: (.*)$", (ROOT / "tests/nbval.cfg").read_text(), re.M)
FORMAT = [sys.executable, "-m", "ruff", "format", "-q", f"--config={ROOT / 'pyproject.toml'}"]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}


def refreshed(path: Path) -> bool:
    """Refresh one notebook, in a fresh kernel of this very Python, and say so; on a problem say
    which, and leave the file as it was."""
    start = time.perf_counter()
    try:
        subprocess.run([*FORMAT, str(path)], check=True)
        notebook = nbformat.read(path, as_version=4)
        folder = {"metadata": {"path": str(path.resolve().parent)}}
        options = {"timeout": 600, "record_timing": False, "store_widget_state": False}
        options["coalesce_streams"] = True  # else a busy machine cuts what a cell prints
        NotebookClient(notebook, kernel_name="python3", resources=folder, **options).execute()
        clean(notebook)
    except Exception as error:
        print(f"{path}: FAILED, not saved\n{error}", file=sys.stderr)
        return False
    with written_whole(path) as file:
        file.write(f"{nbformat.writes(notebook)}\n".encode())
    print(f"{path}: {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1000:.0f} kB")
    return True


def clean(notebook: NotebookNode) -> None:
    """Keep what is the same on every machine; raise where an output is an error or a warning."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        kept = {"tags", "nbval-ignore-reason"} & {*cell.metadata}
        cell.metadata = {key: cell.metadata[key] for key in sorted(kept, reverse=True)}
        for output in cell.get("outputs", []):
            clean_output(output, cell)
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        assert cell.execution_count == number, f"execution count of {cell.source!r}"
    nbformat.validate(notebook)


def clean_output(output: NotebookNode, cell: NotebookNode) -> None:
    if output.output_type == "error" or output.get("name") == "stderr":
        raise ValueError(f"{output.get('text', output)}\nin the cell\n{cell.source}")
    data = output.get("data", {})
    if WIDGET_VIEW in data:
        data[WIDGET_VIEW]["model_id"] = uuid.uuid5(uuid.NAMESPACE_OID, cell.id).hex
        for regex, replacement in RULES if "text/plain" in data else []:
            data["text/plain"] = re.sub(regex, replacement, data["text/plain"])


if __name__ == "__main__":
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    sys.exit(int(False in [refreshed(path) for path in paths]))
