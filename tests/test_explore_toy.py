"""The toy explorer's Python side; test_explorer_page.py and test_browser.py test its page."""

import time

import numpy as np
import pytest
import traitlets

from lookbehind.explore.toy import ToyExplorer, surface3d
from lookbehind.explore.toy.atlas import ALPHA, RHO, STEPS, K
from lookbehind.explore.toy.explorer import OWN
from lookbehind.toy import LOSSES, hessian_eigenvalues


@pytest.fixture
def watched(monkeypatch):
    """An explorer whose page is this list: what the kernel sends lands in it."""
    sent = []
    monkeypatch.setattr(ToyExplorer, "send", lambda self, header, buffers: sent.append(header))

    def make(**settings):
        explorer = ToyExplorer(**settings)
        explorer._ready()
        return explorer, sent

    return make


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the atlas didn't arrive"
        time.sleep(0.01)


def keys(sent):
    return [(header["method"], header["k"]) for header in sent]


def test_without_a_page_nothing_is_computed():
    explorer = ToyExplorer()
    explorer.k = 3
    explorer.lr = 0.05
    assert explorer._worker is None and not explorer._sheets


def test_the_shown_positions_come_first_and_the_rest_follows(watched):
    explorer, sent = watched(methods=["SGD", "Lookbehind-SAM"], k=7)
    wait_for(lambda: explorer._worker is None)
    assert keys(sent)[:2] == [("SGD", 0), ("Lookbehind-SAM", 7)]
    assert sorted(keys(sent)) == sorted([("SGD", 0), *(("Lookbehind-SAM", k) for k in K)])
    assert all(h["setting"] == {"start": [3.0, 0.6], "lr": 0.1, "momentum": 0.0} for h in sent)


def test_a_new_start_is_computed_anew(watched):
    explorer, sent = watched(methods=["SGD", "SAM"], panels=["map"])
    wait_for(lambda: explorer._worker is None)
    sent.clear()
    explorer.start = [2.0, 1.5]
    wait_for(lambda: explorer._worker is None)
    assert keys(sent) == [("SGD", 0), ("SAM", 0)]
    assert all(header["setting"]["start"] == [2.0, 1.5] for header in sent)
    assert explorer.path("SAM")[0, :2].tolist() == [2.0, 1.5]


def test_a_second_page_gets_what_there_is(watched):
    explorer, sent = watched(methods=["SAM"], panels=["map"])
    wait_for(lambda: explorer._worker is None)
    explorer._ready()
    assert keys(sent) == [("SAM", 0), ("SAM", 0)]


def test_a_new_loss_brings_its_start_and_learning_rate():
    explorer = ToyExplorer("valley", rho=0.2)
    before = explorer.surface
    explorer.loss = "ring"
    ring = LOSSES["ring"]
    assert (explorer.start, explorer.lr) == (list(ring.start), ring.lr)
    assert explorer.scene["window"] == ring.window and explorer.surface != before
    np.testing.assert_allclose(explorer.path("SGD")[0, :2], ring.start, rtol=1e-6)


def test_path_is_what_the_sliders_show():
    explorer = ToyExplorer("ring", k=3, rho=0.1, alpha=0.5, steps=25)
    path = explorer.path("Lookbehind-SAM")
    assert path.shape == (26, 4)
    np.testing.assert_allclose(path[0, :2], LOSSES["ring"].start)
    sharpness = hessian_eigenvalues(LOSSES["ring"], path[:, :2])[:, 1]
    np.testing.assert_allclose(path[:, 3], sharpness, rtol=1e-3)
    explorer.adaptive = True
    assert not np.allclose(explorer.path("Lookbehind-SAM"), path)


def test_the_surface_follows_the_controls():
    explorer = ToyExplorer("valley", methods=["SGD", "SAM"])
    figure = surface3d(explorer)
    lines = {line.name: line for line in figure.data[1:]}
    assert [name for name, line in lines.items() if line.visible] == ["SGD", "SAM"]
    np.testing.assert_allclose(lines["SAM"].x, explorer.path("SAM")[:, 0])
    explorer.rho = 0.3
    np.testing.assert_allclose(lines["SAM"].x, explorer.path("SAM")[:, 0])
    explorer.methods = ["ASAM"]
    assert lines["ASAM"].visible and not lines["SAM"].visible
    explorer.loss = "Himmelblau"
    assert figure.data[0].x[0] == -6 and lines["ASAM"].x[0] == 0


def bowl(w):
    """A bowl."""
    return (w**2).sum(-1)


def test_a_loss_of_ones_own():
    explorer = ToyExplorer(bowl, start=(1, 1), window=(-2, 2, -1.5, 1.5), lr=0.1)
    assert explorer.loss == OWN and explorer.scene["lesson"] == "A bowl."
    assert explorer.path("SGD")[-1, 2] < 1e-3


def test_an_error_in_ones_own_loss_is_shown(watched):
    def broken(w):
        if w.requires_grad:
            raise RuntimeError("no gradient here")
        return bowl(w)

    explorer, _ = watched(
        loss=broken, start=(1, 1), window=(-2, 2, -1, 1), methods=["SGD"], panels=["map"]
    )
    wait_for(lambda: explorer._worker is None)
    assert explorer.error == "RuntimeError: no gradient here"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "vally"}, ValueError, "loss must be a function or one of .*got 'vally'"),
        ({"loss": bowl}, ValueError, r"needs start=\(x, y\) and window="),
        ({"loss": bowl, "start": (0, 0), "window": (1, 0, 0, 1)}, ValueError, "window must be"),
        ({"k": 11}, traitlets.TraitError, "k must be one of .*got 11"),
        ({"rho": 0.05}, traitlets.TraitError, "rho must be one of .*got 0.05"),
        ({"alpha": 2.0}, traitlets.TraitError, "alpha must be one of .*got 2.0"),
        ({"steps": STEPS + 1}, traitlets.TraitError, "steps must be one of .*got 41"),
        ({"methods": ["Adam"]}, traitlets.TraitError, "Adam"),
        ({"panels": ["sound"]}, traitlets.TraitError, "sound"),
    ],
)
def test_wrong_positions_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        ToyExplorer(**settings)


def test_the_defaults_are_slider_positions():
    explorer = ToyExplorer()
    assert explorer.k in K and explorer.rho in RHO and explorer.alpha in ALPHA
