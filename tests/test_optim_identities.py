"""What the optimizers must be equal to: each other in special cases, and themselves."""

import copy

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
    one_thread,  # noqa: F401
    trained,
)
from torch import nn

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookbehind, MultistepSAM
from lookbehind.optim import cosine_alpha

# --- identities ---------------------------------------------------------------------------------


ANY_BASE = st.sampled_from(sorted(BASES))
BALLS = st.one_of(st.builds(Ball, RHO), st.builds(AdaptiveBall, RHO, st.just(0.01)))


@examples(30)
@given(mlps(), ANY_BASE, BALLS, st.booleans())
def test_lookbehind_with_one_step_and_alpha_one_is_sam(problem, base, ball, reuse):
    def lookbehind(q):
        optimizer = make_base(base, q.params)
        return Lookbehind(optimizer, ball, k=1, alpha=1.0, reuse_gradients=reuse)

    def sam(q):
        optimizer = make_base(base, q.params)
        adaptive = isinstance(ball, AdaptiveBall)
        return ASAM(optimizer, ball.rho, ball.eta) if adaptive else SAM(optimizer, ball.rho)

    def multistep(q):
        return MultistepSAM(make_base(base, q.params), ball, k=1)

    expected = trained(problem, sam)
    assert identical(trained(problem, lookbehind), expected)
    assert identical(trained(problem, multistep), expected)


@examples(30)
@given(mlps(), ANY_BASE, K, st.sampled_from([Ball(0.0), AdaptiveBall(0.0)]))
def test_without_radius_it_is_k_base_steps_with_one_gradient(problem, base, k, ball):
    """With ρ = 0 every φ'_i is φ: k steps of the base optimizer, all with ∇L(φ)."""
    plain = copy.deepcopy(problem)
    optimizer = make_base(base, plain.params)
    _, gradient = plain.gradient()(plain.weights)
    for _ in range(k):
        for p, g in zip(plain.params, gradient, strict=True):
            p.grad = g.clone()
        optimizer.step()
    Lookbehind(make_base(base, problem.params), ball, k=k, alpha=1.0).step(problem.closure())
    assert difference(problem.weights, plain.weights) < 1e-14


@examples(30)
@given(mlps(), ANY_BASE, K, BALLS)
def test_alpha_zero_changes_nothing(problem, base, k, ball):
    optimizer = Lookbehind(make_base(base, problem.params), ball, k=k, alpha=0.0)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights, before)
    assert all(optimizer.base.state[p] for p in problem.params) or base.startswith("sgd")


@examples(30)
@given(mlps(), st.sampled_from(["sgd", "momentum", "nesterov", "adam"]), K, ALPHA, BALLS)
def test_a_constant_alpha_is_a_factor_on_the_learning_rate(problem, base, k, alpha, ball):
    """No gradient is taken at the fast weights: without weight decay, (α, lr) is (1, α lr)."""
    interpolated = trained(
        problem, lambda q: Lookbehind(make_base(base, q.params, 0.05), ball, k=k, alpha=alpha)
    )
    slower = trained(
        problem, lambda q: Lookbehind(make_base(base, q.params, 0.05 * alpha), ball, k=k, alpha=1.0)
    )
    assert difference(interpolated, slower) < 1e-10


@examples(30)
@given(mlps(), K, ALPHA, BALLS)
def test_on_plain_sgd_it_is_multistep_with_the_mean_gradient(problem, k, alpha, ball):
    """φ + α Σ (−lr ∇L(φ'_i)) is one step along the mean gradient with the learning rate αk lr."""
    lookbehind = trained(
        problem, lambda q: Lookbehind(make_base("sgd", q.params, 0.05), ball, k=k, alpha=alpha)
    )
    mean = trained(
        problem,
        lambda q: MultistepSAM(
            make_base("sgd", q.params, 0.05 * alpha * k), ball, k=k, gradient="mean"
        ),
    )
    assert difference(lookbehind, mean) < 1e-10


@examples(30)
@given(mlps(), ANY_BASE, K, BALLS)
def test_multistep_shares_the_climb_and_descends_once(problem, base, k, ball):
    """Both meet the same φ'_1..φ'_k; Multistep goes from φ with the gradient at the last."""
    met = {}

    def climbing(name, make):
        q = copy.deepcopy(problem)
        points = met[name] = []

        def observe(event):
            if event.kind == "ascent":
                points.append([p.detach().clone() for p in event.params])

        optimizer = make(make_base(base, q.params), ball, k=k, observers=[observe])
        optimizer.step(q.closure())
        return q

    multistep = climbing("multistep", MultistepSAM)
    climbing("lookbehind", Lookbehind)
    assert len(met["multistep"]) == k
    for one, other in zip(met["multistep"], met["lookbehind"], strict=True):
        assert identical(one, other)
    once = copy.deepcopy(problem)
    for p, g in zip(once.params, once.gradient()(met["multistep"][-1])[1], strict=True):
        p.grad = g
    make_base(base, once.params).step()
    assert difference(multistep.weights, once.weights) < 1e-12


