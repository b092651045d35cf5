"""The heat maps of a sweep."""

import numpy as np
import pytest

from lookbehind.explore.maps import HeatMaps

AXES = {"k": [1, 2], "α": [0.2, "adaptive", 0.8], "ρ": [0.1, 0.2, 0.3, 0.4]}
VALUES = np.random.default_rng(0).uniform(size=(2, 3, 4, 5))


def shown(maps: HeatMaps) -> tuple[np.ndarray, np.ndarray]:
    trace = maps.figure.data[0]
    return np.array(trace.z, dtype=float), np.array(trace.customdata, dtype=float)


@pytest.mark.parametrize("index", range(4))
def test_a_map_shows_mean_and_spread_over_the_seeds(index: int) -> None:
    maps = HeatMaps({"accuracy": VALUES, "sharpness": 2 * VALUES}, AXES)
    maps.third.index = index
    limits = maps.figure.data[0].zmin, maps.figure.data[0].zmax
    assert limits == (VALUES.mean(3).min(), VALUES.mean(3).max())
    mean, spread = shown(maps)
    np.testing.assert_allclose(mean, VALUES[:, :, index].mean(2))
    np.testing.assert_allclose(spread, VALUES[:, :, index].std(2, ddof=1))
    np.testing.assert_allclose(np.array(maps.figure.data[1].z, dtype=float), 2 * mean)


def test_the_menu_turns_the_map() -> None:
    maps = HeatMaps({"accuracy": VALUES}, AXES)
    maps.span.value = ("k", "ρ")
    assert maps.third.description == "α" and maps.third.value == "adaptive"
    np.testing.assert_allclose(shown(maps)[0], VALUES[:, 1].mean(2))
    assert list(maps.figure.data[0].x) == ["ρ = 0.1", "ρ = 0.2", "ρ = 0.3", "ρ = 0.4"]
    maps.span.value = ("α", "ρ")
    np.testing.assert_allclose(shown(maps)[0], VALUES[1].mean(2))


def test_a_wrong_shape_is_named() -> None:
    wrong = r"values must have shape .*got \(2, 3, 4\) for 'accuracy'"
    with pytest.raises(ValueError, match=wrong):
        HeatMaps({"accuracy": VALUES.mean(3)}, AXES)
