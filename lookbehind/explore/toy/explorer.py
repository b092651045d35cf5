"""The toy explorer: a page that computes the paths of every method on a 2D loss by itself.

The page (`explorer.js` and what it imports) holds the losses as JavaScript and the algorithm in
`engine.js`; the kernel hears where the controls stand, and sets them. Only of a loss that is a
Python function it computes what is drawn.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from numpy.typing import NDArray
from torch.optim import SGD

from lookbehind.explore.shared.page import plain, script, style
from lookbehind.explore.shared.palette import METHOD_COLORS, PALETTES
from lookbehind.explore.shared.pictures import Sheet, contour, grid
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import LOSSES, Loss, ToyLoss, Trajectory, descend, hessian_eigenvalues

HERE = Path(__file__).parent
PANELS = ("map", "lens", "curves")
OWN = "your loss"
PARTS = ("name", "expression", "start", "window", "minima", "lesson", "lr", "noise")  # of a loss
# The lowest and the highest value of each number.
LIMITS: dict[str, tuple[float, float]] = {
    "k": (1, 10), "rho": (0.0, 1.0), "alpha": (0.0, 1.0), "steps": (1, 100), "t": (0, 99),
    "lr": (0.0, 1.0), "momentum": (0.0, 0.99),
}  # fmt: skip
GRID = 61  # values of the loss along each side of the ground that a page gets
MARGIN = 0.75  # of that ground around the window, in windows: the lens may look out of it
FAR = 1e6  # of the weights: a path is followed to here


def _given(toy: Any) -> dict[str, Any]:
    """What the page needs to know of a loss; without "javascript", the kernel computes it."""
    return {name: getattr(toy, name) for name in ("javascript", *PARTS)}


SETUP = {
    "losses": [_given(toy) for toy in LOSSES.values()],
    "methods": list(METHOD_COLORS),
    "axes": {method: METHODS[method].sliders for method in METHOD_COLORS},
    "limits": LIMITS,
    "palettes": PALETTES,
}


class ToyExplorer(Sheet):
    """The paths of the methods on a 2D loss, with every control under the hand.

    `loss` is the name of one of `toy.LOSSES`, an expression in x and y ("(x**2 - 1)**2 + 3*y**2"),
    or any function of a (…, 2) tensor; the last two need a `start` (x, y) and a `window`
    (x₀, x₁, y₀, y₁). The page computes an expression by itself; a function it asks the kernel for,
    and in a page of `save_html` it is drawn as it stands.

    The controls are traits, to read and to set: `k`, `rho`, `alpha`, `adaptive`, `steps`, `lr`,
    `momentum`, `start`, `methods` (those drawn), `lens` (the method under the microscope) and `t`
    (its outer step). `panels` are what is shown.

    Raises ValueError for a loss that isn't one, TraitError for a number outside its `LIMITS`.
    """

    title = "Lookbehind-SAM on a toy loss"
    SIZE = (5.2, 4)
    _esm = script(HERE / "explorer.js", SETUP=SETUP)
    _css = style(HERE / "explorer.css")

    loss = traitlets.Unicode().tag(sync=True)
    start = traitlets.List(traitlets.Float(), minlen=2, maxlen=2).tag(sync=True)
    lr = traitlets.Float(0.05).tag(sync=True)
    momentum = traitlets.Float(0.0).tag(sync=True)
    k = traitlets.Int(5).tag(sync=True)
    rho = traitlets.Float(0.1).tag(sync=True)
    alpha = traitlets.Float(0.2).tag(sync=True)
    adaptive = traitlets.Bool(False).tag(sync=True)
    steps = traitlets.Int(40).tag(sync=True)
    t = traitlets.Int(0).tag(sync=True)
    lens = traitlets.Enum(list(METHOD_COLORS), "Lookbehind-SAM").tag(sync=True)
    methods = traitlets.List(traitlets.Enum(list(METHOD_COLORS))).tag(sync=True)
    panels = traitlets.List(traitlets.Enum(PANELS), list(PANELS)).tag(sync=True)
    own = traitlets.Dict().tag(sync=True)
    drawn = traitlets.Dict().tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, loss: str | Loss = "valley", *, start: tuple[float, float] | None = None,
        window: tuple[float, float, float, float] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        known = isinstance(loss, str) and loss in LOSSES
        toy = LOSSES[str(loss)] if known else _own(loss, start, window)
        self._losses: dict[str, Any] = LOSSES | {toy.name: toy}
        own = {} if known else {"own": _given(toy)}
        chosen: Any = {"methods": ["SGD", "SAM", "Lookbehind-SAM"], "lr": toy.lr, **own, **settings}
        super().__init__(loss=toy.name, start=list(start or toy.start), **chosen)
        self.observe(self._new_loss, "loss")
        self.observe(self._draw, [*LIMITS, "adaptive", "lens", "methods", "loss", "start"])
        self._draw()

    @traitlets.validate(*LIMITS)
    def _within(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise traitlets.TraitError(f"{name} must be from {low} to {high}, got {value!r}")
        return value

    @traitlets.validate("loss")
    def _known(self, proposal: Any) -> Any:
        if proposal.value not in self._losses:
            names = list(self._losses)
            raise traitlets.TraitError(f"loss must be one of {names}, got {proposal.value!r}")
        return proposal.value

    @property
    def toy(self) -> Any:
        """The loss that is shown."""
        return self._losses[self.loss]

    def path(self, method: str) -> NDArray[np.float64]:
        """x, y, loss and sharpness after 0 … `steps` steps, (·, 4); shorter where it diverges."""
        run = self._run(method)
        return np.column_stack([run[name] for name in ("slow", "losses", "sharp")])

    def _new_loss(self, _: Any) -> None:
        with self.hold_sync():
            self.start, self.lr = list(self.toy.start), self.toy.lr

    def _draw(self, _: Any = None) -> None:
        """For a loss that is a Python function: its paths for the setting that is shown."""
        if self.toy.javascript:
            self.error = ""
            return
        try:
            methods = dict.fromkeys([*self.methods, self.lens])
            grid = self.drawn.get("grid") or _ground(self.toy)
            found, error = {"grid": grid, "paths": {m: self._run(m) for m in methods}}, ""
        except Exception as failure:  # a function of the user's own may do anything
            found, error = {}, f"{type(failure).__name__}: {failure}"
        with self.hold_sync():
            self.drawn, self.error = found, error

    def _run(self, method: str) -> dict[str, Any]:
        """What `engine.js` would return; kept where the last move of a control didn't change it."""
        moved = (*METHODS[method].sliders, "lr", "momentum", "steps", "start")
        setting = {name: getattr(self, name) for name in moved}
        kept = self.drawn.get("paths", {}).get(method, {})
        if kept.get("setting") == setting:
            return kept
        rho, alpha = (torch.tensor([v], dtype=torch.float64) for v in (self.rho, self.alpha))
        adaptive = self.adaptive and METHODS[method].adaptive
        chosen: Any = {"rho": rho, "k": self.k, "alpha": "adaptive" if adaptive else alpha}

        def make(w: Any) -> Any:
            return make_method(method, SGD(w, lr=self.lr, momentum=self.momentum), **chosen)

        run = descend(self.toy, [self.start], make, self.steps)  # a member may diverge
        n = _length(run)
        parts = ("ascent", "fast", "gradients")
        found = {name: getattr(run, name)[: n - 1, :, 0] for name in parts}
        found |= {"slow": run.slow[:n, 0], "losses": run.losses[:n, 0]}
        found["sharp"] = hessian_eigenvalues(self.toy, found["slow"])[:, 1]
        numbers = {name: np.nan_to_num(array).tolist() for name, array in found.items()}
        return {"setting": setting, **numbers, "alpha": plain(run.alpha[: n - 1, 0], 17)}

    def _figure(self, figure: Any) -> str:
        if self.error:
            return f"The loss {self.loss} can't be drawn: {self.error}"
        ax, ends = contour(self.toy, figure.subplots()), []
        for method in self.methods:
            way, color = self.path(method)[:, :2], METHOD_COLORS[method]
            ax.plot(*way.T, ".-", color=color, markersize=3, linewidth=1.2, label=method)
            ax.plot(*way[-1], "o", color=color, markeredgecolor="white")
            ax.plot(*way[0], "o", color="none", markeredgecolor="black")
            ends.append(f"{method} is at ({way[-1, 0]:.2f}, {way[-1, 1]:.2f})")
        if ends:
            ax.legend(fontsize="small")
        return f"Map of the loss {self.loss}. After {self.steps} outer steps: {', '.join(ends)}."


