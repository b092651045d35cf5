"""The surface of a toy loss, to turn."""

import numpy as np
import plotly.graph_objects as go

from lookbehind.explore.shared.palette import METHOD_COLORS, PLOTLY_CONFIG
from lookbehind.explore.toy.explorer import CONTROLS, ToyExplorer
from lookbehind.explore.toy.paths import heights

POINTS = 101  # of the surface on an axis


def surface3d(explorer: ToyExplorer) -> go.FigureWidget:
    """The explorer's loss as a surface to turn, and its paths on it; height is ∛L.

    The cube root shows a valley and its walls together. The paths follow the explorer's controls
    through the kernel, at the pace of the kernel.
    """
    figure = _empty_figure()
    _draw_ground(figure, explorer)
    _draw_lines(figure, explorer)
    explorer.observe(lambda _: _draw_ground(figure, explorer), "loss")
    explorer.observe(lambda _: _draw_lines(figure, explorer), CONTROLS)
    return figure


def _draw_ground(figure: go.FigureWidget, explorer: ToyExplorer) -> None:
    x0, x1, y0, y1 = window = explorer.toy.window
    height = np.cbrt(heights(explorer.toy, window, POINTS))
    x, y = np.linspace(x0, x1, POINTS), np.linspace(y0, y1, POINTS)
    light = {"cmin": -height.max(), "cmax": 2 * height.max()}  # no darker than the paths
    figure.data[0].update(x=x, y=y, z=height, **light)


def _draw_lines(figure: go.FigureWidget, explorer: ToyExplorer) -> None:
    x0, x1, y0, y1 = explorer.toy.window
    with figure.batch_update():
        for line in figure.data[1:]:
            line.visible = shown = line.name in explorer.methods
            if shown:
                x, y, loss, _ = explorer.path(line.name).T
                inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
                z = np.cbrt(loss) + 0.01  # on the ground, not in it
                z = np.ma.masked_array(z, ~inside)  # None in the list
                # lists: plotly asks an array that the page sends back whether it is true
                line.update(x=x.tolist(), y=y.tolist(), z=z.tolist())


def _empty_figure() -> go.FigureWidget:
    figure = go.FigureWidget(go.Surface(colorscale="Greys", showscale=False))
    for method, color in METHOD_COLORS.items():
        style = {"mode": "lines+markers", "marker_size": 2, "line_width": 5}
        figure.add_scatter3d(name=method, line_color=color, marker_color=color, **style)
    figure._config = PLOTLY_CONFIG
    axis = {"showbackground": False, "gridcolor": "#888888"}
    titles = {"x": "x", "y": "y", "z": "∛L"}
    scene = {f"{name}axis": axis | {"title": {"text": text}} for name, text in titles.items()}
    figure.update_layout(
        scene=scene
        | {"aspectmode": "manual", "aspectratio": {"x": 1.2, "y": 1, "z": 0.5}}
        | {"camera_eye": {"x": -0.9, "y": -1.3, "z": 1.2}},
        height=460,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"x": 0, "y": 1},
        paper_bgcolor="rgba(0, 0, 0, 0)",  # the theme's own, and a grey that both themes can read
        font_color="#888888",
        uirevision="turned",  # a turned surface stays turned
    )
    return figure
