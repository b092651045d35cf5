"""A step: what it tells and leaves alone, and that nothing is lost where it fails."""

from contextlib import contextmanager
from functools import partial
from itertools import product
from math import inf, nan
from unittest.mock import Mock

import problems
import pytest
import torch
from problems import METHODS, around_mlp, difference, every_method, identical, make_base, mlp
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from lookbehind import Lookahead

SAMS = "slow0 gradient0 ascent1 gradient1 descent1 slow1"
MULTISTEP = "slow0 gradient0 ascent1 gradient1 ascent2 gradient2 descent1 slow1"
LOOKBEHIND = "slow0 gradient0 ascent1 gradient1 descent1 ascent2 gradient2 descent2 slow1"
EVENTS = {  # with k = 2
    **dict.fromkeys(METHODS, LOOKBEHIND),
    **{"SAM": SAMS, "ASAM": SAMS, "Multistep last": MULTISTEP, "Multistep mean": MULTISTEP},
    "Lookahead": "slow0 descent1 descent2 slow1",
}


@pytest.mark.parametrize("method", METHODS)
def test_observers_see_the_path(method):
    weights, grads, told = {}, {}, {}

    def observe(event):
        name = f"{event.kind}{event.i}"
        told[name], weights[name] = event, [p.detach().clone() for p in event.params]
        grads[name] = [None if p.grad is None else p.grad.clone() for p in event.params]

    problem, optimizer = around_mlp(method, "sgd", k=2, observers=[observe])
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


AROUND = {"SAM": [0, 1], "Lookbehind": [0, 1, 2, 3], "Lookbehind 2k": [0, 1, 1, 2, 2, 3]}


@pytest.mark.parametrize("method", AROUND)
def test_around_is_entered_with_the_number_of_ascents(method):
    seen = []

    @contextmanager
    def around(i):
        seen.append(i)
        yield
        seen.append("out")

    problem, optimizer = around_mlp(method, "sgd", around=around)
    optimizer.step(lambda: seen.append("in") or problem.evaluate(0))
    assert seen == [each for i in AROUND[method] for each in (i, "in", "out")]


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains(method):
    problem, optimizer = around_mlp(method, "momentum", torch.bfloat16)
    problem.loss = lambda out, y: nn.functional.cross_entropy(out.float(), y)
    losses = [optimizer.step(problem.closure()).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.bfloat16 for p in problem.params)


@every_method("momentum", "adam")
def test_a_zero_gradient_moves_nothing(method, base):
    problem, optimizer = around_mlp(method, base)
    before = problem.weights
    problem.loss = lambda out, y: 0 * out.sum()
    for _ in range(2):
        optimizer.step(problem.closure())
    assert identical(problem.weights, before)


@every_method("momentum wd", "adamw")
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


FALLIBLE = {**METHODS, "plain Lookahead": lambda base: Lookahead(base, k=3)}
# How many gradients a step of each takes, with k = 3; the Lookahead of METHODS goes around SAM.
GRADIENTS = {**dict.fromkeys(METHODS, 4), "SAM": 2, "ASAM": 2, "Lookbehind 2k": 6, "Lookahead": 6}
GRADIENTS["plain Lookahead"] = 3


def failing(problem, kind, at):
    """A closure that goes wrong at evaluation `at`, from 0."""
    problem.calls = 0

    def closure():
        loss = problem.evaluate(0)
        return KINDS[kind][0](problem, loss) if problem.calls == at + 1 else loss

    return closure


def spoil(problem, loss, value):
    """A finite loss, but one value of one gradient isn't."""
    problem.params[-1].grad.view(-1)[0] = value
    return loss


# name: (what the closure then does, the error that leaves `step`, its message)
KINDS = {
    "exception": (Mock(side_effect=LookupError("mine")), LookupError, "mine"),
    "interrupt": (Mock(side_effect=KeyboardInterrupt("mine")), KeyboardInterrupt, "mine"),
    "nan loss": (lambda problem, loss: loss * nan, FloatingPointError, "loss"),
    "inf loss": (lambda problem, loss: loss * inf, FloatingPointError, "loss"),
    "nan loss as a float": (lambda problem, loss: nan, FloatingPointError, "loss"),
    "nan in several": (lambda p, loss: torch.tensor([1.0, nan]), FloatingPointError, "loss"),
    "nan of shape (1,)": (lambda p, loss: torch.tensor([nan]), FloatingPointError, "loss"),
    "nan gradient": (partial(spoil, value=nan), FloatingPointError, "gradient"),
    "inf gradient": (partial(spoil, value=inf), FloatingPointError, "gradient"),
    "no loss": (lambda problem, loss: None, TypeError, "closure must return the loss, got None"),
    "no grad": (lambda p, x: p.model.zero_grad() or x, ValueError, "closure must call backward"),
}
FOR_ALL = ("exception", "interrupt", "nan loss", "nan gradient", "no loss", "no grad")
# The others are told apart only where an evaluation is met, which is one place for all that climb.
CASES = {*product(FALLIBLE, FOR_ALL), *product(("Lookbehind", "plain Lookahead"), KINDS)}


