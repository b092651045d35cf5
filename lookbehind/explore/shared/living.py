"""Explorers that need no kernel: alive in a saved notebook and as a page of their own."""

from pathlib import Path
from typing import Any

import anywidget

from lookbehind.explore.shared.page import alive, page
from lookbehind.files import written_whole

KIT = (Path(__file__).parent / "kit.css").read_text(encoding="utf-8")


class Living(anywidget.AnyWidget):
    """A widget whose page does without a kernel; its `_esm` exports `still` of `still.js`.

    A subclass says how a page of it is called (`TITLE`), which traits the page needs (`SHOWN`), and
    draws what stands where no script may run, a figure of `SIZE` in inches.
    """

    TITLE: str
    SHOWN: tuple[str, ...]
    SIZE = (9.0, 3.4)
    _css = KIT

    def _figure(self, figure: Any) -> str:
        """What is shown, onto a matplotlib figure; returns the same in words."""
        raise NotImplementedError

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.SHOWN}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The living widget; the same alive without a kernel; and a picture, for all others."""
        from matplotlib.figure import Figure  # costs a second, only where it is shown

        from lookbehind.explore.shared.pictures import small_png

        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        figure = Figure(figsize=self.SIZE, layout="constrained")
        words = self._figure(figure)
        picture = small_png(figure)
        html = alive(self._esm, self._css, self._state(), picture, words)
        data |= {"image/png": picture, "text/plain": words, "text/html": html}
        return data, metadata | {"image/png": {"alt": words}}

    def save_html(self, path: str | Path) -> None:
        """Write one HTML page that needs no kernel and no network; every control is alive in it."""
        text = page(self.TITLE, self._esm, self._css, self._state())
        with written_whole(path) as file:
            file.write(text.encode())
