"""What the training lab shows: the curves of every run, the time left, and the finished runs."""

import csv
import io
from html import escape
from typing import Any
from urllib.parse import quote

import anywidget
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lookbehind.explore.lab.training import SHARPNESS_IMAGES, SHARPNESS_RADIUS, Training
from lookbehind.explore.shared.palette import METHOD_COLORS, PLOTLY_CONFIG
from lookbehind.optim import METHODS
from lookbehind.train import Recipe

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
GREY = "#808080"  # readable on white and on JupyterLab's dark background
CLEAR = "rgba(0, 0, 0, 0)"
GRID = "rgba(128, 128, 128, 0.25)"
CELL = "padding: 2px 6px; text-align: left; line-height: 1.5"
PLOTS = (
    "accuracy (thick: test, thin: training)",
    "loss (thick: test, thin: training)",
    f"sharpness: rise of the training loss within {SHARPNESS_RADIUS:g}",
    "α of the latest step, first to last layer",
)
SHARPNESS_HOVER = (
    f"%{{y:.4f}} nats, epoch %{{x}}<br>first {SHARPNESS_IMAGES} training images (all, where they "
    f"are fewer),<br>a ball of radius {SHARPNESS_RADIUS:g}<extra></extra>"
)
HEIGHT = 580
LINE_HEIGHT = 29  # of the legend
WIDTHS = (2.5, 1.2, 2.5, 1.2, 2.5)  # test and training accuracy, the same of the loss, sharpness


class Fit(anywidget.AnyWidget):
    """Nothing to see: keeps the figure in the same box as wide as that box.

    A plotly figure in a widget doesn't notice by itself that its place has become known, or wider.
    """

    _esm = """
    export default { render({ el }) {
        const fit = () => {
            const box = el.parentElement, plot = box?.querySelector(".js-plotly-plot");
            const drawn = plot?.querySelector(".main-svg");
            if (box) watch.observe(box);
            if (drawn && Math.abs(drawn.clientWidth - plot.clientWidth) > 2)
                window.dispatchEvent(new Event("resize"));
        };
        const watch = new ResizeObserver(fit);
        watch.observe(el);
        return () => watch.disconnect();
    } };
    """


class Curves:
    """Four plots; a run has five lines in three of them, the fourth is α of the run drawn last."""

    def __init__(self) -> None:
        self.figure = _empty_figure()
        self._lines: dict[Any, tuple[Any, ...]] = {}
        self._drawn: Any = None

    def add(self, key: Any, training: Training) -> None:
        """Lines for a run. A run that is resumed goes on with those of the same `key`."""
        self._drawn = None
        if key in self._lines:
            return
        color = METHOD_COLORS[training.recipe.method]
        repeats = sum(line[0].line.color == color for line in self._lines.values())
        style = {"color": color, "dash": DASHES[repeats % len(DASHES)]}
        named = {"name": label(training), "legendgroup": f"run {len(self._lines)}", "mode": "lines"}
        lines = [
            go.Scatter(
                x=[], y=[], **named, showlegend=not i, line={**style, "width": width},
                opacity=1 if width > 2 else 0.8,
            )
            for i, width in enumerate(WIDTHS)
        ]  # fmt: skip
        lines[4].hovertemplate = SHARPNESS_HOVER
        self.figure.add_traces(lines, rows=[1, 1, 1, 1, 2], cols=[1, 1, 2, 2, 1])
        self._lines[key] = self.figure.data[-5:]
        layout, most = self.figure.layout, training.recipe.epochs or 1
        most = max(most, layout.xaxis.range[1] if len(self._lines) > 1 else 0)
        with self.figure.batch_update():
            for axis in (layout.xaxis, layout.xaxis2, layout.xaxis3):
                axis.range = [0, most]
            layout.height = HEIGHT + LINE_HEIGHT * len(self._lines)

    def draw(self, key: Any, training: Training) -> None:
        """Bring a run's lines and α up to date, in one message to the page."""
        state = (key, len(training.records), len(training.sharpness), label(training))
        with self.figure.batch_update():
            if state != self._drawn:
                self._draw_lines(self._lines[key], training)
            self._draw_alpha(training)
        self._drawn = state

    def clear(self) -> None:
        self.figure.data = self.figure.data[:4]
        self._lines.clear()
        with self.figure.batch_update():
            self.figure.data[3].update(x=[], y=[])
            self.figure.layout.annotations[-1].text = ""
            self.figure.layout.height = HEIGHT

    def _draw_lines(self, lines: tuple[Any, ...], training: Training) -> None:
        named = zip(lines[:4], ("accuracy", "accuracy", "loss", "loss"), strict=True)
        for (line, value), split in zip(named, ("test", "train") * 2, strict=True):
            records = [r for r in training.records if r.split == split]
            line.update(x=[r.epoch for r in records], y=[getattr(r, value) for r in records])
        sharpness = training.sharpness
        lines[4].update(x=[e for e, _ in sharpness], y=[r for _, r in sharpness])
        for line in lines:
            line.name = label(training)

    def _draw_alpha(self, training: Training) -> None:
        method, alpha = training.recipe.method, training.alpha
        places, names = list(range(1, len(alpha) + 1)), training.names if alpha else []
        colors = dict.fromkeys(("marker_color", "line_color"), METHOD_COLORS[method])
        self.figure.data[3].update(x=places, y=alpha, text=names, **colors)
        if alpha:
            self.figure.layout.xaxis4.range = [0.5, len(alpha) + 0.5]
        missing = "" if "alpha" in METHODS[method].sliders else f"{method} has no α"
        self.figure.layout.annotations[-1].text = missing


