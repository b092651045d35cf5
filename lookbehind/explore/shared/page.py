"""The JavaScript of the explorers' pages."""

from pathlib import Path


def script(own: Path) -> str:
    """A module in one piece, as a widget wants it: `canvas.js`, and then the text of `own`."""
    shared = Path(__file__).parent / "canvas.js"
    return "\n".join(path.read_text(encoding="utf-8") for path in (shared, own))
