"""Nothing is lost when a step fails."""

import math
from contextlib import nullcontext

import pytest
import torch
from problems import GRADIENTS, METHODS, identical, make_base, mlp, unchanged

from lookbehind import Lookahead

NAN, INF = math.nan, math.inf
# With k = 3; the Lookahead of METHODS goes around SAM.
EVENTS = {**dict.fromkeys(METHODS, 12), "SAM": 6, "ASAM": 6, "Lookahead": 5}
EVENTS |= {"Multistep last": 10, "Multistep mean": 10}
FALLIBLE = {**METHODS, "plain Lookahead": lambda base: Lookahead(base, k=3)}


class Mishap(Exception):
    pass


class Failing:
    """A closure that goes wrong at evaluation `at` (from 0), unless that is None."""

    def __init__(self, problem, kind):
        self.problem, self.kind, self.closure = problem, kind, problem.closure()
        self.begin(None)

    def begin(self, at):
        self.at, self.n = at, 0

    def __call__(self):
        loss = self.closure()
        self.n += 1
        return KINDS[self.kind][0](self.problem, loss) if self.n - 1 == self.at else loss


def raising(error):
    def go_wrong(problem, loss):
        raise error

    return go_wrong


def spoiled(value):
    """A finite loss, but one value of one gradient isn't."""

    def go_wrong(problem, loss):
        problem.params[-1].grad.view(-1)[0] = value
        return loss

    return go_wrong


def forgetful(problem, loss):
    problem.model.zero_grad()
    return loss


# name: (what the closure then does, the error that leaves `step`, its message)
KINDS = {
    "exception": (raising(Mishap("mine")), Mishap, "mine"),
    "interrupt": (raising(KeyboardInterrupt("mine")), KeyboardInterrupt, "mine"),
    "nan loss": (lambda problem, loss: loss * NAN, FloatingPointError, "loss"),
    "inf loss": (lambda problem, loss: loss * INF, FloatingPointError, "loss"),
    "nan loss as a float": (lambda problem, loss: NAN, FloatingPointError, "loss"),
    "nan in several": (lambda p, loss: torch.tensor([1.0, NAN]), FloatingPointError, "loss"),
    "nan of shape (1,)": (lambda p, loss: torch.tensor([NAN]), FloatingPointError, "loss"),
    "nan gradient": (spoiled(NAN), FloatingPointError, "gradient"),
    "inf gradient": (spoiled(INF), FloatingPointError, "gradient"),
    "no loss": (lambda problem, loss: None, TypeError, "closure must return the loss, got None"),
    "no backward": (forgetful, ValueError, "closure must call backward"),
}


# What is told apart only where an evaluation is met, which is one place for all that climb.
MET = ("inf loss", "nan loss as a float", "nan in several", "nan of shape (1,)", "inf gradient")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (method, kind)
        for method in FALLIBLE
        for kind in KINDS
        if kind not in MET or method in ("Lookbehind", "plain Lookahead")
    ],
)
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
        for at in range(GRADIENTS.get(method, 3)):
            closure.begin(at)
            with unchanged(problem, optimizer), pytest.raises(error, match=message) as caught:
                optimizer.step(closure)
            assert closure.n == at + 1  # nothing runs at weights that are NaN
            if error is FloatingPointError:
                assert_named(str(caught.value), method, at)
        closure.begin(None)
        optimizer.step(closure)
        for _ in range(earlier + 1):
            never_fails.step(other.closure())
        assert identical(problem.weights, other.weights)


def assert_named(message, method, at):
    """The message says which evaluation, and how far from φ."""
    n = at % 2 if method == "Lookahead" else at  # the inner SAM speaks
    ascents = {"Lookbehind 2k": (at + 1) // 2, "plain Lookahead": 0}.get(method, n)
    assert f"evaluation {n + 1} (after {ascents} ascent steps)" in message


class Trap:
    """An observer, or a hook, that raises when it is called for the `at`-th time."""

    n = at = 0

    def __call__(self, *_):
        self.n += 1
        if self.n == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["observer", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_anywhere_leaves_everything_as_it_was(method, where):
    """In an observer, or where the base has moved the weights; without a state and with one."""
    problem, trap, count = mlp(), Trap(), EVENTS[method]
    observers = [trap] if where == "observer" else []
    optimizer = METHODS[method](make_base("momentum wd", problem.params), observers=observers)
    if where == "base":
        optimizer.base.register_step_post_hook(trap)
        count = 3 if method.startswith("Look") else 1
    for _ in range(2):
        for at in range(1, count + 1):
            trap.n, trap.at = 0, at
            with unchanged(problem, optimizer), pytest.raises(KeyboardInterrupt):
                optimizer.step(problem.closure())
        trap.n, trap.at = 0, None
        optimizer.step(problem.closure())
        assert trap.n == count


# --- what a base keeps beside its state ---------------------------------------------------------


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


def scheduled(name):
    def make(params):
        base = getattr(pytest.importorskip("schedulefree"), name)(params, lr=0.1)
        base.train()
        return base

    return make


def sharded(params):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(params, torch.optim.AdamW, lr=0.1)


KEEPING = {
    "own": Counting,
    "SGDScheduleFree": scheduled("SGDScheduleFree"),
    "AdamWScheduleFree": scheduled("AdamWScheduleFree"),
    "RAdamScheduleFree": scheduled("RAdamScheduleFree"),
    "ZeroRedundancyOptimizer": sharded,
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
    problems = [mlp(), mlp()]
    for problem, fails in zip(problems, ([0, 1, 0, 1, 0], [0, 0, 0]), strict=True):
        optimizer = METHODS[method](KEEPING[base](problem.params))
        closure = Failing(problem, "nan gradient")
        for armed in fails:
            closure.begin(GRADIENTS[method] - 1 if armed else None)
            with pytest.raises(FloatingPointError) if armed else nullcontext():
                optimizer.step(closure)
    assert identical(problems[0].weights, problems[1].weights)
