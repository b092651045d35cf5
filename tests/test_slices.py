"""The slices that the browser tests run: a widget's cell with all that it needs, and no other."""

import lab
import pytest


@pytest.mark.parametrize(
    ("cells", "wanted", "needed"),
    [
        (["a = 1", "b = 2", "a"], {2}, [0, 2]),
        (["a = 1", "a = 2", "a"], {2}, [1, 2]),
        (["a = []", "a += [1]", "a"], {2}, [0, 1, 2]),
        (["import numpy as np", "def f(): return np.pi", "f()"], {2}, [0, 1, 2]),
        (["x = 1", "def f(x): return x", "f(2)"], {2}, [1, 2]),
        (["i = 1", "for i in range(3): print(i)"], {1}, [1]),
        (["x = 1", "[x for x in range(3)]"], {1}, [1]),
        (["a = 1", "a = 2; b = a", "b"], {2}, [1, 2]),
        (["k = 1", "k = 2"], {0, 1}, [0, 1]),
    ],
)
def test_a_slice_holds_what_gives_the_names_that_are_read(cells, wanted, needed) -> None:
    assert lab.needed_cells(cells, wanted) == needed
