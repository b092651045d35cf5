"""Colours that keep apart for every eye and stand out on white and on dark; static figures."""

import statistics
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from lookbehind.explore.shared import METHOD_COLORS, pictures
from lookbehind.explore.shared.palette import PALETTES
from lookbehind.optim import METHODS

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "normal": "1 0 0 0 1 0 0 0 1",
    "protan": "0.152286 1.052583 -0.204868 0.114503 0.786281 0.099216 -0.003882 -0.048116 1.051998",
    "deutan": "0.367322 0.860646 -0.227968 0.280085 0.672501 0.047413 -0.011820 0.042940 0.968881",
    "tritan": "1.255528 -0.076749 -0.178779 -0.078411 0.930809 0.147602 0.004733 0.691367 0.303900",
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PAPER = {"light": "#FFFFFF", "dark": "#111111"}
VALUES = {"SGD": [0.6, 0.7, 0.65], "Lookbehind-SAM k 5": [0.9, 0.84, 0.93], "an idea": [0.5]}


def linear(color):
    srgb = np.array(to_rgb(color))
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def cie_lab(rgb):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a, b):
    low, high = sorted(TO_XYZ[1] @ linear(color) + 0.05 for color in (a, b))
    return high / low


def nearest(colors, eye):
    """The distance in CIE Lab of the two that are most alike for an eye, and these."""
    sight = np.reshape(EYES[eye].split(), (3, 3)).astype(float)
    seen = [(color, cie_lab(sight @ linear(color))) for color in colors]
    return min((np.linalg.norm(u - v), a, b) for (a, u), (b, v) in combinations(seen, 2))


@pytest.mark.parametrize("paper", PAPER)
def test_every_colour_stands_out_and_those_that_know_their_paper_can_be_read(paper):
    found = {name: contrast(METHOD_COLORS[name], PAPER[paper]) for name in METHODS}
    assert min(found.values()) > 2.99 and len(METHOD_COLORS) == len(METHODS), found
    for colors in PALETTES[paper].values():
        for name, color in colors.items():
            assert contrast(color, PAPER[paper]) >= 4.5, name


@pytest.mark.parametrize("eye", EYES)
def test_methods_keep_apart_and_arrows_too_on_any_paper_and_on_each(eye):
    assert nearest([*METHOD_COLORS.values()], eye) > (24,)
    for paper in PALETTES.values():
        methods, roles = ([*part.values()] for part in paper.values())
        assert nearest(methods, eye) >= (20,) and nearest(roles, eye) >= (20,)
        assert nearest([*methods, *roles], eye) >= (10,)


def test_dots_have_every_value_in_the_row_and_colour_of_its_name_in_reading_order():
    ax, beside = Figure().subplots(1, 2, sharey=True)
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
    bars = pictures.dots(VALUES, Figure().gca()).containers
    for bar, some in zip(bars, VALUES.values(), strict=True):
        (((x0, y0), (x1, y1)),) = bar.lines[2][0].get_segments()
        spread = statistics.stdev(some) if len(some) > 1 else 0
        assert np.allclose([x0, x1], [statistics.mean(some) + s * spread for s in (-1, 1)])
        assert y0 == y1


def test_matrix_writes_every_value_into_its_cell_and_leaves_what_is_missing():
    values = np.array([[0.0, 0.257, np.nan], [1.0, -0.05, 0.9]])
    ax = pictures.matrix(values, ["one", "two"], ["a", "b", "c"], Figure().gca())
    texts = {t.get_position()[::-1]: t.get_text() for t in ax.texts}
    expected = {(0, 0): "0.00", (0, 1): "0.26", (1, 0): "1.00", (1, 1): "−0.05", (1, 2): "0.90"}
    assert texts == expected
    assert np.array_equal(ax.images[0].get_array().filled(np.nan), values, equal_nan=True)
    assert ax.images[0].get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.yaxis_inverted(), "the first row stands on top"


def test_matrix_text_can_be_read_on_its_cell():
    values = np.linspace(-1, 1, 41)[None]
    ax = pictures.matrix(values, ["row"], [""] * 41, Figure().gca(), limits=(-1.0, 1.0))
    for cell, text in zip(ax.images[0].to_rgba(values)[0], ax.texts, strict=True):
        assert contrast(cell, text.get_color()) >= 4, text
