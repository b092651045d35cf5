"""How all figures look: one colour per method.

`METHOD_COLORS` serve figures that lie on white and on dark: every pair keeps apart (CIE Lab
distance ≥ 24) under normal vision, protanopia, deuteranopia and tritanopia, and every colour keeps
a contrast ≥ 3 to both. A page that knows its background takes `PALETTES`: there each colour is
legible as text (contrast ≥ 4.5); for the same eyes methods keep apart (≥ 20), so do arrows (≥ 20),
and no arrow looks like a method (≥ 10).
"""

METHOD_COLORS: dict[str, str] = {
    "SGD": "#606060", "SAM": "#0063A7", "ASAM": "#9280FF", "Multistep-SAM": "#0BA55C",
    "Lookahead-SAM": "#AB89B2", "Lookbehind-SAM": "#B23319", "Lookbehind-ASAM": "#D38200",
}  # fmt: skip

# The arrows of one outer step, as light as the paths' colours allow on both backgrounds.
ROLE_COLORS: dict[str, str] = {
    "ascent": "#D38200", "descent": "#2F86D6", "gradient": "#0BA55C", "interpolation": "#B23319",
}  # fmt: skip


def _palette(methods: str, roles: str) -> dict[str, dict[str, str]]:
    return {
        "methods": dict(zip(METHOD_COLORS, methods.split(), strict=True)),
        "roles": dict(zip(ROLE_COLORS, roles.split(), strict=True)),
    }


PALETTES = {
    "light": _palette("#383838 #003D8B #814DFF #087B46 #8E4E88 #810900 #A8620F",
                      "#7E5000 #2579AA #1D441E #D82E6D"),
    "dark": _palette("#B6B4B7 #4E92DA #866EFF #59E795 #FAB9FF #E9664E #EDA437",
                     "#FFE33E #48CADC #B5DD60 #FF659A"),
}  # fmt: skip


def color_of(name: str, other: str = "black") -> str:
    """A run may be called "SAM, ρ = 0.1": its method's colour, or `other` where it has none."""
    known = [method for method in METHOD_COLORS if name.startswith(method)]
    return METHOD_COLORS[max(known, key=len)] if known else other
