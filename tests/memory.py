"""The bytes that an optimizer's step holds live, from the profiler's record of every allocation."""

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

NUMBER = 16  # bytes: a loss, a norm or a step count isn't memory worth counting


@dataclass(frozen=True)
class Live:
    peak: int  # most bytes at a time, above what was live before the step
    kept: int  # still live after it


def given_gradients(params):
    """A closure that allocates nothing, so that all that is allocated is the optimizer's."""
    params = list(params)
    gradients, loss = [torch.randn_like(p) for p in params], torch.zeros(())

    def closure():
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        return loss

    return closure


def live(step):
    """What `step()` allocates on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    memory = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = peak = 0
    for _, change in sorted(memory, key=lambda event: event[0]):
        if abs(change) > NUMBER:
            now += change
            peak = max(peak, now)
    return Live(peak, now)


def live_of_a_step(optimizer):
    """`live` of one step; gradients that it made, as the mean of many, don't count as kept."""
    closure = given_gradients(p for group in optimizer.param_groups for p in group["params"])
    optimizer.zero_grad()

    def step():
        optimizer.step(closure)
        optimizer.zero_grad()

    return live(step)


def size(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def state_size(base):
    """Bytes of a base optimizer's state."""
    values = [v for state in base.state.values() for v in state.values()]
    return size([v for v in values if isinstance(v, torch.Tensor) and v.ndim])
