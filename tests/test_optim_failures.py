"""Nothing is lost when a step fails."""

import copy
import math

import pytest
import torch
from problems import (
    METHODS,
    copied_state,
    identical,
    make_base,
    mlp,
    one_thread,  # noqa: F401
    same_state,
)
from torch import nn

from lookbehind import SAM, Lookahead

NAN, INF = math.nan, math.inf
# With k = 3.
EVALUATIONS = {**dict.fromkeys(METHODS, 4), "SAM": 2, "ASAM": 2, "Lookbehind 2k": 6, "Lookahead": 6}
EVENTS = {**dict.fromkeys(METHODS, 12), "SAM": 6, "ASAM": 6, "Lookahead": 5}
EVENTS |= {"Multistep last": 10, "Multistep mean": 10}


class Mishap(Exception):
    pass


class Failing:
    """A closure that goes wrong at evaluation `at` (from 0), once `armed`."""

    def __init__(self, problem, kind, at):
        self.problem, self.kind, self.at = problem, kind, at
        self.closure = problem.closure()
        self.armed, self.n = False, 0

    def __call__(self):
        loss = self.closure()
        failing = self.armed and self.n == self.at
        self.n += 1
        return KINDS[self.kind][0](self.problem, loss) if failing else loss


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_failing_evaluation_leaves_everything_as_it_was(method, kind):
    """Each evaluation, on the first step (no state yet) and later; then training can go on."""
    _, error, message = KINDS[kind]
    for base in ("momentum wd", "adamw"):
        for at in range(EVALUATIONS[method]):
            for earlier in (0, 2):
                problem = mlp()
                closure = Failing(problem, kind, at)
                optimizer = METHODS[method](make_base(base, problem.params))
                for _ in range(earlier):
                    optimizer.step(closure)
                weights, state = problem.weights, copied_state(optimizer.base)
                never_failed = copy.deepcopy((problem, optimizer))
                storage = [p.data_ptr() for p in problem.params]
                closure.armed, closure.n = True, 0
                with pytest.raises(error, match=message) as caught:
                    optimizer.step(closure)
                assert identical(problem.weights, weights)
                assert same_state(copied_state(optimizer.base), state)
                assert [p.data_ptr() for p in problem.params] == storage
                assert closure.n == at + 1  # nothing runs at weights that are NaN
                if error is FloatingPointError:
                    assert_named(str(caught.value), method, at)
                closure.armed = False
                optimizer.step(closure)
                other, other_optimizer = never_failed
                other_optimizer.step(other.closure())
                assert identical(problem.weights, other.weights)
                assert same_values(optimizer.base, other_optimizer.base)


def assert_named(message, method, at):
    """The message says which evaluation, and how far from φ."""
    n = at % 2 if method == "Lookahead" else at  # the inner SAM speaks
    ascents = (at + 1) // 2 if method == "Lookbehind 2k" else n
    assert f"evaluation {n + 1} (after {ascents} ascent steps)" in message


def same_values(one, two):
    states = [list(base.state_dict()["state"].values()) for base in (one, two)]
    flat = [[v for values in state for v in values.values()] for state in states]
    return all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*flat, strict=True)
    )


class Observer:
    """Raises `error` at the `fails`-th event."""

    def __init__(self, error):
        self.error, self.n, self.fails = error, 0, None

    def __call__(self, event):
        self.n += 1
        if self.n == self.fails:
            raise self.error


@pytest.mark.parametrize("error", [Mishap, KeyboardInterrupt])
@pytest.mark.parametrize("method", METHODS)
def test_an_observer_that_raises_leaves_everything_as_it_was(method, error):
    for earlier in (0, 2):
        problem, observer = mlp(), Observer(error)
        optimizer = METHODS[method](make_base("momentum wd", problem.params), observers=[observer])
        for _ in range(earlier):
            optimizer.step(problem.closure())
        weights, state = problem.weights, copied_state(optimizer.base)
        storage = [p.data_ptr() for p in problem.params]
        for fails in range(1, EVENTS[method] + 1):
            observer.n, observer.fails = 0, fails
            with pytest.raises(error):
                optimizer.step(problem.closure())
            assert identical(problem.weights, weights)
            assert same_state(copied_state(optimizer.base), state)
            assert [p.data_ptr() for p in problem.params] == storage
        observer.n, observer.fails = 0, None
        optimizer.step(problem.closure())
        assert observer.n == EVENTS[method]


class Interrupted(torch.optim.SGD):
    """Raises after it has moved the weights for the `fails`-th time."""

    fails = n = 0

    def step(self, closure=None):
        super().step(closure)
        self.n += 1
        if self.n == self.fails:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_in_the_base_leaves_everything_as_it_was(method):
    for earlier in (0, 2):
        for fails in range(1, 4 if method.startswith("Look") else 2):
            problem = mlp()
            base = Interrupted(problem.params, lr=0.1, momentum=0.9)
            optimizer = METHODS[method](base)
            for _ in range(earlier):
                optimizer.step(problem.closure())
            weights, state = problem.weights, copied_state(base)
            storage = [p.data_ptr() for p in problem.params]
            base.n, base.fails = 0, fails
            with pytest.raises(KeyboardInterrupt):
                optimizer.step(problem.closure())
            assert identical(problem.weights, weights)
            assert same_state(copied_state(base), state)
            assert [p.data_ptr() for p in problem.params] == storage


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(("value", "what"), [(NAN, "nan loss"), (NAN, "nan gradient")])
def test_lookahead_over_a_plain_optimizer_loses_nothing(at, value, what):
    problem = mlp()
    optimizer = Lookahead(make_base("momentum", problem.params), k=2)
    closure = Failing(problem, what, at)
    optimizer.step(closure)
    weights, state = problem.weights, copied_state(optimizer.base)
    closure.armed, closure.n = True, 0
    with pytest.raises(FloatingPointError, match=f"evaluation {at + 1} "):
        optimizer.step(closure)
    assert identical(problem.weights, weights)
    assert same_state(copied_state(optimizer.base), state)


def test_an_error_inside_lookahead_does_not_leave_the_inner_step_unguarded():
    """The inner step relies on Lookahead's copy of the state only while Lookahead is at work."""
    problem = mlp()
    optimizer = Lookahead(SAM(make_base("momentum", problem.params)), k=2)
    optimizer.step(problem.closure())
    for failing in (optimizer, optimizer.inner):
        state = copied_state(optimizer.base)
        closure = Failing(problem, "nan gradient", 1)
        closure.armed = True
        with pytest.raises(FloatingPointError):
            failing.step(closure)
        assert same_state(copied_state(optimizer.base), state)


def test_an_infinite_gradient_is_not_climbed_along():
    """BatchNorm's running statistics are from forward passes at finite weights only."""
    problem = mlp()
    problem.model.insert(1, nn.BatchNorm1d(5))
    problem.model.double()
    optimizer = METHODS["Lookbehind"](make_base("sgd", problem.params))
    closure = Failing(problem, "inf gradient", 0)
    closure.armed = True
    with pytest.raises(FloatingPointError):
        optimizer.step(closure)
    assert problem.model[1].num_batches_tracked == 1
    assert all(b.isfinite().all() for b in problem.model.buffers())


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
        closure = Failing(problem, "nan gradient", EVALUATIONS[method] - 1)
        for armed in fails:
            closure.armed, closure.n = armed, 0
            if armed:
                with pytest.raises(FloatingPointError):
                    optimizer.step(closure)
            else:
                optimizer.step(closure)
    assert identical(problems[0].weights, problems[1].weights)
