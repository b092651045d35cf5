"""Heat maps of a sweep over three settings: two span the map, a number holds the third."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module
from lookbehind.explore.shared.page import plain


class HeatMaps(Sheet):
    """A map for each of `values`: in a cell the mean over seeds, in words its sample std as well.

    `axes` names three settings and gives their values; each of `values` is an array of shape
    (values of the first, of the second, of the third, seeds), called "sharpness" or, with a unit,
    "accuracy (%)". With `seeds`, their number, its last dimension is (mean, std) instead. Two menus
    choose which settings span the maps (the trait `span`: down, across), a number the place of the
    third in its list (`at`). A star marks the highest mean of the first of `values`, in every map.
    One scale of colours a quantity, whatever is shown.

    Raises ValueError where a shape doesn't fit.
    """

    _esm = module("heatmaps.js")
    title = "Heat maps of a sweep"

    maps = traitlets.List(traitlets.Dict()).tag(sync=True)
    axes = traitlets.List(traitlets.List()).tag(sync=True)
    seeds = traitlets.Int().tag(sync=True)
    span = traitlets.List(traitlets.Unicode()).tag(sync=True)
    at = traitlets.Int().tag(sync=True)

    def __init__(
        self, values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], seeds: int = 0
    ) -> None:
        shape = tuple(len(some) for some in axes.values())
        maps: list[dict[str, Any]] = []
        for name, array in values.items():
            found = np.asarray(array, dtype=float)
            fits = len(shape) == 3 and found.ndim == 4 and found.shape[:3] == shape
            if not fits or (seeds and found.shape[3] != 2):
                raise ValueError(
                    f"values must have shape {(*shape, 2 if seeds else 'seeds')} for the axes "
                    f"{[*axes]}, three of them; got {found.shape} for {name!r}"
                )
            parts = [*np.moveaxis(found, 3, 0)] if seeds else [found.mean(3), found.std(3, ddof=1)]
            numbers = {"mean": parts[0], "spread": parts[1]}
            maps.append({"name": name, **{n: plain(array, 4) for n, array in numbers.items()}})
        listed = [[name, [str(value) for value in some]] for name, some in axes.items()]
        at, seeds = shape[2] // 2, seeds or found.shape[3]
        super().__init__(maps=maps, axes=listed, seeds=seeds, span=[*axes][:2], at=at)

    def shown(self) -> list[np.ndarray]:
        """The means in the cells of each map, (values of the one down, of the one across)."""
        names = [name for name, _ in self.axes]
        order = sorted(range(3), key=lambda n: [*self.span, names[n]].index(names[n]))
        return [np.array(m["mean"], float).transpose(order)[..., self.at] for m in self.maps]

    def _figure(self, figure: Any) -> str:
        from lookbehind.explore.shared import pictures

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
