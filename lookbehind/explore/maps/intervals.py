"""Methods at levels of noise, or budgets: dots with intervals, and how far each is ahead of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module
from lookbehind.explore.shared.page import plain


class Intervals(Sheet):
    """Accuracies of methods: mean ± sample standard deviation over seeds, and each of the seeds.

    `tables` gives for each kind of noise the accuracies by the name of the method, arrays of shape
    (seeds, levels), as shares; `levels` the levels of each kind. On the right each method minus
    `other`, seed by seed, in points. The traits `kind`, `at` (the place of the level) and `other`
    are what the controls move. `words` say what kinds and levels are where they aren't of noise.

    Raises ValueError where a shape or a name doesn't fit.
    """

    _esm = module("intervals.js")
    title = "Accuracies, seed by seed"

    tables = traitlets.Dict().tag(sync=True)
    words = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    kind = traitlets.Unicode().tag(sync=True)
    at = traitlets.Int().tag(sync=True)
    other = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        tables: Mapping[str, Mapping[str, Any]],
        levels: Mapping[str, Sequence[float]],
        *,
        other: str,
        at: int = 0,
        words: tuple[str, str] = ("noise", "level"),
    ) -> None:
        names: list[str] = [*next(iter(tables.values()))]
        packed = {}
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
        from lookbehind.explore.shared import pictures

        table = self.tables[self.kind]
        found = 100 * np.array(table["values"])[..., self.at]
        ahead = found - found[self.names.index(self.other)]
        shown = {"test accuracy, %": found, f"points ahead of {self.other}": ahead}
        for ax, (label, values) in zip(
            figure.subplots(1, 2, sharey=True), shown.items(), strict=True
        ):
            pictures.dots(dict(zip(self.names, values, strict=True)), ax).set(xlabel=label)
        some = ", ".join(f"{n} {v.mean():.1f} %" for n, v in zip(self.names, found, strict=True))
        of, level = self.words
        return f"Test accuracy, {of} {self.kind}, {level} {table['levels'][self.at]}: {some}."
