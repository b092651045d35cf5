"""Recipes along axes."""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from inspect import signature
from itertools import product
from typing import Any

from lookbehind.optim import METHODS
from lookbehind.train import Recipe


@dataclass(frozen=True)
class Uniform:
    """An axis of `sample`: any number from `low` to `high`, each as likely."""

    low: float
    high: float

    def draw(self, generator: random.Random) -> float:
        return generator.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """An axis of `sample`: a number from `low` > 0 to `high`, its logarithm uniform."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"low must be > 0 and ≤ high, got {self.low!r} and {self.high!r}")

    def draw(self, generator: random.Random) -> float:
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(drawn, self.low), self.high)


Axis = Iterable[Any] | Uniform | LogUniform


def grid(base: Recipe, **axes: Iterable[Any]) -> list[Recipe]:
    """`base` with every combination of the values on the axes, settings of a `Recipe`.

    Recipes that differ only in settings that their method doesn't have are one run: the first is
    kept. The last axis changes fastest. Raises TypeError or ValueError for a name that is no
    setting, for an axis that is no sequence of values or is empty, and as `Recipe` does.
    """
    values = choices(axes)
    combined = product(*values.values())
    return _distinct(replace(base, **dict(zip(values, some, strict=True))) for some in combined)


def sample(base: Recipe, count: int, *, seed: int = 0, **axes: Axis) -> list[Recipe]:
    """`count` recipes at random, drawn by `seed`: `base` with a value of each axis.

    An axis is a sequence, of which each value is as likely, a `Uniform` or a `LogUniform`. Equal
    runs are kept once, so there may be fewer. For several seeds of each:
    [r for s in sample(...) for r in grid(s, seed=range(5))]. Raises as `grid`.
    """
    ranges = {n: axis for n, axis in axes.items() if isinstance(axis, Uniform | LogUniform)}
    values = choices({n: axis for n, axis in axes.items() if n not in ranges})
    _check_names(ranges)
    generator = random.Random(seed)

    def value(name: str) -> Any:
        if name in ranges:
            return ranges[name].draw(generator)
        return generator.choice(values[name])

    return _distinct(replace(base, **{name: value(name) for name in axes}) for _ in range(count))


def essence(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its method doesn't have at their defaults.

    Two recipes are the same run where these are equal.
    """
    used = signature(METHODS[recipe.method]).parameters
    unused = {"k", "rho", "eta", "alpha", "gradient"} - set(used)
    return replace(recipe, **{name: getattr(Recipe, name) for name in unused})


def _distinct(recipes: Iterable[Recipe]) -> list[Recipe]:
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(essence(recipe), recipe)
    return list(found.values())


def choices(axes: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each axis that is a sequence. Raises as `grid`."""
    _check_names(axes)
    values = {}
    for name, axis in axes.items():
        if isinstance(axis, str) or not isinstance(axis, Iterable):
            raise TypeError(f"{name} must be a sequence of values, got {axis!r}")
        values[name] = list(axis.tolist() if hasattr(axis, "tolist") else axis)  # of NumPy
        if not values[name]:
            raise ValueError(f"{name} must hold at least one value, got {axis!r}")
    return values


def _check_names(axes: Iterable[str]) -> None:
    known = [field.name for field in fields(Recipe)]
    for name in axes:
        if name not in known:
            raise ValueError(f"an axis must be one of {', '.join(known)}, got {name!r}")
