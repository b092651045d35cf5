"""Observers, contexts around evaluations, precision and layout, and what isn't to be moved."""

import copy
from contextlib import contextmanager

import pytest
import torch
from problems import METHODS, Problem, difference, identical, make_base, mlp
from torch import nn

# --- events, around -----------------------------------------------------------------------------


LOOKBEHIND = "slow0 gradient0 ascent1 gradient1 descent1 ascent2 gradient2 descent2 slow1"
EVENTS = {
    **dict.fromkeys(("Lookbehind", "Lookbehind 2k", "Lookbehind adaptive"), LOOKBEHIND),
    "Multistep last": "slow0 gradient0 ascent1 gradient1 ascent2 gradient2 descent1 slow1",
    "Lookahead": "slow0 descent1 descent2 slow1",
}


@pytest.mark.parametrize("method", EVENTS)
def test_observers_see_the_path(method):
    problem, weights, grads, told = mlp(), {}, {}, {}

    def observe(event):
        name = f"{event.kind}{event.i}"
        told[name], weights[name] = event, [p.detach().clone() for p in event.params]
        grads[name] = [None if p.grad is None else p.grad.clone() for p in event.params]

    optimizer = METHODS[method](make_base("sgd", problem.params), k=2, observers=[observe])
    fast = before = problem.weights
    loss = optimizer.step(problem.closure())
    assert " ".join(told) == EVENTS[method]
    assert identical(weights["slow0"], before) and identical(weights["slow1"], problem.weights)
    for name in told:
        if name.startswith("gradient"):
            expected_loss, expected = problem.gradient()(weights[name])
            assert told[name].loss == expected_loss
            assert difference(grads[name], expected) < 1e-14
        if name.startswith("ascent"):
            assert identical(weights[name], weights[name.replace("ascent", "gradient")])
        if name.startswith("descent") and method != "Lookahead":
            fast = [w - 0.05 * g for w, g in zip(fast, grads[name], strict=True)]
            assert difference(weights[name], fast) < 1e-14
    if method.startswith("Look"):
        alphas, fast = told["slow1"].alpha, weights["descent2"]
        expected = [s + a * (f - s) for a, s, f in zip(alphas, before, fast, strict=True)]
        assert difference(weights["slow1"], expected) < 1e-14
        assert method == "Lookahead" or told["gradient0"].loss == loss


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
    problem, seen = mlp(), []

    @contextmanager
    def around(i):
        seen.append(i)
        yield
        seen.append("out")

    optimizer = METHODS[method](make_base("sgd", problem.params), around=around)
    optimizer.step(lambda: seen.append("in") or problem.closure()())
    assert seen == [each for i in entered for each in (i, "in", "out")]


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


@pytest.mark.parametrize("base", ["momentum", "adam"])
@pytest.mark.parametrize("method", METHODS)
def test_a_zero_gradient_moves_nothing(method, base):
    problem = mlp()
    optimizer = METHODS[method](make_base(base, problem.params))
    before = problem.weights

    def closure():
        for p in problem.params:
            p.grad = torch.zeros_like(p)
        return torch.zeros(())

    for _ in range(2):
        optimizer.step(closure)
    assert identical(problem.weights, before)


@pytest.mark.parametrize("base", ["momentum wd", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_frozen_and_unused_parameters_are_untouched(method, base):
    """A frozen one even with a stale gradient and weight decay; an unused one has no gradient."""
    problem = mlp()
    frozen, *moving = problem.params
    unused = nn.Parameter(torch.randn(3, dtype=torch.float64))
    optimizer = METHODS[method](make_base(base, [*problem.params, unused]))
    optimizer.step(problem.closure())
    frozen.requires_grad_(False)
    before = [p.detach().clone() for p in (frozen, unused, *moving)]

    def closure():
        stale = frozen.grad
        loss, frozen.grad = problem.closure()(), stale
        return loss

    for _ in range(2):
        frozen.grad = torch.ones_like(frozen)
        optimizer.step(closure)
    changed = [(a != b).any() for a, b in zip((frozen, unused, *moving), before, strict=True)]
    assert changed == [False, False, *[True] * len(moving)]
    frozen.requires_grad_(True)  # counts again from now on
    optimizer.step(problem.closure())
    assert (frozen != before[0]).any()
