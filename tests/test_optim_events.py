"""Observers, contexts around evaluations, precision and layout, and what isn't to be moved."""

import copy
from contextlib import contextmanager

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from problems import (
    ALPHA,
    METHODS,
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

from lookbehind import AdaptiveBall, Ball, Lookbehind

# --- events, around -----------------------------------------------------------------------------


def recorded(method, k=2, **options):
    problem = mlp()
    events = []

    def observe(event):
        weights = [p.detach().clone() for p in event.params]
        grads = [None if p.grad is None else p.grad.clone() for p in event.params]
        events.append((event, weights, grads))

    base = make_base("sgd", problem.params)
    optimizer = METHODS[method](base, k=k, observers=[observe], **options)
    before = problem.weights
    loss = optimizer.step(problem.closure())
    return problem, events, before, loss


@pytest.mark.parametrize("method", ["Lookbehind", "Lookbehind 2k", "Lookbehind adaptive"])
def test_observers_see_the_path_of_lookbehind(method):
    problem, events, before, loss = recorded(method)
    kinds = [(event.kind, event.i) for event, _, _ in events]
    assert kinds == [
        ("slow", 0),
        ("gradient", 0),
        ("ascent", 1),
        ("gradient", 1),
        ("descent", 1),
        ("ascent", 2),
        ("gradient", 2),
        ("descent", 2),
        ("slow", 1),
    ]
    by = {
        kind: (event, weights, grads)
        for kind, (event, weights, grads) in zip(kinds, events, strict=True)
    }
    assert identical(by["slow", 0][1], before)
    assert by["gradient", 0][0].loss == loss
    for i in range(3):
        event, weights, grads = by["gradient", i]
        expected_loss, expected = problem.gradient()(weights)
        assert event.loss == expected_loss
        assert difference(grads, expected) < 1e-14
    fast = before
    for i in (1, 2):
        assert identical(by["ascent", i][1], by["gradient", i][1])
        fast = [w - 0.05 * g for w, g in zip(fast, by["gradient", i][2], strict=True)]
        assert difference(by["descent", i][1], fast) < 1e-14
    final, weights, _ = by["slow", 1]
    assert identical(weights, problem.weights)
    assert len(final.alpha) == len(before)
    for alpha, w, s, f in zip(final.alpha, weights, before, by["descent", 2][1], strict=True):
        assert difference([w], [s + alpha * (f - s)]) < 1e-14


def test_observers_see_the_path_of_multistep():
    _, events, before, _ = recorded("Multistep last")
    kinds = [(event.kind, event.i) for event, _, _ in events]
    climb = [("ascent", 1), ("gradient", 1), ("ascent", 2), ("gradient", 2)]
    assert kinds == [("slow", 0), ("gradient", 0), *climb, ("descent", 1), ("slow", 1)]
    expected = [w - 0.05 * g for w, g in zip(before, events[5][2], strict=True)]
    assert difference(events[6][1], expected) < 1e-14
    assert identical(events[7][1], events[6][1])


def test_observers_see_the_path_of_lookahead():
    problem, events, before, _ = recorded("Lookahead")
    kinds = [(event.kind, event.i) for event, _, _ in events]
    assert kinds == [("slow", 0), ("descent", 1), ("descent", 2), ("slow", 1)]
    assert identical(events[0][1], before)
    assert identical(events[3][1], problem.weights)
    assert events[3][0].alpha == [0.5] * len(before)


def test_observers_change_nothing():
    problem = mlp()
    seen = []

    def lookbehind(observers):
        return lambda q: Lookbehind(
            make_base("momentum", q.params), Ball(0.1), alpha="adaptive", observers=observers
        )

    watched = trained(problem, lookbehind([seen.append]))
    assert identical(watched, trained(problem, lookbehind([])))
    assert len(seen) == 2 * (3 + 3 * 5)


@pytest.mark.parametrize(
    ("method", "entered"),
    [
        ("SAM", [0, 1]),
        ("Multistep mean", [0, 1, 2, 3]),
        ("Lookbehind", [0, 1, 2, 3]),
        ("Lookbehind 2k", [0, 1, 1, 2, 2, 3]),
    ],
)
def test_around_is_entered_with_the_number_of_ascents(method, entered):
    problem = mlp()
    seen, inside = [], []

    @contextmanager
    def around(i):
        seen.append(i)
        inside.append(i)
        yield
        inside.pop()

    closure = problem.closure()

    def watched():
        assert inside == seen[-1:]
        return closure()

    METHODS[method](make_base("sgd", problem.params), around=around).step(watched)
    assert seen == entered
    assert not inside


def test_around_can_freeze_the_batch_norm_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    problem = Problem(model, [(x, y)])

    @contextmanager
    def frozen(i):
        model[1].momentum = 0.1 if i == 0 else 0.0
        yield

    expected = 0.1 * model[0](x).mean(0)
    Lookbehind(make_base("sgd", problem.params), Ball(0.5), around=frozen).step(problem.closure())
    assert difference([model[1].running_mean], [expected.detach()]) < 1e-12


# --- precision and layout -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_channels_last_parameters_keep_their_strides(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    plain = Problem(model, [(torch.randn(5, 3, 6, 6).double(), torch.randint(3, (5,)))])
    problem = copy.deepcopy(plain)
    problem.model.to(memory_format=torch.channels_last)
    strides = [p.stride() for p in problem.params]
    assert strides != [p.stride() for p in plain.params]
    optimizers = [METHODS[method](make_base("momentum", q.params)) for q in (plain, problem)]
    for _ in range(3):
        for optimizer, q in zip(optimizers, (plain, problem), strict=True):
            optimizer.step(q.closure())
    assert [p.stride() for p in problem.params] == strides
    assert difference(problem.weights, plain.weights) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains(method):
    problem = mlp(dtype=torch.bfloat16)
    problem.loss = lambda out, y: nn.functional.cross_entropy(out.float(), y)
    optimizer = METHODS[method](make_base("momentum", problem.params))
    losses = [optimizer.step(problem.closure()).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.bfloat16 for p in problem.params)


# --- what isn't to be moved ---------------------------------------------------------------------


@examples(30)
@given(
    mlps(), st.sampled_from(sorted(METHODS)), ALPHA, st.sampled_from(["sgd", "momentum", "adam"])
)
def test_a_zero_gradient_moves_nothing(problem, method, alpha, base):
    optimizer = METHODS[method](make_base(base, problem.params), alpha=alpha)
    before = problem.weights

    def closure():
        for p in problem.params:
            p.grad = torch.zeros_like(p)
        return torch.zeros(())

    for _ in range(2):
        optimizer.step(closure)
    assert identical(problem.weights, before)


@pytest.mark.parametrize("base", ["momentum wd", "adamw", "adam wd", "rmsprop"])
@pytest.mark.parametrize("method", METHODS)
def test_frozen_and_unused_parameters_are_untouched(method, base):
    """A frozen one even with a stale gradient and weight decay; an unused one has no gradient."""
    problem = mlp()
    problem.params[0].grad = torch.ones_like(problem.params[0])
    problem.params[0].requires_grad_(False)
    unused = nn.Parameter(torch.randn(3, dtype=torch.float64))
    optimizer = METHODS[method](make_base(base, [*problem.params, unused]))
    before = [problem.weights[0], unused.detach().clone()]
    moving = problem.weights[1:]
    inner = problem.closure()

    def closure():
        stale = problem.params[0].grad
        loss = inner()
        problem.params[0].grad = stale
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert identical([problem.params[0], unused], before)
    assert all((a != b).any() for a, b in zip(problem.weights[1:], moving, strict=True))


@examples(10)
@given(mlps())
def test_a_parameter_frozen_or_freed_later_counts_from_then_on(problem):
    assume(len(problem.params) > 2)
    optimizer = Lookbehind(make_base("momentum wd", problem.params), AdaptiveBall(0.1), k=2)
    optimizer.step(problem.closure())
    problem.params[0].requires_grad_(False)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights[:1], before[:1])
    problem.params[0].requires_grad_(True)
    optimizer.step(problem.closure())
    assert not identical(problem.weights[:1], before[:1])
