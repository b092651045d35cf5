"""The engine of the page against the optimizers that train networks, point by point."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

import lookbehind.explore
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import LOSSES, descend

pytestmark = pytest.mark.browser

FILE = Path(lookbehind.explore.__file__).parent / "toy" / "engine.js"
ENGINE = FILE.read_text(encoding="utf-8").replace("export ", "")
GROUPS, MEMBERS, STEPS = 46, 11, 20  # settings that differ in ρ, α and start run as one
FAR = 1e6  # out here a path has diverged
SEED = 7  # of the noise
# All goes to and fro as a text: Playwright is slow with half a million numbers.
RUN = """
    const [sources, settings] = JSON.parse(text);
    const losses = Object.fromEntries(Object.entries(sources).map(([n, s]) => [n, makeLoss(s)]));
    return JSON.stringify(settings.map(({ loss, draws, ...setting }) => {
        const given = { ...setting, noise: draws ? (t, i) => draws[t][i] : setting.noise };
        const end = endPoint(losses[loss], given, ...setting.start);
        return { ...descend(losses[loss], given), end };
    }));"""


def run_in(page, settings):
    sources = {name: loss.javascript for name, loss in LOSSES.items()}
    text = json.dumps([sources, settings])
    return json.loads(page.evaluate(f"text => {{ {ENGINE} {RUN} }}", text))


def drawn(chance):
    """Settings that the optimizer can run at once, as members."""
    method, loss = chance.choice(list(METHODS)), chance.choice([*LOSSES])
    x0, x1, y0, y1 = LOSSES[loss].window
    common = {
        "loss": loss, "method": method, "k": chance.randint(1, 10),
        "gradient": chance.choice(("last", "mean")), "momentum": chance.choice((0, 0.5, 0.9)),
        "adaptive": METHODS[method].adaptive and chance.random() < 0.3,
        "lr": chance.choice((0.003, 0.02, 0.05, 0.1, 0.3)), "steps": STEPS,
    }  # fmt: skip
    if LOSSES[loss].noise:
        common["draws"] = noise_of(common)
    return [
        common
        | {"rho": chance.choice((0.0, chance.uniform(0, 0.4))), "alpha": chance.random()}
        | {"start": [chance.uniform(x0, x1), chance.uniform(y0, y1)]}
        for _ in range(MEMBERS)
    ]


def by_optimizer(settings):
    one, exact = settings[0], {"dtype": torch.float64}
    chosen = {name: one[name] for name in ("k", "gradient")}
    rho, alpha = (torch.tensor([s[n] for s in settings], **exact) for n in ("rho", "alpha"))

    def make(w):
        base = SGD(w, lr=one["lr"], momentum=one["momentum"])
        share = "adaptive" if one["adaptive"] else alpha
        return make_method(one["method"], base, rho=rho, alpha=share, **chosen)

    starts = [setting["start"] for setting in settings]
    return descend(LOSSES[one["loss"]], starts, make, STEPS, seed=SEED)


def noise_of(setting):
    """The draws of `descend`: one a step, of Lookahead one an inner step."""
    sigma = LOSSES[setting["loss"]].noise
    count = setting["k"] if setting["method"].startswith("Lookahead") else 1
    generator = torch.Generator().manual_seed(SEED)
    return (sigma * torch.randn(STEPS, count, 2, generator=generator, dtype=torch.float64)).tolist()


def test_the_engine_is_the_optimizer(tab):
    """To 1e-9 until a path diverges; where it is chaotic, so that a start moved by a unit in its
    last place ends elsewhere, to 10⁴ times that difference.
    """
    chance = random.Random(0)
    groups = [drawn(chance) for _ in range(GROUPS)]
    found = iter(run_in(tab, [setting for group in groups for setting in group]))
    diverged = 0
    for group in groups:
        moved = [{**s, "start": list(np.nextafter(s["start"], np.inf))} for s in group]
        run = by_optimizer([*group, *moved])
        for e, setting in enumerate(group):
            compare(setting, run, e, next(found))
        diverged += run.diverged[:MEMBERS].sum()
    assert {group[0]["method"] for group in groups} == set(METHODS) and diverged > 10


def compare(setting, run, e, page):
    steps = len(page["slow"]) - 1
    if setting["method"] != "SGD":  # torch's own does not undo a step
        assert (steps < STEPS) == run.diverged[e], setting
    for name in ("slow", "fast", "ascent", "gradients"):
        path, other = (getattr(run, name)[: len(page[name]), ..., i, :] for i in (e, e + MEMBERS))
        ours = np.array(page[name], dtype=float).reshape(path.shape)
        if setting["method"].startswith("Lookbehind") and name != "slow":
            assert path.shape[1] == setting["k"] + (name == "gradients")
        most = {"axis": tuple(range(1, path.ndim)), "keepdims": True, "initial": 0}  # of a step
        with np.errstate(over="ignore", invalid="ignore"):
            off, size = np.abs(path - other).max(**most), np.abs(path).max(**most)
            allowed = np.maximum(1e-9, 1e4 * np.maximum.accumulate(off))
            near = np.abs(ours - path) <= allowed * np.maximum(1, np.abs(path))
        near |= ~(np.maximum.accumulate(size) < FAR)
        assert near.all(), (setting, name, np.abs(ours - path).max())
    alpha = np.array([np.nan if a is None else a for a in page["alpha"]], dtype=float)
    if off.max(initial=0) < 1e-13:
        np.testing.assert_allclose(alpha, run.alpha[:steps, e], atol=1e-9)
    if np.abs(run.slow[:, e]).max() < FAR:
        assert page["end"] == page["slow"][-1]


def test_noise_is_seeded_and_a_minibatchs_own(tab):
    setting = {
        "loss": "quadratic", "method": "Lookbehind-SAM", "k": 3, "rho": 0.1, "alpha": 0.5,
        "adaptive": False, "lr": 0.0, "momentum": 0, "start": [1.0, 1.0], "steps": 400,
        "noise": 0.5,
    }  # fmt: skip
    a, b, c = run_in(tab, [{**setting, "seed": seed} for seed in (1, 1, 2)])
    assert a == b and a["gradients"] != c["gradients"]
    noise = np.array(a["gradients"])[:, 0] - [1.0, 25.0]
    assert abs(noise.mean()) < 0.06 and noise.std() == pytest.approx(0.5, rel=0.1)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.12
    assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.12