@pytest.mark.parametrize(("method", "kind"), sorted(CASES))
def test_a_failing_evaluation_leaves_everything_as_it_was(method, kind):
    """Each evaluation, on the first step (no state yet) and later; then training goes on."""
    _, error, message = KINDS[kind]
    for base, earlier in (("momentum wd", 0), ("adamw", 2)):
        problem, other = mlp(), mlp()
        optimizer = FALLIBLE[method](make_base(base, problem.params))
        never_fails = FALLIBLE[method](make_base(base, other.params))
        for _ in range(earlier):
            optimizer.step(problem.closure())
        for at in range(GRADIENTS[method]):
            closure, fails = failing(problem, kind, at), pytest.raises(error, match=message)
            with problems.unchanged(problem, optimizer), fails as caught:
                optimizer.step(closure)
            assert problem.calls == at + 1  # nothing runs at weights that are NaN
            if error is FloatingPointError:  # says which evaluation, and how far from φ
                n = at % 2 if method == "Lookahead" else at  # the inner SAM speaks
                ascents = {"Lookbehind 2k": (at + 1) // 2, "plain Lookahead": 0}.get(method, n)
                assert f"evaluation {n + 1} (after {ascents} ascent steps)" in str(caught.value)
        optimizer.step(problem.closure())
        for _ in range(earlier + 1):
            never_fails.step(other.closure())
        assert identical(problem.weights, other.weights)
        assert other.calls == (earlier + 1) * GRADIENTS[method]


@pytest.mark.parametrize("where", ["observer", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_anywhere_leaves_everything_as_it_was(method, where):
    """In an observer, or where the base has moved the weights; without a state and with one."""
    problem, optimizer = around_mlp(method, "momentum wd", k=2)
    trap, count = Mock(), len(EVENTS[method].split())
    if where == "observer":
        optimizer.observers.append(trap)
    else:
        optimizer.base.register_step_post_hook(trap)
        count = EVENTS[method].count("descent")
    for _ in range(2):
        for at in range(count):
            trap.side_effect = [None] * at + [KeyboardInterrupt]
            with problems.unchanged(problem, optimizer), pytest.raises(KeyboardInterrupt):
                optimizer.step(problem.closure())
        trap.reset_mock(side_effect=True)
        optimizer.step(problem.closure())
        assert trap.call_count == count


class Counting(torch.optim.SGD):
    """Keeps numbers of its own, in itself, in its groups, and under a name in its state."""

    def __init__(self, params):
        super().__init__(params, lr=0.1, momentum=0.9)
        self.count, self.param_groups[0]["seen"] = 0, torch.zeros(())

    def step(self, closure=None):
        super().step(closure)
        self.count += 1
        self.state["total"] = self.state.get("total", 0) + 1
        for group in self.param_groups:
            group["lr"] *= 0.9**self.count
            group["seen"] += 1
            group["last"] = self.count


def scheduled(name, params):
    base = getattr(pytest.importorskip("schedulefree"), name)(params, lr=0.1)
    base.train()
    return base


KEEPING = {
    "own": Counting,
    "sharded": partial(ZeroRedundancyOptimizer, optimizer_class=torch.optim.AdamW, lr=0.1),
    **{kind: partial(scheduled, f"{kind}ScheduleFree") for kind in ("SGD", "AdamW", "RAdam")},
}


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("base", KEEPING)
@pytest.mark.parametrize("method", ["Lookbehind adaptive", "Lookahead"])
def test_all_that_a_base_keeps_goes_back(method, base, alone):
    """After a failed step training goes on as if it had not been, bit for bit."""
    ends = []
    for fails in (True, False):
        problem = mlp()
        optimizer = METHODS[method](KEEPING[base](problem.params))
        for _ in range(3):
            if fails:
                with pytest.raises(FloatingPointError):
                    optimizer.step(failing(problem, "nan gradient", GRADIENTS[method] - 1))
            optimizer.step(problem.closure())
        ends.append(problem.weights)
    assert identical(*ends)
