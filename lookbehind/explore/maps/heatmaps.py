"""Heat maps of a sweep over three settings: two span the map, a slider holds the third."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lookbehind.explore.shared.palette import PLOTLY_CONFIG

HOVER = "%{y}<br>%{x}<br>%{z:.3g} ± %{customdata:.2g}<extra></extra>"


class HeatMaps(widgets.VBox):
    """A map for each of `values`, mean over seeds; the spread (sample std) shows on hover.

    `axes` names three settings and gives their values; each of `values` is an array of shape
    (values of the first, of the second, of the third, seeds). The menu chooses which two settings
    span the maps, the slider a value of the third. One scale of colours a quantity, whatever is
    shown. Raises ValueError where a shape doesn't fit.
    """

    def __init__(self, values: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> None:
        self.values = {name: np.asarray(array, dtype=float) for name, array in values.items()}
        self.axes = {name: [str(value) for value in some] for name, some in axes.items()}
        shape = tuple(len(some) for some in self.axes.values())
        for name, array in self.values.items():
            if len(shape) != 3 or array.ndim != 4 or array.shape[:3] != shape:
                raise ValueError(
                    f"values must have shape {(*shape, 'seeds')} for the axes {[*axes]}, three of "
                    f"them; got {array.shape} for {name!r}"
                )
        pairs = {f"{a} × {b}": (a, b) for a, b in combinations(self.axes, 2)}
        self.span = widgets.Dropdown(options=pairs, description="map of")
        self.third = widgets.SelectionSlider(options=[""])
        self.figure = self._empty_figure()
        self.span.observe(lambda _: self._turn(), "value")
        self._turn()
        super().__init__([widgets.HBox([self.span, self.third]), self.figure])

    def _empty_figure(self) -> go.FigureWidget:
        figure = go.FigureWidget(make_subplots(1, len(self.values), subplot_titles=[*self.values]))
        width = 1 / len(self.values)
        for column, array in enumerate(self.values.values(), 1):
            mean = array.mean(3)
            figure.add_heatmap(
                row=1, col=column, colorscale="Viridis", hovertemplate=HOVER,
                zmin=float(np.nanmin(mean)), zmax=float(np.nanmax(mean)),
                colorbar={"x": (column - 0.22) * width, "thickness": 12, "xanchor": "left"},
            )  # fmt: skip
            axis = "xaxis" if column == 1 else f"xaxis{column}"
            figure.layout[axis].domain = [(column - 1) * width, (column - 0.24) * width]
        for place, title in enumerate(figure.layout.annotations):
            title.x = (place + 0.38) * width
        figure.update_yaxes(autorange="reversed")  # as in the pictures: the first value on top
        figure.update_layout(width=900, height=380, template="plotly_white", margin={"t": 52})
        figure._config = PLOTLY_CONFIG
        return figure

    def _turn(self) -> None:
        (third,) = set(self.axes) - set(self.span.value)
        self.third.unobserve_all("value")
        self.third.options = self.axes[third]
        self.third.index = len(self.axes[third]) // 2
        self.third.description = third
        self.third.observe(lambda _: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        down, across = self.span.value
        names = list(self.axes)
        (third,) = set(names) - {down, across}
        with self.figure.batch_update():
            for trace, array in zip(self.figure.data, self.values.values(), strict=True):
                shown = array.take(self.third.index, axis=names.index(third))
                trace.x = [f"{across} = {value}" for value in self.axes[across]]
                trace.y = [f"{down} = {value}" for value in self.axes[down]]
                trace.z = shown.mean(2).tolist()
                trace.customdata = shown.std(2, ddof=1).tolist()
