"""The bytes that an optimizer's step holds live, from the profiler's record of every allocation."""

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile, record_function

CLOSURE = "the closure"
NUMBER = 16  # bytes: a loss, a norm or a step count isn't memory worth counting


@dataclass(frozen=True)
class Live:
    peak: int  # most bytes at a time, above what was live before the step
    kept: int  # still live after it


def outside(closure):
    """`closure`, whose own allocations (activations, gradients) `live` leaves out."""

    def marked():
        with record_function(CLOSURE):
            return closure()

    return marked


def live(step):
    """What `step()` allocates on the CPU, outside of the closures marked by `outside`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    closures = [(e.start_ns(), e.end_ns()) for e in events if e.name() == CLOSURE]
    memory = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    memory = [(at, change) for at, change in memory if abs(change) > NUMBER]
    now = peak = 0
    for at, change in memory:
        if not any(start <= at <= end for start, end in closures):
            now += change
            peak = max(peak, now)
    return Live(peak, now)


def size(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def state_size(base):
    """Bytes of a base optimizer's state."""
    values = [v for state in base.state.values() for v in state.values()]
    return size([v for v in values if isinstance(v, torch.Tensor) and v.ndim])