@examples(30)
@given(mlps(dtype=torch.float32), ANY_BASE, K, ALPHA, BALLS)
def test_reuse_and_2k_agree_to_the_last_bit_in_float32(problem, base, k, alpha, ball):
    def lookbehind(reuse):
        return lambda q: Lookbehind(
            make_base(base, q.params), ball, k=k, alpha=alpha, reuse_gradients=reuse
        )

    assert identical(trained(problem, lookbehind(True), 3), trained(problem, lookbehind(False), 3))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_reuse_and_2k_agree_with_batch_norm(k):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    problem = Problem(model, [(torch.randn(5, 1, 6, 6), torch.randint(3, (5,)))])

    def lookbehind(reuse):
        return lambda q: Lookbehind(
            make_base("momentum wd", q.params), Ball(0.1), k=k, reuse_gradients=reuse
        )

    assert identical(trained(problem, lookbehind(True), 4), trained(problem, lookbehind(False), 4))


@examples(25)
@given(mlps(), st.sampled_from(sorted(METHODS)), ANY_BASE)
def test_the_parameters_keep_their_storage(problem, method, base):
    """Graph capture, DDP and views hold on to it; and the closure never sees another one."""
    optimizer = METHODS[method](make_base(base, problem.params))
    storage = [p.data_ptr() for p in problem.params]
    inner = problem.closure()

    def closure():
        assert [p.data_ptr() for p in problem.params] == storage
        return inner()

    for _ in range(2):
        optimizer.step(closure)
        assert [p.data_ptr() for p in problem.params] == storage


@pytest.mark.parametrize("method", METHODS)
def test_between_steps_the_parameters_are_the_slow_weights(method):
    """The loss returned is the one at the weights that were there before the step."""
    problem = mlp()
    optimizer = METHODS[method](make_base("momentum", problem.params))
    for _ in range(3):
        before = problem.gradient()(problem.weights)[0]
        loss = optimizer.step(problem.closure())
        assert loss == before
        assert not loss.requires_grad
        assert loss.grad_fn is None


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(method):
    problem = mlp()
    optimizer = METHODS[method](make_base("momentum", problem.params))
    losses = [optimizer.step(problem.closure()).item() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_alpha_may_be_any_function_of_the_displacements():
    problem = mlp()
    weights = problem.weights
    seen = []

    def alpha(first, total):
        seen.append((first.clone(), total.clone()))
        return 0.25

    scaled = [True] * len(weights)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    steps = [problem.gradient()] * 3
    first = reference.lookbehind(weights, steps[:1], oracle, (0.1, None), scaled, 1)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    expected = reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, 0.25)
    base = make_base("momentum", problem.params)
    Lookbehind(base, Ball(0.1), k=3, alpha=alpha).step(problem.closure())
    assert difference(problem.weights, expected) < 1e-12
    assert len(seen) == len(weights)
    for (a, b), w, f, e in zip(seen, weights, first, expected, strict=True):
        assert difference([a], [f - w]) < 1e-12
        assert difference([b], [4 * (e - w)]) < 1e-12


@examples(50)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_cosine_alpha_lies_in_the_unit_interval_and_knows_members(members, n, seed):
    torch.manual_seed(seed)
    first, total = torch.randn(2, members, n, dtype=torch.float64)
    expected = (torch.nn.functional.cosine_similarity(first, total, dim=1) + 1) / 2
    alone = [cosine_alpha(a.clone(), b.clone()) for a, b in zip(first, total, strict=True)]
    assert cosine_alpha(first.clone(), 3 * first).item() == pytest.approx(1)
    together = cosine_alpha(first.clone(), total.clone(), members)
    assert together.shape == (members,)
    assert ((together >= 0) & (together <= 1)).all()
    assert difference([together], [expected]) < 1e-12
    assert difference(alone, list(expected)) < 1e-12


def test_cosine_alpha_of_opposite_and_of_no_movement():
    v = torch.tensor([3.0, -4.0])
    assert cosine_alpha(v.clone(), -2 * v).item() == pytest.approx(0, abs=1e-6)
    assert cosine_alpha(torch.zeros(2), v.clone()) == 0.5
