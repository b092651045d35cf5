"""Nothing is lost when a step fails."""

from contextlib import nullcontext
from functools import partial
from itertools import product
from math import inf, nan
from unittest.mock import Mock

import problems
import pytest
import torch
from problems import METHODS, identical, make_base, mlp, unchanged
from torch.distributed.optim import ZeroRedundancyOptimizer

from lookbehind import Lookahead

# With k = 3; the Lookahead of METHODS goes around SAM.
EVENTS = {**dict.fromkeys(METHODS, 12), "SAM": 6, "ASAM": 6, "Lookahead": 5}
EVENTS |= {"Multistep last": 10, "Multistep mean": 10}
FALLIBLE = {**METHODS, "plain Lookahead": lambda base: Lookahead(base, k=3)}
GRADIENTS = {**problems.GRADIENTS, "plain Lookahead": 3}


class Failing:
    """A closure that goes wrong at evaluation `at` (from 0), unless that is None."""

    def __init__(self, problem, kind):
        self.problem, self.go_wrong, self.at = problem, KINDS[kind][0], None

    def begin(self, at):
        self.at, self.problem.calls = at, 0

    def __call__(self):
        loss = self.problem.evaluate(0)
        return self.go_wrong(self.problem, loss) if self.problem.calls - 1 == self.at else loss


def throw(problem, loss, error):
    raise error


def spoil(problem, loss, value):
    """A finite loss, but one value of one gradient isn't."""
    problem.params[-1].grad.view(-1)[0] = value
    return loss


def forget(problem, loss):
    problem.model.zero_grad()
    return loss


# name: (what the closure then does, the error that leaves `step`, its message)
KINDS = {
    "exception": (partial(throw, error=LookupError("mine")), LookupError, "mine"),
    "interrupt": (partial(throw, error=KeyboardInterrupt("mine")), KeyboardInterrupt, "mine"),
    "nan loss": (lambda problem, loss: loss * nan, FloatingPointError, "loss"),
    "inf loss": (lambda problem, loss: loss * inf, FloatingPointError, "loss"),
    "nan loss as a float": (lambda problem, loss: nan, FloatingPointError, "loss"),
    "nan in several": (lambda p, loss: torch.tensor([1.0, nan]), FloatingPointError, "loss"),
    "nan of shape (1,)": (lambda p, loss: torch.tensor([nan]), FloatingPointError, "loss"),
    "nan gradient": (partial(spoil, value=nan), FloatingPointError, "gradient"),
    "inf gradient": (partial(spoil, value=inf), FloatingPointError, "gradient"),
    "no loss": (lambda problem, loss: None, TypeError, "closure must return the loss, got None"),
    "no backward": (forget, ValueError, "closure must call backward"),
}
FOR_ALL = ("exception", "interrupt", "nan loss", "nan gradient", "no loss", "no backward")
# The others are told apart only where an evaluation is met, which is one place for all that climb.
CASES = {*product(FALLIBLE, FOR_ALL), *product(("Lookbehind", "plain Lookahead"), KINDS)}


@pytest.mark.parametrize(("method", "kind"), sorted(CASES))
def test_a_failing_evaluation_leaves_everything_as_it_was(method, kind):
    """Each evaluation, on the first step (no state yet) and later; then training goes on."""
    _, error, message = KINDS[kind]
    for base, earlier in (("momentum wd", 0), ("adamw", 2)):
        problem, other = mlp(), mlp()
        closure = Failing(problem, kind)
        optimizer = FALLIBLE[method](make_base(base, problem.params))
        never_fails = FALLIBLE[method](make_base(base, other.params))
        for _ in range(earlier):
            optimizer.step(closure)
        for at in range(GRADIENTS[method]):
            closure.begin(at)
            with unchanged(problem, optimizer), pytest.raises(error, match=message) as caught:
                optimizer.step(closure)
            assert problem.calls == at + 1  # nothing runs at weights that are NaN
            if error is FloatingPointError:  # says which evaluation, and how far from φ
                n = at % 2 if method == "Lookahead" else at  # the inner SAM speaks
                ascents = {"Lookbehind 2k": (at + 1) // 2, "plain Lookahead": 0}.get(method, n)
                assert f"evaluation {n + 1} (after {ascents} ascent steps)" in str(caught.value)
        closure.begin(None)
        optimizer.step(closure)
        for _ in range(earlier + 1):
            never_fails.step(other.closure())
        assert identical(problem.weights, other.weights)
        assert other.calls == (earlier + 1) * GRADIENTS[method]


@pytest.mark.parametrize("where", ["observer", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_anywhere_leaves_everything_as_it_was(method, where):
    """In an observer, or where the base has moved the weights; without a state and with one."""
    problem, trap, count = mlp(), Mock(), EVENTS[method]
    optimizer = METHODS[method](make_base("momentum wd", problem.params))
    if where == "observer":
        optimizer.observers.append(trap)
    else:
        optimizer.base.register_step_post_hook(trap)
        count = 3 if method.startswith("Look") else 1
    for _ in range(2):
        for at in range(count):
            trap.side_effect = [None] * at + [KeyboardInterrupt]
            with unchanged(problem, optimizer), pytest.raises(KeyboardInterrupt):
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
            group["lr"] *= 0.9
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
    failing, never_fails = mlp(), mlp()
    for problem, fails in ((failing, [0, 1, 0, 1, 0]), (never_fails, [0, 0, 0])):
        optimizer = METHODS[method](KEEPING[base](problem.params))
        closure = Failing(problem, "nan gradient")
        for armed in fails:
            closure.begin(GRADIENTS[method] - 1 if armed else None)
            with pytest.raises(FloatingPointError) if armed else nullcontext():
                optimizer.step(closure)
    assert identical(failing.weights, never_fails.weights)
