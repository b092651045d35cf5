"""How all figures look: one colour per method, and plotly's tool bar.

The colours are chosen so that every pair keeps apart (CIE Lab distance ≥ 24) under normal vision,
protanopia, deuteranopia and tritanopia, and every colour keeps a contrast ≥ 3 to white and to
JupyterLab's dark background.
"""

METHOD_COLORS: dict[str, str] = {
    "SGD": "#606060",
    "SAM": "#0063A7",
    "ASAM": "#9280FF",
    "Multistep-SAM": "#0BA55C",
    "Lookahead-SAM": "#AB89B2",
    "Lookbehind-SAM": "#B23319",
    "Lookbehind-ASAM": "#D38200",
}

# The arrows of one outer step, as light as the paths' colours allow on both backgrounds.
ROLE_COLORS: dict[str, str] = {
    "ascent": "#D38200",
    "descent": "#2F86D6",
    "gradient": "#0BA55C",
    "interpolation": "#B23319",
}

# For a FigureWidget's `_config`: no upload of the reader's figure, and the wheel scrolls the page.
PLOTLY_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud"],
    "scrollZoom": False,
}


def color_of(name: str, other: str = "black") -> str:
    """A run may be called "SAM, ρ = 0.1": its method's colour, or `other` where it has none."""
    known = [method for method in METHOD_COLORS if name.startswith(method)]
    return METHOD_COLORS[max(known, key=len)] if known else other
