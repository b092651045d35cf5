"""A step under way, undone where it fails: the weights and all that the base keeps go back."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.checks import check_members
from lookbehind.weights import clones, copy_, local, per_member, prompt


class Evaluation(NamedTuple):
    ascents: int  # taken before it
    loss: Tensor
    norm: Tensor  # of the gradient


class Step:
    """An outer step under way: `params` are live, `slow` is φ, where it began, `met` what it saw,
    `rolled_back` (E,) tells which members failed."""

    def __init__(self, base: Optimizer, members: int | None) -> None:
        check_members("rho", members, base.param_groups)
        every = [p for group in base.param_groups for p in group["params"]]
        for p in every:
            if not p.requires_grad:
                p.grad = None  # else the base optimizer would move it by a stale gradient
        self.params = [p for p in every if p.requires_grad]
        self.slow = clones(self.params)
        self.base, self.members = base, members
        self.met: list[Evaluation] = []
        self.rolled_back: Tensor | None = None

    def slope(self) -> Any:
        """The parameters that have a gradient, their slopes uphill for the base, `adaptive`."""
        steep = [
            (p, -p.grad if group.get("maximize") else p.grad, group.get("adaptive", True))
            for group in self.base.param_groups
            for p in group["params"]
            if p.grad is not None and p.requires_grad
        ]
        if not steep:
            raise ValueError("closure must call backward, got no gradient on any parameter")
        return map(list, zip(*steep, strict=True))

    def meet(self, ascents: int, loss: Any, norm_of: Callable[..., Tensor]) -> Tensor:
        """Remember an evaluation. Returns the loss as a detached tensor.

        On a CPU one that isn't finite ends the step here, before a forward pass at weights that
        are NaN; elsewhere at its end, as to ask would be to wait, or to part from other processes.
        """
        if loss is None:
            raise TypeError("closure must return the loss, got None")
        norm = norm_of(*self.slope())
        loss = torch.as_tensor(loss, device=norm.device).detach()
        if self.members is not None and loss.shape not in ((), (self.members,)):
            allowed = "closure must return one loss, or one per member"
            raise ValueError(f"{allowed}; got shape {tuple(loss.shape)}")
        self.met.append(Evaluation(ascents, loss, norm))
        asked = self.members is None and prompt(norm)
        if asked and not all(map(math.isfinite, (norm, loss.sum() if loss.ndim else loss))):
            self.failed()
        return loss

    def failed(self) -> Tensor | None:
        """Which members met a loss or gradient that isn't finite, without waiting for the device;
        alone, that is raised."""
        seen = [value for e in self.met for value in (e.loss, e.norm)]
        if self.members is not None:
            return ~torch.stack(torch.broadcast_tensors(*seen)).isfinite().all(0)
        flags = torch.stack([v.sum() if v.ndim else v for v in seen]).isfinite().tolist()
        if False not in flags:
            return None
        n, what = divmod(flags.index(False), 2)
        raise FloatingPointError(
            f"the {('loss', 'gradient')[what]} is not finite at evaluation {n + 1} (after "
            f"{self.met[n].ascents} ascent steps); the weights and the base optimizer's state "
            "are as before the step"
        )

    def put_back(self, failed: Tensor, before: dict[Any, dict[str, Any]]) -> None:
        """Undo the step of those that failed; what all members share (a step count) goes on."""
        pairs = list(zip(local(self.params), self.slow, strict=True))
        for p, values in self.base.state.items():
            for name, now in values.items():
                if isinstance(now, Tensor) and now.ndim:
                    pairs.append((now, before.get(p, {}).get(name, torch.zeros_like(now))))
        for now, then in pairs:
            now.copy_(torch.where(per_member(failed.to(now.device), now), then, now))


@contextmanager
def undone_if_it_fails(base: Optimizer, members: int | None) -> Iterator[Step]:
    """Whatever is raised inside puts back φ and what the base keeps; a member that fails, its own.

    What the closure changed beside these, as BatchNorm's statistics, is not known here.
    """
    step, kept = Step(base, members), list(_kept(base))
    try:
        yield step
        failed = step.rolled_back = step.failed()
        if failed is not None and (not prompt(failed) or failed.any()):
            step.put_back(failed, kept[0][1])
    except BaseException:
        copy_(step.params, step.slow)
        for live, before in kept:
            live.clear()
            live.update(before)
        raise


def _kept(optimizer: Optimizer) -> Iterator[tuple[Any, Any]]:
    """The dictionaries in which it keeps what it knows, the state first, each with a copy; those of
    optimizers inside it too, as ZeroRedundancyOptimizer has one."""
    yield optimizer.state, _copied(optimizer.state)
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name != "params"}
        yield group, {**_copied(options), "params": group["params"]}
    yield vars(optimizer), dict(vars(optimizer))
    for value in vars(optimizer).values():
        if isinstance(value, Optimizer):
            yield from _kept(value)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(inside) for name, inside in value.items()}
    if isinstance(value, Tensor):
        return value.clone()
    return value if type(value) in (float, int, bool, type(None)) else copy.deepcopy(value)
