"""The worst perturbation, the official weights, and a naive transcription in float64."""

import copy
import json
from functools import partial
from pathlib import Path

import numpy as np
import problems
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import around_mlp, difference, every_method, identical, make_base, mlp
from torch import nn
from torch.nn.utils import parameters_to_vector as flat
from torch.optim import SGD

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim import make_method, param_groups
from lookbehind.weights import cosine


@st.composite
def slopes(draw):
    """Weights, gradients and flags of a few tensors, 0-dim ones among them."""
    torch.manual_seed(draw(st.integers(0, 999)))
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4))
    params, grads = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
    return params, grads, [draw(st.booleans()) for _ in shapes]


@settings(max_examples=40, derandomize=True)
@given(slopes(), st.floats(0, 3), st.one_of(st.none(), st.floats(0.001, 1)))
def test_the_worst_in_a_neighborhood_is_at_its_edge(slope, rho, eta):
    """ε = ρ T² g / ‖T g‖: ‖T⁻¹ε‖ = ρ, and ⟨g, ε⟩ = ρ ‖T g‖, the largest by Cauchy-Schwarz."""
    params, grads, flags = slope
    ball = Ball(rho) if eta is None else AdaptiveBall(rho, eta)
    pairs = zip(params, flags if eta is not None else [False] * len(flags), strict=True)
    t = flat([w.abs() + eta if f else torch.ones_like(w) for w, f in pairs])
    worst, g = flat(ball.worst(params, grads, flags)), flat(grads)
    assert difference([worst], [rho * t**2 * g / (t * g).norm()]) < 1e-12
    assert (worst / t).norm().item() == pytest.approx(rho, abs=1e-12)
    rise = rho * ball.norm(params, grads, flags)
    assert (g @ worst).item() == pytest.approx(rise.item(), abs=1e-12)


@settings(max_examples=40, derandomize=True)
@given(slopes())
def test_by_default_all_are_adaptive_and_nothing_is_changed(slope):
    params, grads, flags = slope
    before = copy.deepcopy(params + grads)

    def found(ball, *flags):
        return [*ball.worst(params, grads, *flags), ball.norm(params, grads, *flags)]

    assert difference(found(AdaptiveBall(0.5)), found(AdaptiveBall(0.5), [True] * len(flags))) == 0
    assert difference(found(AdaptiveBall(0.5), [False] * len(flags)), found(Ball(0.5))) == 0
    assert difference(params + grads, before) == 0


@pytest.mark.parametrize("ball", [Ball, AdaptiveBall])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_gradient_has_no_worst_perturbation(ball, dtype):
    w, g = torch.ones(4, dtype=dtype), torch.zeros(4, dtype=dtype)
    for rho, nothing in ((0.3, g), (torch.full((4,), 0.3), g.float())):
        assert torch.equal(ball(rho).worst([w], [g])[0], nothing)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rho", "n"), [(1.0, 100_000), (torch.ones(2), 50_000)])
def test_half_precision_norms_are_summed_in_float32(dtype, rho, n):
    """In half precision this sum of squares would overflow, or stop growing."""
    g = torch.full((2, 50_000), 20.0, dtype=dtype)
    for ball, stretched in ((Ball(rho), 20.0), (AdaptiveBall(rho, 1.0), 40.0)):
        norm = ball.norm([torch.ones_like(g)], [g])
        assert norm.dtype == torch.float32
        assert norm.max().item() == pytest.approx(stretched * n**0.5, rel=1e-3)
    assert Ball(1.0).worst([g], [g])[0].dtype == dtype


def test_no_group_of_parameters_is_empty():
    """What the official ASAM scales is in the official weights below."""
    (group,) = param_groups(nn.Linear(2, 2, bias=False))
    assert len(group["params"]) == 1
    with pytest.raises(ValueError, match="model must have parameters, got ReLU with none"):
        param_groups(nn.ReLU())


GOLDEN = json.loads((Path(__file__).parent / "golden" / "trajectories.json").read_text())


