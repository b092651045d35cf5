"""The toy explorer's Python side; test_explore_toy_page.py tests its page."""

import json
import re

import numpy as np
import pytest
import torch
import traitlets

from lookbehind.explore.toy import ToyExplorer
from lookbehind.explore.toy.explorer import OWN
from lookbehind.toy import LOSSES, ToyLoss, hessian_eigenvalues

EXPRESSION = "(x**2 - 1)**2 + 3*y**2"
HERE = {"start": (1.0, 1.0), "window": (-2.0, 2.0, -1.5, 1.5)}


def bowl(w):
    """A bowl."""
    return (w**2).sum(-1)


def test_path_is_what_the_controls_show_and_a_loss_brings_its_start_and_learning_rate():
    explorer, ring = ToyExplorer("valley", k=3, rho=0.1, alpha=0.5, steps=25), LOSSES["ring"]
    explorer.loss = "ring"
    assert (explorer.start, explorer.lr) == (list(ring.start), ring.lr)
    path = explorer.path("Lookbehind-SAM")
    assert path.shape == (26, 4)
    np.testing.assert_allclose(path[0, :2], ring.start)
    np.testing.assert_allclose(path[:, 2], ring(torch.tensor(path[:, :2])).numpy())
    np.testing.assert_allclose(path[:, 3], hessian_eigenvalues(ring, path[:, :2])[:, 1])
    explorer.adaptive = True
    assert not np.allclose(explorer.path("Lookbehind-SAM"), path)


def test_a_path_that_diverges_is_shorter():
    explorer = ToyExplorer("valley", k=10, rho=0.4, alpha=1.0)
    assert 1 <= len(explorer.path("Lookbehind-SAM")) < explorer.steps


@pytest.mark.parametrize(
    "loss", [EXPRESSION, ToyLoss("mine", EXPRESSION, **HERE, minima=(), lesson="")]
)
def test_an_expression_of_ones_own_needs_no_kernel(loss):
    explorer = ToyExplorer(loss, **HERE, lr=0.05)
    assert explorer.own["javascript"] == explorer.toy.javascript and not explorer.drawn
    assert explorer.path("SGD")[-1, 2] < 1e-3
    explorer.loss = "valley"
    assert explorer.path("SGD")[0, 0] == LOSSES["valley"].start[0]


def test_a_function_of_ones_own_is_drawn_for_the_setting_that_is_shown():
    explorer = ToyExplorer(bowl, **HERE, lr=0.1, methods=["SGD", "SAM"])
    assert explorer.loss == OWN and explorer.own["lesson"] == "A bowl."
    assert set(explorer.drawn["paths"]) == {"SGD", "SAM", "Lookbehind-SAM"}
    kept = explorer.drawn["paths"]["SGD"]
    explorer.rho = 0.3
    assert explorer.drawn["paths"]["SGD"] is kept, "SGD has no ρ"
    assert explorer.drawn["paths"]["SAM"]["setting"]["rho"] == 0.3
    np.testing.assert_allclose(explorer.drawn["paths"]["SAM"]["slow"], explorer.path("SAM")[:, :2])


def test_an_error_in_ones_own_function_is_shown_until_it_is_gone():
    moods = ["bad"]

    def broken(w):
        if w.requires_grad and moods:
            raise RuntimeError("no gradient here")
        return bowl(w)

    explorer = ToyExplorer(broken, **HERE, methods=["SGD"])
    assert explorer.error == "RuntimeError: no gradient here" and explorer.drawn == {}
    shown, _ = explorer._repr_mimebundle_()
    assert "can't be drawn: RuntimeError: no gradient" in shown["text/plain"]
    moods.clear()
    explorer.start = [-1.0, -1.0]
    assert explorer.error == "" and explorer.drawn["paths"]["SGD"]["slow"][0] == [-1.0, -1.0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"loss": "vally"}, ValueError, "loss must be one of .*'vally' is none of the names"),
        ({"loss": "x^2", **HERE}, ValueError, "at character 3 .* a power is written"),
        ({"loss": 3}, ValueError, "loss must be one of .*, a function, or: .* text .* got 3"),
        ({"loss": bowl}, ValueError, r"needs start=\(x, y\) and window="),
        ({"loss": EXPRESSION}, ValueError, r"needs start=\(x, y\) and window="),
        ({"loss": bowl, "start": (0, 0), "window": (1, 0, 0, 1)}, ValueError, "window must be"),
        ({"k": 11}, traitlets.TraitError, "k must be from 1 to 10, got 11"),
        ({"rho": -0.05}, traitlets.TraitError, "rho must be from 0.0 to 1.0, got -0.05"),
        ({"alpha": 2.0}, traitlets.TraitError, "alpha must be from 0.0 to 1.0, got 2.0"),
        ({"lr": float("nan")}, traitlets.TraitError, "lr must be from"),
        ({"steps": 101}, traitlets.TraitError, "steps must be from 1 to 100, got 101"),
        ({"methods": ["Adam"]}, traitlets.TraitError, "Adam"),
        ({"panels": ["sound"]}, traitlets.TraitError, "sound"),
    ],
)
def test_wrong_positions_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        ToyExplorer(**settings)


def test_the_page_weighs_little_and_asks_for_nothing(tmp_path):
    path = tmp_path / "page.html"
    ToyExplorer(methods=["SAM"]).save_html(path)
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 150_000
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|fetch\(""", text)
    shipped = re.findall(r'"javascript": ("(?:[^"\\\\]|\\\\.)*")', text)
    assert [json.loads(part) for part in shipped] == [loss.javascript for loss in LOSSES.values()]
