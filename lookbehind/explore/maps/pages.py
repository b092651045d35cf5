"""Pages over the results of studies, and of one thought: a shifted loss, one step of R ranks."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.shared import pictures
from lookbehind.explore.shared.page import plain, script
from lookbehind.explore.shared.palette import PALETTES, color_of

HERE = Path(__file__).parent
Lists = Mapping[str, Sequence[Any]]
KEPT = ("name", "budget", "label_noise", "test", "average_rise", "loss", "rise")  # of a run
FIRST = {"label_noise": 0.4, "lr": 0.1, "k": 5, "rho": 0.05, "alpha": 0.2}  # of the atlas
LISTED: dict[str, list[float]] = {
    "shift": [round(n / 50, 2) for n in range(-30, 31)],
    "sharpness": [1, 2, 4, 8, 16, 32],
    "lead": [0.0, 0.05, 0.1, 0.2, 0.4],
}
MINIMA = {"sharp": -1.0, "flat": 1.0}
HARDNESS = 20  # of the minimum of the two parabolas: smooth between them
CHOICES = {"shares": ["equal", "growing", "half in rank 0"], "mean": ["weighted", "plain"],
           "climb": ["global", "local"]}  # fmt: skip
IMAGES = np.random.default_rng(176).normal((0.7, 0.2), 1.3, size=(24, 2)).round(2)


class HeatMaps(pictures.Sheet):
    """A map for each of `values`: in a cell the mean over `seeds`, in words its std as well.

    `axes` names three settings and gives their values; each of `values` is an array of shape
    (values of the first, of the second, of the third, 2), the last two the mean over that many
    seeds and the sample standard deviation, called "sharpness" or, with a unit, "accuracy (%)".
    Two menus choose the traits `span` (the settings down and across), a number the place of the
    third in its list (`at`). A star marks the highest mean of the first of `values`.

    Raises ValueError where a shape doesn't fit.
    """

    _esm = script(HERE / "heatmaps.js", PALETTES=PALETTES)
    title = "Heat maps of a sweep"

    maps = traitlets.List(traitlets.Dict()).tag(sync=True)
    axes = traitlets.List(traitlets.List()).tag(sync=True)
    seeds = traitlets.Int().tag(sync=True)
    span = traitlets.List(traitlets.Unicode()).tag(sync=True)
    at = traitlets.Int().tag(sync=True)

    def __init__(self, values: Mapping[str, Any], axes: Lists, *, seeds: int) -> None:
        shape, maps = (*map(len, axes.values()), 2), list[dict[str, Any]]()
        for name, array in values.items():
            if len(shape) != 4 or np.shape(array) != shape:
                raise ValueError(
                    f"values must have shape {shape} for the axes {[*axes]}, three of them; got "
                    f"{np.shape(array)} for {name!r}"
                )
            mean, spread = plain(np.moveaxis(array, 3, 0), 4)
            maps.append({"name": name, "mean": mean, "spread": spread})
        listed = [[name, [*map(str, some)]] for name, some in axes.items()]
        super().__init__(maps=maps, axes=listed, seeds=seeds, span=[*axes][:2], at=shape[2] // 2)

    def shown(self) -> list[np.ndarray]:
        """The means in the cells of each map, (values of the one down, of the one across)."""
        names = [name for name, _ in self.axes]
        order = sorted(range(3), key=lambda n: [*self.span, names[n]].index(names[n]))
        return [np.array(m["mean"], float).transpose(order)[..., self.at] for m in self.maps]

    def _figure(self, figure: Any) -> str:
        found, values, (down, across) = self.shown(), dict(self.axes), self.span
        (third,) = {*values} - {*self.span}
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for ax, one, mean in zip(panels, self.maps, found, strict=True):
            limits = float(np.nanmin(mean)), float(np.nanmax(mean))
            pictures.matrix(mean, values[down], values[across], ax, limits)
            ax.set(title=one["name"], ylabel=down, xlabel=across)
        i, j = np.unravel_index(np.nanargmax(found[0]), found[0].shape)
        return (
            f"Maps over {down} × {across} at {third} = {values[third][self.at]}. The highest "
            f"{self.maps[0]['name']} there is {found[0][i, j]:.3g}, at {down} = {values[down][i]}, "
            f"{across} = {values[across][j]}."
        )


class Intervals(pictures.Sheet):
    """Accuracies of methods: mean ± sample standard deviation over seeds, and each of the seeds.

    `tables` gives for each kind of noise the accuracies by the name of the method, arrays of shape
    (seeds, levels), as shares; `levels` the levels of each kind. On the right each method minus
    `other`, seed by seed, in points. The controls move the traits `kind`, `at` (the place of the
    level) and `other`. `words` say what kinds and levels are where they aren't of noise.

    Raises ValueError where a shape or a name doesn't fit.
    """

    _esm = script(HERE / "intervals.js", PALETTES=PALETTES)
    title = "Accuracies, seed by seed"

    tables = traitlets.Dict().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    kind = traitlets.Unicode().tag(sync=True)
    at = traitlets.Int().tag(sync=True)
    other = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, tables: Mapping[str, Mapping[str, Any]], levels: Lists, *,
        other: str, at: int = 0, words: tuple[str, str] = ("noise", "level"),
    ) -> None:  # fmt: skip
        names, packed = [*next(iter(tables.values()))], {}
        for kind, table in tables.items():
            texts = [f"{level:g}" for level in levels[kind]]
            shapes = {np.shape(array)[1:] for array in table.values()}
            if [*table] != names or other not in names or shapes != {(len(texts),)}:
                raise ValueError(
                    f"tables must hold (seeds, {len(texts)}) for each of {names}, {other!r} among "
                    f"them; got {shapes} for {[*table]} under {kind!r}"
                )
            packed[kind] = {"levels": texts, "values": plain([*table.values()], 4)}
        state = {"words": [*words], "names": names, "kind": next(iter(tables))}
        super().__init__(tables=packed, at=at, other=other, **state)

    def _figure(self, figure: Any) -> str:
        table, left_right = self.tables[self.kind], figure.subplots(1, 2, sharey=True)
        found = 100 * np.array(table["values"])[..., self.at]
        ahead = found - found[self.names.index(self.other)]
        shown = {"test accuracy, %": found, f"points ahead of {self.other}": ahead}
        for ax, (label, values) in zip(left_right, shown.items(), strict=True):
            pictures.dots(dict(zip(self.names, values, strict=True)), ax).set(xlabel=label)
        some = ", ".join(f"{n} {v.mean():.1f} %" for n, v in zip(self.names, found, strict=True))
        of, level = self.words
        return f"Test accuracy, {of} {self.kind}, {level} {table['levels'][self.at]}: {some}."


class TaskMatrices(pictures.Sheet):
    """Accuracy matrices R of methods, side by side: R[i, j] on task j after task i was learned.

    `rows` are those of a study: mappings with a `name`, a `sequence`, a `memory` in images, and the
    `accuracy`, R of each seed, (seeds, T, T). Two menus choose the traits `sequence` and `memory`,
    `learned` is how many tasks have been. In a cell stands the mean over the seeds; in words, ±
    their sample standard deviation, the average accuracy and forgetting of
    `lookbehind.study.lifelong`, both of the tasks learned so far.

    Raises ValueError where a shape doesn't fit, or a sequence and a memory have no row.
    """

    _esm = script(HERE / "tasks.js", PALETTES=PALETTES)
    title = "Accuracy while tasks arrive"

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    sequence = traitlets.Unicode().tag(sync=True)
    memory = traitlets.Int().tag(sync=True)
    learned = traitlets.Int().tag(sync=True)

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        kept = [{n: row[n] for n in ("name", "sequence", "memory", "accuracy")} for row in rows]
        if not kept:
            raise ValueError("rows must hold a row at least, got none")
        for place in product(*({row[name] for row in kept} for name in ("sequence", "memory"))):
            found = {np.shape(row["accuracy"])[1:] for row in _at(place, kept)}
            if len(found) != 1 or not all(len(s) == 2 and s[0] == s[1] > 0 for s in found):
                raise ValueError(f"rows must hold (seeds, T, T) for {place}, got {found}")
        first = {name: kept[0][name] for name in ("sequence", "memory")}
        super().__init__(rows=kept, learned=len(kept[0]["accuracy"][0]), **first)

    def shown(self) -> dict[str, Any]:
        """The mean R of each method, NaN below the tasks learned so far."""
        rows = _at((self.sequence, self.memory), self.rows)
        means = {row["name"]: np.mean(row["accuracy"], 0) for row in rows}
        for R in means.values():
            R[self.learned :] = np.nan
        return means

    def _figure(self, figure: Any) -> str:
        found, last = self.shown(), self.learned - 1
        for ax, (name, R) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
            numbers = [str(task + 1) for task in range(len(R))]
            pictures.matrix(R, numbers, numbers, ax).set(title=name, xlabel="accuracy on task")
        figure.axes[0].set_ylabel("after task")
        some = (f"{name} {R[last, : last + 1].mean():.0%}" for name, R in found.items())
        told = f"{self.sequence}, {self.memory} images remembered"
        return f"{told}: after task {last + 1}, on the tasks learned so far, {', '.join(some)}."


def _at(place: tuple[str, int], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["sequence"], row["memory"]) == place]


class TradeOff(pictures.Sheet):
    """Stored runs: average rise in nats against test accuracy, and a line through one of them.

    `path` is a file of notebooks/results/lines.py, which says what it holds. The traits
    `label_noise` and `budget`, one of those in it, are what the menus move.
    """

    _esm = script(HERE / "tradeoff.js", PALETTES=PALETTES)
    title = "Flatness against accuracy"

    study = traitlets.Dict().tag(sync=True)
    label_noise = traitlets.Float(0.4).tag(sync=True)
    budget = traitlets.Unicode("equal steps").tag(sync=True)

    def __init__(self, path: str | Path) -> None:
        study = json.loads(Path(path).read_text(encoding="utf-8"))
        runs = [{name: run[name] for name in KEPT} for run in study["runs"]]
        super().__init__(study={"runs": runs, **{n: study[n] for n in ("at", "seeds", "sigma")}})

    def shown(self) -> list[dict[str, Any]]:
        """The runs of this budget and these labels, a row a method."""
        chosen = self.label_noise, self.budget
        return [r for r in self.study["runs"] if (r["label_noise"], r["budget"]) == chosen]

    def _figure(self, figure: Any) -> str:
        (left, right), told = figure.subplots(1, 2), []
        for run in self.shown():
            name, x, y = run["name"], run["average_rise"], 100 * np.array(run["test"])
            color = color_of(name)
            left.plot(x, y, "o", color=color, alpha=0.4, markersize=4)
            left.plot(np.mean(x), y.mean(), "o", color=color, markersize=9)
            look = {"color": color, "ls": "--" if name.endswith("k 5") else "-"}
            right.plot(self.study["at"], np.mean(run["rise"], 0), label=name, **look)
            told.append(f"{name} {np.mean(x):.3f} nats and {y.mean():.1f}%")
        left.set(xlabel="average rise, nats", ylabel="test accuracy, %")
        right.set(xlabel="distance, in lengths of the weights", ylabel="rise of the loss, nats")
        right.legend(fontsize=8)
        labels = f"{self.label_noise:.0%} wrong labels" if self.label_noise else "clean labels"
        means = ", ".join(told)
        return f"Average rise and test accuracy, {labels}, {self.budget}, means: {means}."


class TrainingAtlas(pictures.Sheet):
    """Curves, accuracy, sharpness and robustness of stored runs, under three numbers and two menus.

    `path` is a file of notebooks/results/atlas.py, which says what it holds. `setting` are values
    of its axes (label_noise, lr, k, rho, alpha); the trait of that name follows the controls.

    Raises ValueError for a value that was not stored.
    """

    _esm = script(HERE / "atlas.js", PALETTES=PALETTES)
    title = "The training atlas"

    atlas = traitlets.Dict().tag(sync=True)
    setting = traitlets.Dict().tag(sync=True)

    def __init__(self, path: str | Path, **setting: Any) -> None:
        atlas = json.loads(Path(path).read_text(encoding="utf-8"))
        axes, chosen = atlas["axes"], FIRST | setting
        for name, value in chosen.items():
            if value not in axes.get(name, ()):
                raise ValueError(f"setting must hold values of {axes}, got {name}={value!r}")
        super().__init__(atlas=atlas, setting={name: chosen[name] for name in axes})

    @property
    def row(self) -> dict[str, Any]:
        """What is stored of the setting."""
        settings = [*product(*self.atlas["axes"].values())]
        return self.atlas["runs"][settings.index((*self.setting.values(),))]

    def _figure(self, figure: Any) -> str:
        accuracy, ax = self.row.get("accuracy", [0.0]), figure.subplots()
        ax.plot(range(1, len(accuracy) + 1), accuracy, ".-", color=color_of("Lookbehind-SAM"))
        ax.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
        at = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        return f"Training of Lookbehind-SAM with {at}: test accuracy {accuracy[-1]} % at the end."


class ShiftedLoss(pictures.Sheet):
    """A loss of one weight with a sharp and a flat minimum, and the same loss moved sideways.

    The training loss is nearly the lower of two parabolas, `sharpness` · (φ + 1)² / 2 and
    (φ − 1)² / 2 + `lead`; the test loss is L(φ − `shift`). The traits are values of `LISTED`:
    TraitError for another.
    """

    _esm = script(HERE / "shift.js", PALETTES=PALETTES)
    title = "A shifted loss"

    listed = traitlets.Dict(LISTED).tag(sync=True)
    shift = traitlets.Enum(LISTED["shift"], 0.0).tag(sync=True)
    sharpness = traitlets.Enum(LISTED["sharpness"], 16).tag(sync=True)
    lead = traitlets.Enum(LISTED["lead"], 0.1).tag(sync=True)

    def loss(self, weight: Any, shift: float | None = None) -> Any:
        """The loss at `weight`, shifted: of the test where `shift` is None, with 0 of training."""
        at = np.asarray(weight) - (self.shift if shift is None else shift)
        parabolas = self.sharpness * (at + 1) ** 2 / 2, (at - 1) ** 2 / 2 + self.lead
        return -np.logaddexp(*(-HARDNESS * p for p in parabolas)) / HARDNESS

    def _figure(self, figure: Any) -> str:
        ax, weight = figure.subplots(), np.linspace(-2.2, 2.6, 400)
        ax.plot(weight, self.loss(weight, 0), color="black", label="training loss")
        ax.plot(weight, self.loss(weight), "--", color="black", label="test loss, shifted")
        ax.set(xlabel="weight φ", ylabel="loss", ylim=(-0.05, 2.2))
        ax.legend()
        ends = [f"{name} {abs(self.loss(place)):.2f}" for name, place in MINIMA.items()]
        return f"Test loss shifted by {self.shift}; at the minima of training: {', '.join(ends)}."


class SharedStep(pictures.Sheet):
    """One outer step of Lookbehind-SAM by R ranks, on a loss of two weights w and 24 images.

    Image i has the loss log(1 + exp(−zᵢ·w)) and belongs to one rank. `ranks` is R, `shares` how
    many images each has, `mean` whether gradients are weighted by them, `climb` by which gradient
    the first ascent goes, `slow` φ. Descents are those of SGD at `lr`.

    Raises TraitError for more than 8 ranks or 5 steps, and for what isn't in `CHOICES`.
    """

    _esm = script(HERE / "ranks.js", PALETTES=PALETTES)
    title = "What each rank sees"
    SIZE = (5.4, 4.2)

    images = traitlets.List(IMAGES.tolist()).tag(sync=True)
    choices = traitlets.Dict(CHOICES).tag(sync=True)
    lr = traitlets.Float(1.5).tag(sync=True)
    alpha = traitlets.Float(0.5).tag(sync=True)
    ranks = traitlets.Int(4, min=1, max=8).tag(sync=True)
    shares = traitlets.Enum(CHOICES["shares"], "equal").tag(sync=True)
    climb = traitlets.Enum(CHOICES["climb"], "local").tag(sync=True)
    mean = traitlets.Enum(CHOICES["mean"], "weighted").tag(sync=True)
    k = traitlets.Int(3, min=1, max=5).tag(sync=True)
    rho = traitlets.Float(0.2).tag(sync=True)
    slow = traitlets.List([0.0, 1.0]).tag(sync=True)

    def _figure(self, figure: Any) -> str:
        ax, groups = figure.subplots(), [IMAGES, *np.array_split(IMAGES, self.ranks)]
        mean, *own = gradients = [-(z.T / (1 + np.exp(z @ self.slow))).mean(1) for z in groups]
        names = ["mean", *(f"rank {r}" for r in range(self.ranks))]
        for name, g in zip(names, gradients, strict=True):
            pictures.arrow(ax, (0, 0), g, "gradient", linewidth=3.5 if name == "mean" else 1.2)
            side = {"ha": "left" if g[0] > 0 else "right", "va": "bottom" if g[1] > 0 else "top"}
            ax.annotate(name, g, **side)
        most = 1.2 * np.abs(gradients).max()
        ax.set(xlim=(-most, most), ylim=(-most, most), aspect="equal", title="gradients at φ")
        ax.set(xlabel="∂L/∂w₁", ylabel="∂L/∂w₂")
        lengths = ", ".join(f"{np.linalg.norm(g):.2f}" for g in own)
        told = f"the gradients of {self.ranks} ranks, {lengths} long"
        return f"Arrows from one origin: {told}; their mean {np.linalg.norm(mean):.2f}."
