"""Recipes along axes: the product of lists of values, every run of it once."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from itertools import product
from typing import Any

from lookbehind.optim import METHODS
from lookbehind.train import Recipe


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """`base` with every combination of the values on the axes, settings of a `Recipe`.

    Recipes that differ only in settings that their method doesn't have are one run: the first is
    kept. The last axis changes fastest. Raises TypeError or ValueError for a name that is no
    setting, for an axis that is no sequence of values or is empty, and as `Recipe` does.
    """
    values = _values(axes)
    combined = product(*values.values())
    return distinct(replace(base, **dict(zip(values, some, strict=True))) for some in combined)


def essence(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its method doesn't have at their defaults.

    Two recipes are the same run where these are equal.
    """
    every = {axis for method in METHODS.values() for axis in method.axes}
    unused = every - {*METHODS[recipe.method].axes}
    return replace(recipe, **{name: getattr(Recipe, name) for name in unused})


def distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    """The first recipe of each run, in order."""
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(essence(recipe), recipe)
    return list(found.values())


def _values(axes: Mapping[str, Any]) -> dict[str, list[Any]]:
    known, values = [field.name for field in fields(Recipe)], {}
    for name, axis in axes.items():
        if name not in known:
            raise ValueError(f"an axis must be one of {', '.join(known)}, got {name!r}")
        if isinstance(axis, str) or not isinstance(axis, Iterable):
            raise TypeError(f"{name} must be a sequence of values, got {axis!r}")
        values[name] = list(axis.tolist() if hasattr(axis, "tolist") else axis)  # of NumPy
        if not values[name]:
            raise ValueError(f"{name} must hold at least one value, got {axis!r}")
    return values
