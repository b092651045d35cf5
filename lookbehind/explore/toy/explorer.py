"""The toy explorer: sliders for k, ρ and α, and the paths that every method takes on a 2D loss.

The kernel computes an atlas (`lookbehind.explore.atlas`) and sends it to the page sheet by sheet;
the page (`explorer.js`) looks positions up and draws them. A move of k, ρ, α or the number of
steps needs no kernel.
"""

import base64
import json
import threading
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from lookbehind.explore.shared.page import script
from lookbehind.explore.shared.palette import METHOD_COLORS, ROLE_COLORS
from lookbehind.explore.toy.atlas import (
    ALPHA,
    RHO,
    STEPS,
    K,
    Setting,
    Sheet,
    compute_sheet,
    sheet_ks,
)
from lookbehind.explore.toy.scene import ground_around, heights
from lookbehind.files import written_whole
from lookbehind.optim import METHODS
from lookbehind.toy import LOSSES, Loss, ToyLoss

HERE = Path(__file__).parent
SCRIPT = script(HERE / "explorer.js")
GRID = 241  # values of the loss along each side of the ground that the page holds
PANELS = ("map", "lens", "curves")
LR = [round(0.005 * i, 3) for i in range(1, 61)]
MOMENTUM = [round(0.05 * i, 2) for i in range(20)]

SLIDERS: dict[str, Any] = {
    "k": K,
    "rho": RHO,
    "alpha": ALPHA,
    "steps": range(1, STEPS + 1),
    "t": range(STEPS),
}

POSITION = ("k", "rho", "alpha", "adaptive", "steps", "t", "lens", "methods")
SETTING = ("loss", "start", "lr", "momentum")
PAGE = ("losses", "panels", "scene", "error")
OWN = "your loss"

FIXED = {
    "shape": [GRID, GRID],
    "colors": METHOD_COLORS,
    "roles": ROLE_COLORS,
    "axes": {method: METHODS[method].sliders for method in METHOD_COLORS},
    "LR": LR,
    "MOMENTUM": MOMENTUM,
    "K": K,
    "RHO": RHO,
    "ALPHA": ALPHA,
    "STEPS": list(range(1, STEPS + 1)),
}


