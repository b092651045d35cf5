"""The official weights, a naive transcription in float64, and what must be equal to what."""

import json
from functools import partial
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import (
    ALPHA,
    BASES,
    METHODS,
    RHO,
    K,
    Problem,
    difference,
    examples,
    identical,
    make_base,
    mlp,
    mlps,
    trained,
)
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
from lookbehind.weights import cosine

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
    make, options, own = BASES[name]
    base, oracle = make(groups, **options, **own), reference.Base(make, lrs, **options)
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
@given(runs(batches=6), K, st.booleans(), st.booleans())
def test_multistep_agrees_with_the_oracle(run, k, mean, switched):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = MultistepSAM(base, ball, k=k, gradient="mean" if mean else "last")
    closure, gradients = first_or_each(problem, k, switched)
    weights = problem.weights
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


# What the optimizers must be equal to: each other in special cases, and themselves

ANY_BASE = st.sampled_from(sorted(BASES))
BALLS = st.one_of(st.builds(Ball, RHO), st.builds(AdaptiveBall, RHO, st.just(0.01)))


@examples(20)
@given(mlps(), ANY_BASE, BALLS, st.booleans())
def test_with_one_step_and_alpha_one_all_are_sam(problem, base, ball, reuse):
    sam = ASAM if isinstance(ball, AdaptiveBall) else SAM
    made = [
        lambda base: sam(base, **ball.asdict()),
        lambda base: MultistepSAM(base, ball, k=1),
        lambda base: Lookbehind(base, ball, k=1, alpha=1.0, reuse_gradients=reuse),
    ]
    expected, *others = (trained(problem, base, make) for make in made)
    assert all(identical(found, expected) for found in others)


@examples(20)
@given(mlps(), ANY_BASE, K, BALLS)
def test_alpha_zero_changes_nothing(problem, base, k, ball):
    optimizer = Lookbehind(make_base(base, problem.params), ball, k=k, alpha=0.0)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights, before)
    assert all(optimizer.base.state[p] for p in problem.params) or base.startswith("sgd")


@examples(20)
@given(mlps(dtype=torch.float32), ANY_BASE, K, ALPHA, BALLS)
def test_reuse_and_2k_agree_to_the_last_bit_in_float32(problem, base, k, alpha, ball):
    def weights(reuse):
        make = partial(Lookbehind, ball=ball, k=k, alpha=alpha, reuse_gradients=reuse)
        return trained(problem, base, make)

    assert identical(weights(True), weights(False))


@pytest.mark.parametrize("base", ["momentum", "nesterov foreach", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_between_steps_the_parameters_are_the_slow_weights_where_they_always_lay(method, base):
    """Graph capture, DDP and views hold on to their storage. The loss is the one at these weights,
    before the step."""
    problem = mlp()
    optimizer = METHODS[method](make_base(base, problem.params))
    storage = [p.data_ptr() for p in problem.params]
    inner = problem.closure()

    def closure():
        assert [p.data_ptr() for p in problem.params] == storage
        return inner()

    for _ in range(2):
        before = problem.gradient()(problem.weights)[0]
        loss = optimizer.step(closure)
        assert loss == before
        assert not loss.requires_grad
        assert [p.data_ptr() for p in problem.params] == storage


def test_alpha_may_be_any_function_of_the_displacements():
    problem, seen = mlp(), []
    weights = problem.weights

    def alpha(first, total):
        seen.append((first.clone(), total.clone()))
        return 0.25

    def expected(k, alpha):
        oracle = reference.Base(torch.optim.SGD, [0.05] * len(weights), momentum=0.9)
        steps, scaled = [problem.gradient()] * k, [True] * len(weights)
        return reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, alpha)

    first, last, end = expected(1, 1), expected(3, 1), expected(3, 0.25)
    base = make_base("momentum", problem.params)
    Lookbehind(base, Ball(0.1), k=3, alpha=alpha).step(problem.closure())
    assert difference(problem.weights, end) < 1e-12
    for (a, b), w, f, e in zip(seen, weights, first, last, strict=True):
        assert difference([a, b], [f - w, e - w]) < 1e-12


def test_the_cosine_of_the_same_of_opposite_and_of_no_movement():
    v = torch.tensor([3.0, -4.0])
    pairs = (v, 3 * v), (v, -2 * v), (0 * v, v)
    first, total = (torch.stack(some) for some in zip(*pairs, strict=True))
    for found in (cosine(first, total, 3, first), [cosine(a, b, None, a) for a, b in pairs]):
        assert [*map(float, found)] == pytest.approx([1, -1, 0], abs=1e-6)