def golden_problem(case):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    if case["net"] == "convbn":
        conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    for name, p in model.double().named_parameters():
        p.data = torch.tensor(np.reshape(case["init"][name], p.shape))
    images = [torch.tensor(np.reshape(b["x"], b["shape"])) for b in case["batches"]]
    labels = [torch.tensor(b["y"]) for b in case["batches"]]
    return problems.Problem(model, list(zip(images, labels, strict=True)))


@pytest.mark.parametrize("case", GOLDEN)
def test_the_official_weights_are_reached(case):
    k, problem = case["k"], golden_problem(case)
    base = SGD(param_groups(problem.model), lr=0.1, momentum=0.9, weight_decay=5e-4)
    name = case["method"].upper().replace("LOOKBEHIND", "Lookbehind")
    optimizer = make_method(name, base, rho=case["rho"], eta=case["eta"], k=k, alpha=case["alpha"])
    official = zip(case["first_losses"], case["weights_after_each_outer_step"], strict=True)
    for t, (first_loss, weights) in enumerate(official):
        each = [problem.closure(t * k + i) for i in range(k)]
        problem.calls = 0
        loss = optimizer.step(each if case["switch_minibatch"] else problem.closure(t))
        assert problem.calls == (2 * k if case["switch_minibatch"] else k + 1)
        assert loss.item() == pytest.approx(first_loss, abs=1e-12)
        found = {n: w.detach().flatten().tolist() for n, w in problem.model.named_parameters()}
        assert found == {n: pytest.approx(w, abs=1e-12) for n, w in weights.items()}


def of_displacements(first, total):
    return torch.tanh(first.norm() + 2 * total.norm())


RHO, K = st.floats(0, 0.5), st.integers(1, 6)
ALPHA = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
ANY_ALPHA = st.one_of(ALPHA, st.just("adaptive"), st.just(of_displacements))
ANY_BASE = st.sampled_from(sorted(problems.BASES))
BALLS = st.one_of(st.builds(Ball, RHO), st.builds(AdaptiveBall, RHO, st.just(0.01)))


@st.composite
def mlps(draw, batches=1, dtype=torch.float64):
    hidden = draw(st.lists(st.integers(1, 6), max_size=2))
    activation = draw(st.sampled_from(sorted(problems.ACTIVATIONS)))
    return mlp((4, *hidden, 3), activation, draw(st.integers(0, 99)), batches, dtype)


@st.composite
def runs(draw, batches):
    """A problem, torch's optimizer on it in groups with their own learning rate and `adaptive`
    flag, a neighborhood, and the oracle's arguments for the same."""
    problem, (make, options, own) = draw(mlps(batches)), problems.BASES[draw(ANY_BASE)]
    n = len(problem.params)
    of = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    lrs = draw(st.lists(st.sampled_from([0.01, 0.05, 0.1]), min_size=3, max_size=3))
    flags = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    groups = []
    for j in sorted(set(of)):
        params = [p for p, i in zip(problem.params, of, strict=True) if i == j]
        groups.append({"params": params, "lr": lrs[j], "adaptive": flags[j]})
    rho, eta = draw(RHO), draw(st.sampled_from([None, 0.0, 0.01]))
    oracle = reference.Base(make, [lrs[j] for j in of], **options)
    told = {"base": oracle, "climb": (rho, eta), "scaled": [flags[j] for j in of]}
    ball = Ball(rho) if eta is None else AdaptiveBall(rho, eta)
    return problem, make(groups, **options, **own), ball, told


def assert_agrees(problem, optimizer, oracle, k, switched, **told):
    """Two steps, all on the first minibatch or each inner one on its own: loss and weights."""
    closures = [problem.closure(i) for i in range(k)]
    gradients = [problem.gradient(i if switched else 0) for i in range(k)]
    weights = problem.weights
    for _ in range(2):
        expected_loss = problem.gradient()(weights)[0]
        weights = oracle(weights, gradients, **told)
        loss = optimizer.step(closures if switched else closures[0])
        assert (loss - expected_loss).abs() < 1e-9
        assert difference(problem.weights, weights) < 1e-9


