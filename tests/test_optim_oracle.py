"""The official weights, and a naive transcription of the method in float64."""

import json
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import ALPHA, BASES, RHO, K, Problem, difference, examples, mlps
from torch import nn

from lookbehind import (
    ASAM,
    SAM,
    AdaptiveBall,
    Ball,
    Lookahead,
    Lookbehind,
    MultistepSAM,
    param_groups,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trajectories.json").read_text())


# --- the official figures ---------------------------------------------------------------------


def golden_problem(case):
    if case["net"] == "mlp":
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    else:
        conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        head = nn.Linear(144, 3)
        model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), head)
    model = model.double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.tensor(case["init"][name], dtype=torch.float64).view(p.shape))
    batches = [
        (torch.tensor(b["x"], dtype=torch.float64).view(b["shape"]), torch.tensor(b["y"]))
        for b in case["batches"]
    ]
    return Problem(model, batches)


def golden_optimizer(case, model):
    base = torch.optim.SGD(param_groups(model), lr=0.1, momentum=0.9, weight_decay=5e-4)
    asam = "asam" in case["method"]
    if case["method"] in ("sam", "asam"):
        return ASAM(base, case["rho"], case["eta"]) if asam else SAM(base, case["rho"])
    ball = AdaptiveBall(case["rho"], case["eta"]) if asam else Ball(case["rho"])
    return Lookbehind(base, ball, k=case["k"], alpha=case["alpha"])


@pytest.mark.parametrize("n", range(len(GOLDEN)))
def test_the_official_weights_are_reached(n):
    case, k, problem = GOLDEN[n], GOLDEN[n]["k"], golden_problem(GOLDEN[n])
    optimizer = golden_optimizer(case, problem.model)
    for t, first_loss in enumerate(case["first_losses"]):
        each = [problem.closure(t * k + i) for i in range(k)]
        problem.calls = 0
        loss = optimizer.step(each if case["switch_minibatch"] else problem.closure(t))
        assert problem.calls == (2 * k if case["switch_minibatch"] else k + 1)
        assert loss.item() == pytest.approx(first_loss, abs=1e-12)
        expected = case["weights_after_each_outer_step"][t]
        weights = dict(problem.model.named_parameters())
        assert set(weights) == set(expected)
        for name, w in weights.items():
            official = torch.tensor(expected[name], dtype=torch.float64).view(w.shape)
            assert (w - official).abs().max() <= 1e-12, (t, name)


# --- the oracle ---------------------------------------------------------------------------------


@st.composite
def groupings(draw, problem):
    """Groups with their own learning rate and `adaptive` flag, as both sides need them."""
    n = len(problem.params)
    of = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    lrs = draw(st.lists(st.sampled_from([0.01, 0.05, 0.1]), min_size=3, max_size=3))
    flags = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    groups = []
    for j in sorted(set(of)):
        params = [p for p, i in zip(problem.params, of, strict=True) if i == j]
        groups.append({"params": params, "lr": lrs[j], "adaptive": flags[j]})
    return groups, [lrs[j] for j in of], [flags[j] for j in of]


@st.composite
def runs(draw, batches=1):
    """A problem, torch's optimizer on it, and the oracle's arguments for the same."""
    problem = draw(mlps(batches))
    name = draw(st.sampled_from(sorted(BASES)))
    groups, lrs, scaled = draw(groupings(problem))
    make, called, options, own = BASES[name]
    base = make(groups, lr=0.1, **options, **own)
    oracle = reference.Base(called, [{"lr": lr, **options} for lr in lrs])
    rho, eta = draw(RHO), draw(st.sampled_from([None, 0.0, 0.01]))
    ball = Ball(rho) if eta is None else AdaptiveBall(rho, eta)
    return problem, base, ball, oracle, (rho, eta), scaled


def first_or_each(problem, k, switched):
    """The closure and the k gradients: all on the first minibatch, or each on its own."""
    closures = [problem.closure(i) for i in range(k)]
    gradients = [problem.gradient(i if switched else 0) for i in range(k)]
    return closures if switched else closures[0], gradients


@examples(50)
@given(runs(batches=6), K, st.one_of(ALPHA, st.just("adaptive")), st.booleans(), st.booleans())
def test_lookbehind_agrees_with_the_oracle(run, k, alpha, reuse, switched):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = Lookbehind(base, ball, k=k, alpha=alpha, reuse_gradients=reuse)
    closure, gradients = first_or_each(problem, k, switched)
    weights = problem.weights
    for _ in range(2):
        expected_loss = problem.gradient()(weights)[0]
        weights = reference.lookbehind(weights, gradients, oracle, climb, scaled, alpha)
        assert (optimizer.step(closure) - expected_loss).abs() < 1e-9
        assert difference(problem.weights, weights) < 1e-9
    assert problem.calls == 2 * (k + 1 if reuse and not switched else 2 * k)


@examples(30)
@given(runs(batches=6), K, st.sampled_from(["last", "mean"]), st.booleans())
def test_multistep_agrees_with_the_oracle(run, k, gradient, switched):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = MultistepSAM(base, ball, k=k, gradient=gradient)
    closure, gradients = first_or_each(problem, k, switched)
    weights, mean = problem.weights, gradient == "mean"
    for _ in range(2):
        weights = reference.multistep(weights, gradients, oracle, climb, scaled, mean)
        optimizer.step(closure)
        assert difference(problem.weights, weights) < 1e-9
    assert problem.calls == 2 * (2 * k if switched else k + 1)


@examples(20)
@given(runs(batches=3), ALPHA, st.booleans())
def test_lookahead_agrees_with_the_oracle(run, alpha, climbs):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = Lookahead(MultistepSAM(base, ball, k=1) if climbs else base, k=3, alpha=alpha)
    closures, gradients = first_or_each(problem, 3, switched=True)
    weights = problem.weights
    for _ in range(2):
        weights = reference.lookahead(
            weights, gradients, oracle, climb if climbs else None, scaled, alpha
        )
        optimizer.step(closures)
        assert difference(problem.weights, weights) < 1e-9
