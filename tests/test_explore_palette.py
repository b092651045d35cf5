"""`palette`: colours that keep apart for every eye, and stand out on white and on dark."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from lookbehind.explore.shared.palette import METHOD_COLORS, PALETTES
from lookbehind.optim import METHODS

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
EYES = {
    "normal": "1 0 0  0 1 0  0 0 1",
    "protanopia": "0.152286 1.052583 -0.204868  0.114503 0.786281 0.099216  "
    "-0.003882 -0.048116 1.051998",
    "deuteranopia": "0.367322 0.860646 -0.227968  0.280085 0.672501 0.047413  "
    "-0.011820 0.042940 0.968881",
    "tritanopia": "1.255528 -0.076749 -0.178779  -0.078411 0.930809 0.147602  "
    "0.004733 0.691367 0.303900",
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PAPER = {"light": "#FFFFFF", "dark": "#111111"}


def linear(color):
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def cie_lab(rgb):
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a, b):
    low, high = sorted(TO_XYZ[1] @ linear(color) + 0.05 for color in (a, b))
    return high / low


def nearest(colors, eye):
    """The two that are most alike for an eye, and their distance in CIE Lab."""
    sight = np.reshape(EYES[eye].split(), (3, 3)).astype(float)
    seen = [(color, cie_lab(sight @ linear(color))) for color in colors]
    return min((np.linalg.norm(u - v), a, b) for (a, u), (b, v) in combinations(seen, 2))


def test_every_method_has_a_colour():
    assert set(METHOD_COLORS) == set(METHODS)


@pytest.mark.parametrize("eye", EYES)
def test_every_pair_keeps_apart(eye):
    distance, one, other = nearest([*METHOD_COLORS.values()], eye)
    assert distance > 24, f"{one} and {other}"


@pytest.mark.parametrize("background", [*PAPER.values()])
def test_every_colour_stands_out(background):
    for name, color in METHOD_COLORS.items():
        assert contrast(color, background) > 2.99, name


@pytest.mark.parametrize("paper", PAPER)
def test_a_page_that_knows_its_paper_writes_in_its_colours(paper):
    for colors in PALETTES[paper].values():
        for name, color in colors.items():
            assert contrast(color, PAPER[paper]) >= 4.5, name


@pytest.mark.parametrize("paper", PAPER)
@pytest.mark.parametrize("eye", EYES)
def test_methods_keep_apart_and_arrows_too_on_each_paper(paper, eye):
    methods, roles = ([*part.values()] for part in PALETTES[paper].values())
    assert nearest(methods, eye)[0] >= 20
    assert nearest(roles, eye)[0] >= 20
    assert nearest([*methods, *roles], eye)[0] >= 10
