"""The JavaScript of the explorers' pages, and pages that need no kernel."""

import base64
import gzip
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def script(own: Path) -> str:
    """A module and all that it imports in one piece, as a widget wants it.

    Each imported module becomes a block of its own that shows what it exports, so what is private
    to one stays so; exported names are unique among them. Imports name no alias.
    """
    return "\n".join([*_imported(own, seen=set()), IMPORT.sub("", own.read_text(encoding="utf-8"))])


def _imported(path: Path, seen: set[Path]) -> list[str]:
    """The blocks that a module needs, each after those that it needs itself."""
    blocks = []
    for name in IMPORT.findall(path.read_text(encoding="utf-8")):
        needed = (path.parent / name).resolve()
        if needed not in seen:
            seen.add(needed)
            blocks += [*_imported(needed, seen), _block(needed.read_text(encoding="utf-8"))]
    return blocks


def _block(text: str) -> str:
    names = ", ".join(EXPORT.findall(text))
    body = EXPORT.sub("", IMPORT.sub("", text))
    return f"const {{ {names} }} = (() => {{\n{body}return {{ {names} }};\n}})();"


def page(title: str, module: str, style: str, state: Mapping[str, Any]) -> str:
    """A page of its own: `module` has `render`, and `still`, a model without a kernel."""
    address = {"address": True}  # the setting stands in the address of the page
    fill = {"TITLE": title, "STYLE": style, "SCRIPT": module, "STATE": _json({**state, **address})}
    return _filled("page.html", fill)


def alive(module: str, style: str, state: Mapping[str, Any], still: str) -> str:
    """The same as part of a page, as small as it gets: HTML that stands `still`, and does for ever
    where no script may run, until the script has woken up.
    """
    text = json.dumps({"script": module, "style": style}).encode()
    packed = base64.b64encode(gzip.compress(text, mtime=0)).decode()
    fill = {"STILL": still, "PACKED": packed, "STATE": _json(state)}
    return _filled("alive.html", fill)


def plain(values: Any, digits: int = 5) -> Any:
    """What JSON can hold: nested lists of numbers of few digits, None where they aren't finite."""
    if isinstance(values, Iterable):
        return [plain(part, digits) for part in values]
    return float(f"{values:.{digits}g}") if math.isfinite(values) else None


def _json(state: Mapping[str, Any]) -> str:
    return json.dumps(state).replace("</", "<\\/")  # nothing in it may end the script


def _filled(template: str, fill: Mapping[str, str]) -> str:
    text = (Path(__file__).parent / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: fill[found[1]], text)
