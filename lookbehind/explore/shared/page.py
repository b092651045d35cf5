"""The explorers' pages: alive in a notebook, alive without a kernel, and what stands for them."""

import base64
import gzip
import json
import math
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import anywidget

from lookbehind.files import written_whole

HERE = Path(__file__).parent
MOST = 250_000  # characters of a living output: a notebook stays small
IMPORT = re.compile(r'^import \{[^}]*\} from "([^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def script(own: Path, **constants: Any) -> str:
    """A module and all that it imports in one piece, as a widget wants it, after the `constants`.

    Each imported module becomes a block of its own that shows what it exports, so what is private
    to one stays so; exported names are unique among them. Imports name no alias.
    """
    given = [f"const {name} = {json.dumps(value)};" for name, value in constants.items()]
    *needed, last = _modules(own.resolve(), seen=set())
    text = "\n".join([*given, *map(_block, needed), last])
    return text.encode("ascii", "backslashreplace").decode()  # half of a page's memory for it


def _modules(path: Path, seen: set[Path]) -> list[str]:
    """The texts of all that a module imports, each after what it needs itself, and its own."""
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    needed = [(path.parent / name).resolve() for name in IMPORT.findall(text)]
    before = [module for one in needed if one not in seen for module in _modules(one, seen)]
    return [*before, IMPORT.sub("", text)]


def _block(text: str) -> str:
    names = ", ".join(EXPORT.findall(text))
    return f"const {{ {names} }} = (() => {{\n{EXPORT.sub('', text)}return {{ {names} }};\n}})();"


def style(*own: Path) -> str:
    """What all explorers look like, and a page's own rules."""
    return "".join(path.read_text(encoding="utf-8") for path in (HERE / "kit.css", *own))


class Living(anywidget.AnyWidget):
    """A widget whose page computes by itself; its module exports `still` beside `render`.

    What stands for it where no page may run is a PNG in base64 and words (`_picture`). Without a
    PNG no living page is kept either, unless `in_words`. The page gets all traits that the class
    has of its own.
    """

    title = ""
    in_words = False

    def _state(self) -> dict[str, Any]:
        own = set(self.trait_names(sync=True)) - set(Living.class_trait_names())
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")}

    def _picture(self) -> tuple[str, str]:
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The living widget; the same alive without a kernel; and a picture, for all others."""
        bundle: Any = super()._repr_mimebundle_(**options)
        data, metadata = bundle
        picture, words = self._picture()
        data["text/plain"], still = words, f"<p>{escape(words)}</p>"
        if picture:
            data["image/png"], metadata["image/png"] = picture, {"alt": words}
            still = f'<img alt="{escape(words)}" src="data:image/png;base64,{picture}">'
        if picture or self.in_words:  # as part of another page, `still` until its script wakes up
            text = json.dumps({"script": str(self._esm), "style": str(self._css)}).encode()
            packed = base64.b64encode(gzip.compress(text, mtime=0)).decode()
            html = _filled("alive.html", self._state(), STILL=still, PACKED=packed)
            if len(html) <= MOST:
                data["text/html"] = html
        return data, metadata

    def save_html(self, path: str | Path) -> None:
        """Write one HTML page that needs no kernel and no network."""
        state = {**self._state(), "address": True}  # the setting stands in the page's address
        fill = {"TITLE": self.title, "STYLE": str(self._css), "SCRIPT": str(self._esm)}
        with written_whole(path) as file:
            file.write(_filled("page.html", state, **fill).encode())


def plain(values: Any, digits: int = 5) -> Any:
    """What JSON can hold: nested lists of numbers of few digits, None where they aren't finite."""
    if isinstance(values, Iterable):
        return [plain(part, digits) for part in values]
    return float(f"{values:.{digits}g}") if math.isfinite(values) else None


def _filled(template: str, state: Mapping[str, Any], **fill: str) -> str:
    fill["STATE"] = json.dumps(state).replace("</", "<\\/")  # nothing in it may end the script
    text = (HERE / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: fill[found[1]], text)
