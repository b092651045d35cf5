"""What a step costs: synchronizations, memory."""

import itertools

import pytest
import torch
from problems import METHODS, around_mlp, closure_of, every_method, make_base
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from lookbehind import AdaptiveBall, Lookbehind
from lookbehind.optim import undo

WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select")
UNSEEN = ("tolist", "cpu", "numpy")  # by a dispatcher


class Waits(TorchDispatchMode):
    """Counts what would make a host wait for its device."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.seen, self.paused = [], False
        for name, method in [(name, getattr(torch.Tensor, name)) for name in UNSEEN]:

            def counted(*args, name=name, method=method):
                self.note(name)
                return method(*args)

            monkeypatch.setattr(torch.Tensor, name, counted)

    def note(self, name):
        if not self.paused:
            self.seen.append(name)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        masked = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        if name in WAITING or masked:
            self.note(name)
        return func(*args, **kwargs or {})


@every_method("momentum wd", "nesterov foreach", "adamw")
def test_a_step_waits_for_its_device_once_at_its_end(method, base, monkeypatch):
    monkeypatch.setattr(undo, "prompt", lambda tensor: False)  # as on a GPU
    problem, optimizer = around_mlp(method, base)
    optimizer.step(problem.closure())
    waits, seen_at_events = Waits(monkeypatch), []
    # What the base does by itself is left out: AdamW reads its own step count.
    optimizer.base.register_step_pre_hook(lambda *_: setattr(waits, "paused", True))
    optimizer.base.register_step_post_hook(lambda *_: setattr(waits, "paused", False))
    optimizer.observers.append(lambda event: seen_at_events.append(len(waits.seen)))
    with waits:
        optimizer.step(problem.closure())
    inner = 3 if method == "Lookahead" else 0  # each of its SAM steps may wait once
    assert waits.seen == ["tolist"] * (1 + inner)
    assert seen_at_events[-1] == inner


def test_waits_are_seen(monkeypatch):
    one = torch.ones(3)
    waits = Waits(monkeypatch)
    with waits:
        one.sum().item()
        one.tolist()
        bool(one[0] > 0)
        one[one > 0]
        torch.equal(one, one)
        one.nonzero()
    scalar = "_local_scalar_dense"
    assert waits.seen == [scalar, "tolist", scalar, "index", "equal", "nonzero"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_members_never_wait_for_a_gpu(device, monkeypatch):
    w = nn.Parameter(torch.ones(3, 2, device=device))
    rho = torch.full((3,), 0.1, device=device)
    optimizer = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(rho), alpha="adaptive")
    waits = Waits(monkeypatch)
    with waits:
        optimizer.step(closure_of([w], lambda w: w.square().sum(1)))
    # On a CPU, where it costs nothing, they ask at the end of a step whether one failed.
    assert waits.seen == (["_local_scalar_dense"] if device == "cpu" else [])


@pytest.mark.gpu
@every_method("momentum wd", "nesterov foreach", "adamw")
def test_on_a_gpu_nothing_waits_before_the_last_event(method, base):
    problem, optimizer = around_mlp(method, base, torch.float32)
    problem.model.cuda()
    problem.batches = [(x.cuda(), y.cuda()) for x, y in problem.batches]
    for _ in range(3):
        optimizer.step(problem.closure())

    def strict(event):
        strictness = {("slow", 0): "error", ("slow", 1): "default"}.get((event.kind, event.i))
        if strictness:
            torch.cuda.set_sync_debug_mode(strictness)

    (optimizer.inner if method == "Lookahead" else optimizer).observers.append(strict)
    try:
        optimizer.step(problem.closure())
    finally:
        torch.cuda.set_sync_debug_mode("default")


SMALL = 2048  # bytes: losses, norms, step counts
SHAPES = {"one large": [(500, 1000), (7,), (7,)], "many": [(110, 110)] * 40}


def live(step):
    """The most bytes at a time that `step()` allocates, and what is still live after it, from the
    profiler's record of every allocation on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    changes = [change for _, change in memory if abs(change) > 16]  # bytes: not a lone number
    sums = [0, *itertools.accumulate(changes)]
    return max(sums), sums[-1]


@pytest.mark.parametrize(
    ("shapes", "base"), [("one large", "adamw"), ("many", "momentum wd"), ("many", "adam wd")]
)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_holds_few_copies_of_the_weights_and_none_after_it(shapes, method, base):
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(shape)) for shape in SHAPES[shapes]]
    gradients, loss = [torch.randn_like(p) for p in params], torch.zeros(())
    copies, weights = 4 if method == "Lookbehind adaptive" else 3, sum(p.nbytes for p in params)
    made = make_base(base, params, lr=1e-3)
    optimizer = METHODS[method](made)

    def closure():
        """Allocates nothing, so that all that is allocated is the optimizer's."""
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        return loss

    def step():
        optimizer.step(closure)
        optimizer.zero_grad()  # of gradients that it made, as the mean of many

    step()
    closure()
    # What AdamW itself allocates for one large tensor goes beyond the one copy that ε had before.
    beyond = max(0, live(made.step)[0] - weights)
    optimizer.zero_grad()
    peak, kept = live(step)
    state = sum(v.nbytes for s in made.state.values() for v in s.values() if torch.is_tensor(v))
    assert peak <= copies * weights + state + beyond + SMALL
    assert abs(kept) <= SMALL


def test_live_bytes_are_seen():
    kept = []
    assert live(lambda: kept.append(torch.ones(1000) + 1)) == (8000, 4000)
