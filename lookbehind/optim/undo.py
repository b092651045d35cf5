"""A step that is undone where it fails: the weights and the base optimizer's state go back."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.weights import clones, copy_, local, per_member

State = dict[Tensor, dict[str, Any]]


class Evaluation(NamedTuple):
    ascents: int  # taken before it
    loss: Tensor
    norm: Tensor  # of the gradient


class Step:
    """An outer step under way: `params` are live, `slow` is φ, where it began, `met` what it saw.

    With members a failure is a member's own: `rolled_back` (E,) tells whose.
    """

    def __init__(self, base: Optimizer, members: int | None) -> None:
        every = [p for group in base.param_groups for p in group["params"]]
        for p in every:
            if not p.requires_grad:
                p.grad = None  # else the base optimizer would move it by a stale gradient
        self.params = [p for p in every if p.requires_grad]
        self.slow = clones(self.params)
        self.base, self.members = base, members
        self.met: list[Evaluation] = []
        self.rolled_back: Tensor | None = None

    def meet(self, ascents: int, loss: Any, gradient_norm: Callable[[], Tensor]) -> Tensor:
        """Remember an evaluation. Returns the loss as a detached tensor."""
        if loss is None:
            raise TypeError("closure must return the loss, got None")
        norm = gradient_norm()
        loss = torch.as_tensor(loss, device=norm.device).detach()
        if self.members is not None and loss.shape not in ((), (self.members,)):
            raise ValueError(
                f"closure must return one loss, or one per member; got shape {tuple(loss.shape)}"
            )
        self.met.append(Evaluation(ascents, loss, norm))
        return loss

    @property
    def loss(self) -> Tensor:
        """At φ."""
        return self.met[0].loss

    def failed(self) -> Tensor | None:
        """Which members met a loss or gradient that is not finite; alone, that is raised.

        The step's only synchronization: none at all where there are members.
        """
        seen = [value for e in self.met for value in (e.loss, e.norm)]
        if self.members is not None:
            return ~torch.stack(torch.broadcast_tensors(*seen)).isfinite().all(0)
        flags = torch.stack([v.sum() if v.ndim else v for v in seen]).isfinite().tolist()
        if False not in flags:
            return None
        n, what = divmod(flags.index(False), 2)
        raise FloatingPointError(
            f"the {('loss', 'gradient')[what]} is not finite at evaluation {n + 1} of "
            f"{len(self.met)} (after {self.met[n].ascents} ascent steps); "
            "the weights and the base optimizer's state are as before the step"
        )

    def put_back(self, failed: Tensor, before: State) -> None:
        """Undo the step of the members that failed, without asking which they are.

        State that all members share (Adam's step count) goes on.
        """
        pairs = list(zip(local(self.params), self.slow, strict=True))
        for p, values in self.base.state.items():
            for name, now in values.items():
                if isinstance(now, Tensor) and now.ndim:
                    pairs.append((now, before.get(p, {}).get(name, torch.zeros_like(now))))
        for now, then in pairs:
            now.copy_(torch.where(per_member(failed, now), then, now))


@contextmanager
def undone_if_it_fails(base: Optimizer, members: int | None) -> Iterator[Step]:
    """Whatever is raised inside puts φ and the base's state back; a member that fails, its own."""
    step, before = Step(base, members), _copied(base.state)
    try:
        yield step
        failed = step.rolled_back = step.failed()
        # To ask whether one failed would wait for a GPU; on a CPU it saves passes over memory.
        if failed is not None and (failed.device.type != "cpu" or failed.any()):
            step.put_back(failed, before)
    except BaseException:
        copy_(step.params, step.slow)
        base.state.clear()
        base.state.update(before)
        raise


def _copied(state: State) -> State:
    return {
        p: {n: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for n, v in values.items()}
        for p, values in state.items()
    }