def _length(run: Trajectory) -> int:
    """How many points come before a path diverges: is far out, or a step was undone."""
    slow = run.slow[:, 0]
    good = np.abs(np.nan_to_num(slow, nan=np.inf)).max(-1) < FAR
    if run.diverged.any():
        good[1:] &= (slow[1:] != slow[:-1]).any(-1)
    return len(good) if good.all() else int(np.argmin(good))


def _ground(toy: Any) -> dict[str, Any]:
    """The loss on a grid around its window; where it isn't finite, the highest it is."""
    x0, x1, y0, y1 = toy.window
    u, v = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    window = [x0 - u, x1 + u, y0 - v, y1 + v]
    _, _, values = grid(toy, window, GRID)
    defined = values[np.isfinite(values)]
    if not len(defined):
        raise ValueError(f"loss must be finite somewhere in the window {tuple(window)}")
    low, high = defined.min(), defined.max()
    filled = np.nan_to_num(values, nan=high, posinf=high, neginf=low)
    return {"values": plain(filled.ravel()), "n": GRID, "window": window}


class _Function:
    """A user's `function` with what the page needs of a `ToyLoss`; it has no formula."""

    name, expression, javascript = OWN, "", ""
    minima, lr, noise = (), 0.05, 0.0

    def __init__(self, function: Loss, start: Any, window: Any) -> None:
        self.function, self.start, self.window = function, start, window
        self.lesson = (function.__doc__ or "").strip().split("\n")[0]

    def __call__(self, w: Any) -> Any:
        return self.function(w)


def _own(loss: Any, start: Any, window: Any) -> Any:
    """A user's expression or function, with its start and window."""
    if isinstance(loss, ToyLoss):
        return loss
    try:
        kind: Any = _Function if callable(loss) else partial(ToyLoss, OWN, minima=(), lesson="")
        toy = kind(loss, start=start, window=window)
    except ValueError as error:
        raise ValueError(f"loss must be one of {list(LOSSES)}, a function, or: {error}") from None
    if start is None or window is None:
        raise ValueError("a loss of your own needs start=(x, y) and window=(x0, x1, y0, y1)")
    if not (len(window) == 4 and window[0] < window[1] and window[2] < window[3]):
        raise ValueError(f"window must be (x0, x1, y0, y1) with x0 < x1, y0 < y1, got {window!r}")
    return toy