def label(training: Training) -> str:
    """A run in the legend: what it has now, and whether that is what it began with."""
    moved = " (moved)" if training.moved else ""
    return f"{training.now} · {training.recipe.model}, {dataset_name(training.recipe)}{moved}"


def dataset_name(recipe: Recipe) -> str:
    """A folder by its last part."""
    return recipe.dataset.replace("\\", "/").rstrip("/").split("/")[-1]


def progress_text(training: Training) -> str:
    """Where a run is: epoch, images a second, time left."""
    parts = [f"epoch {training.epoch:.1f} of {training.recipe.epochs}"]
    if rate := training.images_per_second:
        parts.append(f"{rate:,.0f} images/s")
    if training.status == "running" and (left := training.seconds_left) is not None:
        parts.append(f"{duration(left)} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """3 s, 2 min 05 s, 1 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def table_row(training: Training) -> dict[str, Any]:
    """A run in the table; None for what its method doesn't have or what wasn't measured."""
    recipe, lacks = training.now, {"k", "rho", "alpha"} - {*METHODS[training.now.method].sliders}
    names = ("method", "k", "rho", "alpha", "lr", "model", "dataset")
    last = {record.split: record.accuracy for record in training.records}
    return {
        **{name: None if name in lacks else getattr(recipe, name) for name in names},
        "epochs": round(training.epoch, 2),
        "seed": recipe.seed,
        "test accuracy": last.get("test"),
        "training accuracy": last.get("train"),
        "sharpness": training.sharpness[-1][1] if training.sharpness else None,
        "seconds": round(training.seconds, 1),
        "status": training.status + (", moved" if training.moved else ""),
    }


def table_html(rows: list[dict[str, Any]]) -> str:
    """The finished runs, and a link that saves them; nothing where there are none."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    link = "data:text/csv;charset=utf-8," + quote(text.getvalue())
    heads = "".join(f"<th style='{CELL}'>{escape(name)}</th>" for name in rows[0])
    lines = ("".join(f"<td style='{CELL}'>{_cell(x)}</td>" for x in r.values()) for r in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<div style='overflow-x: auto'><table style='border-collapse: collapse; font-size: 12px'>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<a class='jupyter-button widget-button' style='width: auto; display: inline-block' "
        f"href='{escape(link)}' download='lookbehind-runs.csv'>Download CSV</a>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _empty_figure() -> Any:
    """Four plots that show nothing yet; the fourth line is that of α, the last annotation its."""
    plots = make_subplots(
        rows=2, cols=2, horizontal_spacing=0.1, vertical_spacing=0.2, subplot_titles=PLOTS
    )
    figure = go.FigureWidget(plots)
    figure._config = {**PLOTLY_CONFIG, "responsive": True}
    figure.update_layout(
        autosize=True, height=HEIGHT, margin={"l": 55, "r": 15, "t": 52, "b": 45},
        paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, font={"color": GREY, "size": 12},
        legend={"x": 0, "y": -0.12, "yanchor": "top", "orientation": "v"},
    )  # fmt: skip
    figure.update_annotations(font_size=13)
    for i in range(4):  # plotly draws no axes where there is no trace: one that shows nothing
        at = {"row": 1 + i // 2, "col": 1 + i % 2}
        figure.add_scatter(x=[0], y=[0], mode="lines", showlegend=False, hoverinfo="skip", **at)
    figure.data[3].update(
        x=[], y=[], mode="lines+markers", line_width=1, hoverinfo="all",
        hovertemplate="%{text}<br>α %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.add_annotation(
        text="", xref="x4 domain", yref="y4 domain", x=0.5, y=0.5, showarrow=False, font_size=13
    )
    _set_axes(figure.layout)
    return figure


def _set_axes(layout: Any) -> None:
    across = ("epoch", "epoch", "epoch", "parameter tensor")
    common = {"gridcolor": GRID, "zeroline": False, "automargin": True}
    title = {"font": {"size": 12}, "standoff": 4}
    for i, (x, y) in enumerate(
        zip(across, ("share of images", "nats", "nats", "α"), strict=True), 1
    ):
        layout[f"xaxis{i}"].update(**common, title={**title, "text": x}, range=[0, 1])
        layout[f"yaxis{i}"].update(**common, title={**title, "text": y}, rangemode="tozero")
    layout.xaxis4.range = [0.5, 6.5]
    for axis in (layout.yaxis, layout.yaxis4):
        axis.range = [0, 1.05]
