"""The atlas behind the toy explorer: every slider position equals a run of its own."""

import numpy as np
import pytest
from torch.optim import SGD

from lookbehind.explore.toy.atlas import ALPHA, RHO, STEPS, Setting, compute_sheet, sheet_ks
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import LOSSES, descend, hessian_eigenvalues

POSITIONS = [(2, 4, 3), (5, 10, 6), (3, 0, 11), (4, 7, 12)]  # k, index of ρ, index of α


def alone(setting, method, k, rho, alpha):
    make = lambda w: make_method(  # noqa: E731
        method, SGD(w, lr=setting.lr, momentum=setting.momentum), rho=rho, k=k, alpha=alpha
    )
    return descend(setting.loss, setting.start, make, setting.steps, seed=setting.seed)


def decoded(sheet):
    """What a page reads from a message."""
    header, data = sheet.message()
    (r, a, t), counts = header["shape"], header["counts"]
    ends = np.cumsum([r * a * (t + 1) * 16, r * a * t * 4] + [r * a * t * n * 4 for n in counts])
    parts = [data[i:j] for i, j in zip([0, *ends], ends, strict=False)]
    assert ends[-1] == len(data)
    inner = [np.frombuffer(p, np.float16).reshape(r, a, t, -1, 2) for p in parts[2:]]
    points = np.frombuffer(parts[0], np.float32).reshape(r, a, t + 1, 4)
    return points, np.frombuffer(parts[1], np.float32).reshape(r, a, t), *inner


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["valley", "noisy quadratic"])
def test_a_cell_equals_its_own_run(method, name):
    axes, loss = METHODS[method].sliders, LOSSES[name]
    setting = Setting(loss, loss.start, lr=0.02, momentum=0.3)
    for k, r, a in POSITIONS:
        if a == len(ALPHA) and "adaptive" not in axes:
            continue
        page = k if "k" in axes else 0
        points, alpha, ascent, fast, gradients = decoded(compute_sheet(setting, method, page))
        cell = (r if "rho" in axes else 0, a if "alpha" in axes else 0)
        value = "adaptive" if a == len(ALPHA) else ALPHA[a]
        run = alone(setting, method, k, RHO[r], value)
        np.testing.assert_allclose(points[cell][:, :2], run.slow, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(points[cell][:, 2], run.losses, rtol=1e-4, atol=1e-5)
        sharpness = hessian_eigenvalues(loss, run.slow)[:, 1]
        np.testing.assert_allclose(points[cell][:, 3], sharpness, rtol=1e-4)
        np.testing.assert_allclose(alpha[cell], run.alpha, atol=1e-6)
        slow = run.slow[:-1, None]
        np.testing.assert_allclose(fast[cell] + slow, run.fast, rtol=2e-3, atol=2e-3)
        if method != "Lookahead-SAM":
            np.testing.assert_allclose(ascent[cell] + slow, run.ascent, rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(gradients[cell], run.gradients, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("method", "cost"),
    [
        ("SGD", 1),
        ("SAM", 2),
        ("ASAM", 2),
        ("Multistep-SAM", 4),
        ("Lookahead-SAM", 6),
        ("Lookbehind-SAM", 4),
        ("Lookbehind-ASAM", 4),
    ],
)
def test_the_cost_is_what_was_evaluated(method, cost):
    loss = LOSSES["ring"]
    sheet = compute_sheet(Setting(loss, loss.start, 0.05, steps=2), method, sheet_ks(method, 3)[0])
    assert sheet.cost == cost and sheet.message()[0]["cost"] == cost


def test_what_diverges_is_nan_from_there_on():
    loss = LOSSES["valley"]
    points = compute_sheet(Setting(loss, loss.start, 0.3), "Lookbehind-SAM", 8).points
    gone = np.isnan(points[..., 0])
    assert gone.any() and not gone.all() and not gone[..., 0].any()
    assert (gone[..., 1:] >= gone[..., :-1]).all()
    assert np.isfinite(points[~gone][:, :3]).all()


def test_the_nearest_k_comes_first():
    assert sheet_ks("Lookbehind-SAM", 4)[:3] in ([4, 3, 5], [4, 5, 3])
    assert sorted(sheet_ks("Lookbehind-SAM", 4)) == list(range(1, 11))
    assert sheet_ks("SAM", 4) == [0]
    assert len(RHO) == 21 and len(ALPHA) == 12 and STEPS == 40
