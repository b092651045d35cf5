"""An explorer that is one page: alive in a notebook, alive without a kernel, and a picture."""

from html import escape
from pathlib import Path
from typing import Any

import anywidget

from lookbehind.explore.shared.page import alive, page
from lookbehind.files import written_whole

HERE = Path(__file__).parent
MOST = 250_000  # characters of a living output: a notebook stays small


def style(own: Path) -> str:
    """What all explorers look like, and a page's own rules."""
    return "".join(path.read_text(encoding="utf-8") for path in (HERE / "kit.css", own))


class Living(anywidget.AnyWidget):
    """A widget whose page computes by itself; its module exports `still` beside `render`.

    A class of it says what the page's `title` is, and what stands for it where no page may run: a
    PNG in base64 and words (`_picture`). The page gets all traits that the class has of its own.
    """

    title = ""

    def _state(self) -> dict[str, Any]:
        own = set(self.trait_names(sync=True)) - set(Living.class_trait_names())
        return {name: getattr(self, name) for name in sorted(own) if not name.startswith("_")}

    def _picture(self) -> tuple[str, str]:
        raise NotImplementedError

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The living widget; the same alive without a kernel; and a picture, for all others."""
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        picture, words = self._picture()
        data |= {"text/plain": words}
        if not picture:
            return data, metadata
        still = f'<img alt="{escape(words)}" src="data:image/png;base64,{picture}">'
        html = alive(str(self._esm), str(self._css), self._state(), still)
        data |= {"image/png": picture} | ({"text/html": html} if len(html) <= MOST else {})
        return data, metadata | {"image/png": {"alt": words}}

    def save_html(self, path: str | Path) -> None:
        """Write one HTML page that needs no kernel and no network."""
        text = page(self.title, str(self._esm), str(self._css), self._state())
        with written_whole(path) as file:
            file.write(text.encode())