class ToyExplorer(anywidget.AnyWidget):
    """Trajectories on a 2D loss, for every position of the sliders.

    `loss` is the name of one of `toy.LOSSES`, or any function of a (…, 2) tensor, which then needs
    a `start` (x, y) and a `window` (x₀, x₁, y₀, y₁). The controls are traits, to read and to set:
    `k`, `rho`, `alpha`, `adaptive`, `steps`, `lr`, `momentum`, `start`, `methods` (those drawn),
    `lens` (the method under the microscope) and `t` (its outer step). `panels` are what is shown.

    Raises ValueError for a loss that isn't one, TraitError for a position that no slider has.
    """

    _esm = SCRIPT
    _css = HERE / "explorer.css"

    live = traitlets.Bool(True).tag(sync=True)
    loss = traitlets.Unicode().tag(sync=True)
    losses = traitlets.List(traitlets.Unicode()).tag(sync=True)
    start = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    lr = traitlets.Float(0.05, min=1e-6).tag(sync=True)
    momentum = traitlets.Float(0.0, min=0.0, max=0.99).tag(sync=True)
    k = traitlets.Int(5).tag(sync=True)
    rho = traitlets.Float(0.1).tag(sync=True)
    alpha = traitlets.Float(0.2).tag(sync=True)
    adaptive = traitlets.Bool(False).tag(sync=True)
    steps = traitlets.Int(STEPS).tag(sync=True)
    t = traitlets.Int(0).tag(sync=True)
    lens = traitlets.Enum(list(METHOD_COLORS), "Lookbehind-SAM").tag(sync=True)
    methods = traitlets.List(traitlets.Enum(list(METHOD_COLORS))).tag(sync=True)
    panels = traitlets.List(traitlets.Enum(PANELS), list(PANELS)).tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    surface = traitlets.Bytes().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    arrived = traitlets.Int(0)  # how often all that the sliders show was computed

    def __init__(
        self,
        loss: str | Loss = "valley",
        *,
        start: tuple[float, float] | None = None,
        window: tuple[float, float, float, float] | None = None,
        **settings: Any,
    ) -> None:
        own = {} if isinstance(loss, str) else {OWN: _own(loss, start, window)}
        self._losses = own | LOSSES
        toy = self._toy(OWN if own else loss)
        self._sheets: dict[tuple[str, int], Sheet] = {}
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._watched = False  # by a page: without one, nothing is computed
        defaults: dict[str, Any] = {"methods": ["SGD", "SAM", "Lookbehind-SAM"], "lr": toy.lr}
        chosen = defaults | settings | {"start": list(start or toy.start)}
        super().__init__(loss=OWN if own else loss, losses=list(self._losses), **chosen)
        self._defaults = {name: getattr(self, name) for name in (*POSITION, *SETTING)}
        self._setting = self._current()
        self._draw_scene()
        self.observe(self._new_loss, "loss")
        self.observe(self._new_setting, ["start", "lr", "momentum"])
        self.observe(self._compute, ["k", "methods", "lens"])
        self.on_msg(self._ready)

    @traitlets.validate(*SLIDERS)
    def _on_slider(self, proposal: Any) -> Any:
        values = SLIDERS[proposal.trait.name]
        if proposal.value not in values:
            raise traitlets.TraitError(
                f"{proposal.trait.name} must be one of {list(values)}, got {proposal.value!r}"
            )
        return proposal.value

    def _toy(self, name: Any) -> ToyLoss:
        if name not in self._losses:
            raise ValueError(f"loss must be a function or one of {list(LOSSES)}, got {name!r}")
        return self._losses[name]

    @property
    def toy(self) -> ToyLoss:
        """The loss that is shown."""
        return self._toy(self.loss)

    def path(self, method: str) -> NDArray[np.float32] | None:
        """x, y, loss and sharpness after 0 … `steps` outer steps where the sliders stand, (·, 4).

        Shorter where the method diverges. None while it is being computed for a page.
        """
        axes, page = METHODS[method].sliders, (method, sheet_ks(method, self.k)[0])
        with self._lock:
            sheet, setting = self._sheets.get(page), self._setting
        if sheet is None and self._watched:
            return None
        if sheet is None:
            sheet = compute_sheet(setting, *page)
            with self._lock:
                self._sheets[page] = sheet
        r = RHO.index(self.rho) if "rho" in axes else 0
        a = ALPHA.index(self.alpha) if "alpha" in axes else 0
        points = sheet.points[r, len(ALPHA) if "adaptive" in axes and self.adaptive else a]
        points = points[: self.steps + 1]
        return points[~np.isnan(points[:, 0])]

    def _draw_scene(self) -> None:
        """What the page needs to know of the loss: a grid of its values, its minima, its window."""
        toy = self._toy(self.loss)
        ground = ground_around(toy.window)
        self.scene = FIXED | {
            "window": toy.window,
            "ground": ground,
            "minima": toy.minima,
            "lesson": toy.lesson,
            "defaults": self._defaults,
        }
        self.surface = heights(toy, ground, GRID).astype(np.float32).tobytes()

    def _new_loss(self, _: Any) -> None:
        toy = self._toy(self.loss)
        with self.hold_sync(), self.hold_trait_notifications():
            self.start, self.lr = list(toy.start), toy.lr
            self._draw_scene()
        self._new_setting()

    def _new_setting(self, _: Any = None) -> None:
        with self._lock:
            self._setting = self._current()
            self._sheets.clear()
        self._compute()

    def _current(self) -> Setting:
        x, y = self.start
        return Setting(self._toy(self.loss), (x, y), self.lr, self.momentum)

    def _ready(self, *_: Any) -> None:
        """A page asks for the atlas: send what there is, and compute the rest."""
        self._watched = True
        with self._lock:
            setting, done = self._setting, list(self._sheets.values())
        for sheet in done:
            self._post(setting, sheet)
        self._compute()

    def _compute(self, _: Any = None) -> None:
        with self._lock:
            if self._watched and self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True)
                self._worker.start()

    def _work(self) -> None:
        """Compute sheet after sheet, and send each, until none that the page wants is missing."""
        while todo := self._next():
            setting, method, k = todo
            try:
                sheet = compute_sheet(setting, method, k)
            except Exception as error:  # a loss of the user's own may do anything
                self._worker = None
                self.error = f"{type(error).__name__}: {error}"
                return
            with self._lock:
                if setting is not self._setting:
                    continue
                missing = [page for page in self._shown() if page not in self._sheets]
                self._sheets[method, k] = sheet
            self._post(setting, sheet)
            if missing == [(method, k)]:
                self.arrived += 1

    def _wanted(self) -> list[str]:
        lens = [self.lens] if "lens" in self.panels else []
        return list(dict.fromkeys([*self.methods, *lens]))

    def _shown(self) -> list[tuple[str, int]]:
        return [(method, sheet_ks(method, self.k)[0]) for method in self._wanted()]

    def _next(self) -> tuple[Setting, str, int] | None:
        """The missing sheet that is wanted most: first what the sliders show, then the rest."""
        rest = [(method, k) for method in self._wanted() for k in sheet_ks(method, self.k)]
        with self._lock:
            for page in [*self._shown(), *rest]:
                if page not in self._sheets:
                    return self._setting, *page
            self._worker = None
            return None

    def _post(self, setting: Setting, sheet: Sheet) -> None:
        header, data = sheet.message()
        self.send(header | {"setting": setting.key()}, [data])

    def save_html(self, path: str | Path) -> None:
        """Write one HTML page that needs no kernel and no network: k, ρ, α and the steps stay live.

        It holds the whole atlas of the methods shown (some 13 MB each for the Lookbehind methods).
        """
        pages = [(method, k) for method in self._wanted() for k in sheet_ks(method, self.k)]
        sheets = [compute_sheet(self._setting, method, k) for method, k in pages]
        state = {name: getattr(self, name) for name in (*POSITION, *SETTING, *PAGE)}
        packed = [[header, _base64(data)] for header, data in (s.message() for s in sheets)]
        page = (HERE / "page.html").read_text(encoding="utf-8")
        fill = {
            "STYLE": (HERE / "explorer.css").read_text(encoding="utf-8"),
            "SCRIPT": _base64(SCRIPT.encode()),
            "STATE": json.dumps(state | {"live": False}),
            "SURFACE": _base64(self.surface),
            "SETTING": json.dumps(self._setting.key()),
            "SHEETS": json.dumps(packed),
        }
        for name, text in fill.items():
            page = page.replace(f"{{{{{name}}}}}", text)
        with written_whole(path) as file:
            file.write(page.encode())


def _own(loss: Any, start: Any, window: Any) -> ToyLoss:
    """A user's function as a `ToyLoss`."""
    if not callable(loss):
        raise ValueError(f"loss must be a function or one of {list(LOSSES)}, got {loss!r}")
    if isinstance(loss, ToyLoss):
        return loss
    if start is None or window is None:
        raise ValueError("a loss of your own needs start=(x, y) and window=(x0, x1, y0, y1)")
    if not (len(window) == 4 and window[0] < window[1] and window[2] < window[3]):
        raise ValueError(f"window must be (x0, x1, y0, y1) with x0 < x1, y0 < y1, got {window!r}")
    lesson = (loss.__doc__ or "").strip().split("\n")[0]
    return ToyLoss(OWN, "", loss, tuple(start), (), tuple(window), lesson)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
