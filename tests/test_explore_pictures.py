"""`pictures`: what the static figures show."""

import statistics

import numpy as np
import pytest

pytest.importorskip("ipywidgets")
pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from lookbehind.explore.shared import METHOD_COLORS, pictures

VALUES = {"SGD": [0.6, 0.7, 0.65], "Lookbehind-SAM k 5": [0.9, 0.84, 0.93], "an idea": [0.5]}


@pytest.fixture(autouse=True)
def closed_figures():
    before = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def test_dots_have_every_value_in_the_row_and_colour_of_its_name_in_reading_order():
    _, (ax, beside) = plt.subplots(1, 2, sharey=True)
    assert pictures.dots(VALUES, beside) is beside and pictures.dots(VALUES, ax) is ax
    rows = [line for line in ax.lines if line.get_marker() == "o"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(VALUES)
    assert [list(line.get_xdata()) for line in rows] == list(VALUES.values())
    colors = [METHOD_COLORS["SGD"], METHOD_COLORS["Lookbehind-SAM"], "#000000"]
    assert [to_hex(line.get_color()) for line in rows] == [to_hex(color) for color in colors]
    heights = [line.get_ydata()[0] for line in rows]
    assert heights == list(ax.get_yticks()) == sorted(heights)
    assert ax.yaxis_inverted(), "the first name stands on top, also where two axes share the rows"


def test_dots_bars_are_mean_and_sample_standard_deviation():
    bars = pictures.dots(VALUES, plt.figure().gca()).containers
    for bar, some in zip(bars, VALUES.values(), strict=True):
        (((x0, y0), (x1, y1)),) = bar.lines[2][0].get_segments()
        spread = statistics.stdev(some) if len(some) > 1 else 0
        assert np.allclose([x0, x1], [statistics.mean(some) + s * spread for s in (-1, 1)])
        assert y0 == y1


def test_matrix_writes_every_value_into_its_cell_and_leaves_what_is_missing():
    values = np.array([[0.0, 0.257, np.nan], [1.0, -0.05, 0.9]])
    ax = pictures.matrix(values, ["one", "two"], ["a", "b", "c"], plt.figure().gca())
    texts = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in ax.texts}
    expected = {(0, 0): "0.00", (0, 1): "0.26", (1, 0): "1.00", (1, 1): "−0.05", (1, 2): "0.90"}
    assert texts == expected
    assert np.array_equal(ax.images[0].get_array().filled(np.nan), values, equal_nan=True)
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.yaxis_inverted(), "the first row stands on top"


def test_matrix_text_can_be_read_on_its_cell():
    """Contrast of text and cell ≥ 4 by the WCAG formula, over the whole range."""

    def luminance(color):
        rgb = np.asarray(to_rgb(color))
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    values = np.linspace(-1, 1, 41)[None]
    ax = pictures.matrix(values, ["row"], [""] * 41, plt.figure().gca(), limits=(-1.0, 1.0))
    for value, text in zip(values[0], ax.texts, strict=True):
        image = ax.images[0]
        light = sorted([luminance(image.cmap(image.norm(value))[:3]), luminance(text.get_color())])
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 4, value