@settings(max_examples=60, derandomize=True)
@given(runs(batches=6), K, ANY_ALPHA, st.booleans(), st.booleans())
def test_lookbehind_agrees_with_the_oracle(run, k, alpha, reuse, switched):
    problem, base, ball, told = run
    optimizer = Lookbehind(base, ball, k=k, alpha=alpha, reuse_gradients=reuse)
    assert_agrees(problem, optimizer, reference.lookbehind, k, switched, alpha=alpha, **told)
    assert problem.calls == 2 * (k + 1 if reuse and not switched else 2 * k)


@settings(max_examples=30, derandomize=True)
@given(runs(batches=6), K, st.booleans(), st.booleans())
def test_multistep_agrees_with_the_oracle(run, k, mean, switched):
    problem, base, ball, told = run
    optimizer = MultistepSAM(base, ball, k=k, gradient="mean" if mean else "last")
    assert_agrees(problem, optimizer, reference.multistep, k, switched, mean=mean, **told)
    assert problem.calls == 2 * (2 * k if switched else k + 1)


@settings(max_examples=20, derandomize=True)
@given(runs(batches=3), ALPHA, st.booleans())
def test_lookahead_agrees_with_the_oracle(run, alpha, climbs):
    problem, base, ball, told = run
    inner = MultistepSAM(base, ball, k=1) if climbs else base
    told["climb"] = told["climb"] if climbs else None
    optimizer = Lookahead(inner, k=3, alpha=alpha)
    assert_agrees(problem, optimizer, reference.lookahead, 3, True, alpha=alpha, **told)
    assert problem.calls == 2 * (6 if climbs else 3)


def trained(problem, base, make):
    """The weights of a copy of `problem` after two steps of what `make` makes around the base."""
    problem = copy.deepcopy(problem)
    optimizer = make(make_base(base, problem.params))
    for _ in range(2):
        optimizer.step(problem.closure())
    return problem.weights


@settings(max_examples=20, derandomize=True)
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


@settings(max_examples=20, derandomize=True)
@given(mlps(), ANY_BASE, K, BALLS)
def test_alpha_zero_changes_nothing(problem, base, k, ball):
    optimizer = Lookbehind(make_base(base, problem.params), ball, k=k, alpha=0.0)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights, before)
    assert all(optimizer.base.state[p] for p in problem.params) or base.startswith("sgd")


@settings(max_examples=20, derandomize=True)
@given(mlps(dtype=torch.float32), ANY_BASE, K, ALPHA, BALLS)
def test_reuse_and_2k_agree_to_the_last_bit_in_float32(problem, base, k, alpha, ball):
    def weights(reuse):
        make = partial(Lookbehind, ball=ball, k=k, alpha=alpha, reuse_gradients=reuse)
        return trained(problem, base, make)

    assert identical(weights(True), weights(False))


@every_method("momentum", "nesterov foreach", "adamw")
def test_between_steps_the_parameters_are_the_slow_weights_where_they_always_lay(method, base):
    """Graph capture, DDP and views hold on to their storage. The loss is the one at these weights,
    before the step."""
    problem, optimizer = around_mlp(method, base)
    storage = [p.data_ptr() for p in problem.params]

    def closure():
        assert [p.data_ptr() for p in problem.params] == storage
        return problem.evaluate(0)

    for _ in range(2):
        before = problem.gradient()(problem.weights)[0]
        loss = optimizer.step(closure)
        assert loss == before and not loss.requires_grad
        assert [p.data_ptr() for p in problem.params] == storage


def test_the_cosine_of_the_same_of_opposite_and_of_no_movement():
    v = torch.tensor([3.0, -4.0])
    pairs = (v, 3 * v), (v, -2 * v), (0 * v, v)
    first, total = (torch.stack(some) for some in zip(*pairs, strict=True))
    for found in (cosine(first, total, 3, first), [cosine(a, b, None, a) for a, b in pairs]):
        assert [*map(float, found)] == pytest.approx([1, -1, 0], abs=1e-6)
