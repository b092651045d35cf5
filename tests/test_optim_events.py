"""Observers, contexts around evaluations, half precision, and what isn't to be moved."""

from contextlib import contextmanager

import pytest
import torch
from problems import METHODS, difference, identical, make_base, mlp
from torch import nn

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


AROUND = {"SAM": [0, 1], "Multistep mean": [0, 1, 2, 3], "Lookbehind": [0, 1, 2, 3]}
AROUND["Lookbehind 2k"] = [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("method", AROUND)
def test_around_is_entered_with_the_number_of_ascents(method):
    problem, seen = mlp(), []

    @contextmanager
    def around(i):
        seen.append(i)
        yield
        seen.append("out")

    optimizer = METHODS[method](make_base("sgd", problem.params), around=around)
    optimizer.step(lambda: seen.append("in") or problem.evaluate(0))
    assert seen == [each for i in AROUND[method] for each in (i, "in", "out")]


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains(method):
    problem = mlp(dtype=torch.bfloat16)
    problem.loss = lambda out, y: nn.functional.cross_entropy(out.float(), y)
    optimizer = METHODS[method](make_base("momentum", problem.params))
    losses = [optimizer.step(problem.closure()).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.bfloat16 for p in problem.params)


@pytest.mark.parametrize("base", ["momentum", "adam"])
@pytest.mark.parametrize("method", METHODS)
def test_a_zero_gradient_moves_nothing(method, base):
    problem = mlp()
    optimizer = METHODS[method](make_base(base, problem.params))
    before = problem.weights
    problem.loss = lambda out, y: 0 * out.sum()
    for _ in range(2):
        optimizer.step(problem.closure())
    assert identical(problem.weights, before)


@pytest.mark.parametrize("base", ["momentum wd", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_frozen_and_unused_parameters_are_untouched(method, base):
    """A frozen one even with a stale gradient and weight decay; an unused one has no gradient."""
    problem = mlp()
    frozen, *moving = problem.params
    unused = nn.Parameter(torch.randn(3, dtype=torch.float64))
    every = [frozen, unused, *moving]
    optimizer = METHODS[method](make_base(base, every))
    optimizer.step(problem.closure())
    frozen.requires_grad_(False)
    before = [p.detach().clone() for p in every]

    def closure():
        stale = frozen.grad
        loss, frozen.grad = problem.evaluate(0), stale
        return loss

    for _ in range(2):
        frozen.grad = torch.ones_like(frozen)
        optimizer.step(closure)
    changed = [(a != b).any() for a, b in zip(every, before, strict=True)]
    assert changed == [False, False, *[True] * len(moving)]
    frozen.requires_grad_(True)  # counts again from now on
    optimizer.step(problem.closure())
    assert (frozen != before[0]).any()
