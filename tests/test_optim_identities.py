"""What the optimizers must be equal to: each other in special cases, and themselves."""

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
    difference,
    examples,
    identical,
    make_base,
    mlp,
    mlps,
    trained,
)

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookbehind, MultistepSAM
from lookbehind.optim import cosine_alpha

ANY_BASE = st.sampled_from(sorted(BASES))
BALLS = st.one_of(st.builds(Ball, RHO), st.builds(AdaptiveBall, RHO, st.just(0.01)))


@examples(20)
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
    def lookbehind(reuse):
        return lambda q: Lookbehind(
            make_base(base, q.params), ball, k=k, alpha=alpha, reuse_gradients=reuse
        )

    assert identical(trained(problem, lookbehind(True)), trained(problem, lookbehind(False)))


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
        oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
        steps, scaled = [problem.gradient()] * k, [True] * len(weights)
        return reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, alpha)

    first, last, end = expected(1, 1), expected(3, 1), expected(3, 0.25)
    base = make_base("momentum", problem.params)
    Lookbehind(base, Ball(0.1), k=3, alpha=alpha).step(problem.closure())
    assert difference(problem.weights, end) < 1e-12
    for (a, b), w, f, e in zip(seen, weights, first, last, strict=True):
        assert difference([a, b], [f - w, e - w]) < 1e-12


@examples(30)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_cosine_alpha_lies_in_the_unit_interval_and_knows_members(members, n, seed):
    torch.manual_seed(seed)
    first, total = torch.randn(2, members, n, dtype=torch.float64)
    expected = (torch.nn.functional.cosine_similarity(first, total, dim=1) + 1) / 2
    alone = [cosine_alpha(a.clone(), b.clone()) for a, b in zip(first, total, strict=True)]
    together = cosine_alpha(first.clone(), total.clone(), members)
    assert together.shape == (members,)
    assert ((together >= 0) & (together <= 1)).all()
    assert difference([together, *alone], [expected, *expected]) < 1e-12


def test_cosine_alpha_of_the_same_of_opposite_and_of_no_movement():
    v = torch.tensor([3.0, -4.0])
    assert cosine_alpha(v.clone(), 3 * v).item() == pytest.approx(1)
    assert cosine_alpha(v.clone(), -2 * v).item() == pytest.approx(0, abs=1e-6)
    assert cosine_alpha(torch.zeros(2), v.clone()) == 0.5
