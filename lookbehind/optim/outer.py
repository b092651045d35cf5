"""One outer step around an inner optimizer: what the whole family shares, and what it is to others.

It is a `torch.optim.Optimizer` whose groups, state and defaults are the base optimizer's, stored
once, so that schedulers and hooks take it like any other. Settings are checked whenever they are
set, and kept in checkpoints beside the base's state.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.checks import whole
from lookbehind.optim.neighborhood import Ball
from lookbehind.optim.undo import Step, undone_if_it_fails

Closure = Callable[[], Any]


class Event(NamedTuple):
    """What an observer receives. One outer step sends, in this order:

    `slow` 0 (the weights are φ), `gradient` 0 (∇L(φ) is in `.grad`, `loss` is L(φ)); for each inner
    step i `ascent` i (the weights are φ'_i), `gradient` i, `descent` i (the weights are φ_i); last
    `slow` 1 (the weights are φ after the step; `alpha` is what moved them, one per parameter).
    Multistep-SAM descends once, Lookahead sends no `ascent` and no `gradient`.

    `params` are the live parameters: an observer that keeps them must copy them.
    """

    kind: str
    i: int
    params: Sequence[Tensor]
    loss: Any = None
    alpha: Any = None


Observer = Callable[[Event], None]


class Outer(Optimizer):
    """k inner steps around `inner`, a `torch.optim` optimizer or one of this family."""

    param_groups = property(lambda self: self.base.param_groups)
    state = property(lambda self: self.base.state)
    defaults = property(lambda self: self.base.defaults)
    k: int  # may be changed between steps, like all settings
    inner: Any
    observers: list[Observer]
    rolled_back: Tensor | None  # members whose last step was undone, (E,)

    def __init__(self, inner: Any, k: int, observers: Sequence[Observer]) -> None:
        # In place of Optimizer.__init__, which would make groups and a state of its own.
        own = {"inner": inner, "observers": list(observers), "rolled_back": None}
        self.__setstate__(own)
        if not any(group["params"] for group in self.param_groups):
            raise ValueError("base must hold parameters, got an empty parameter list")
        self.k = k

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    @property
    def base(self) -> Optimizer:
        """The `torch.optim` optimizer that descends; learning-rate schedulers wrap it."""
        return getattr(self.inner, "base", self.inner)

    @property
    def climber(self) -> Any:
        """The optimizer that climbs: this one, or the one inside it; None where none does."""
        return getattr(self.inner, "climber", self if hasattr(self, "ball") else None)

    @property
    def members(self) -> int | None:
        """How many experiments it runs at once, on parameters that are stacked."""
        return None

    @property
    def params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure]) -> Tensor:  # type: ignore[override]
        """One outer step. Returns the loss at φ, detached; after it the parameters are the new φ.

        `closure` clears the gradients, runs forward and backward on one minibatch, and returns the
        loss. Or a sequence of k closures, one minibatch each (2k gradients of Lookbehind).

        An exception in the closure, or a loss or gradient that is not finite (FloatingPointError),
        leaves the weights and the base optimizer's state as they were.
        """
        closures = [closure] * self.k if callable(closure) else closure
        if not isinstance(closures, Sequence) or not all(map(callable, closures)):
            raise TypeError(f"closure must be a function, or a sequence of k; got {closure!r}")
        if len(closures) != self.k:
            found = f"a sequence of k = {self.k}; got {len(closures)}"
            raise ValueError(f"closure must be one, or {found}")
        with undone_if_it_fails(self.base, self.members) as step:
            self.outer(step, closures, reuse=callable(closure))
        self.rolled_back = step.rolled_back
        return step.loss

    def outer(self, step: Step, closures: Sequence[Closure], reuse: bool) -> None:
        self.tell(step, "slow", 0)
        self.tell(step, "slow", 1, alpha=self.walk(step, closures, reuse))

    def walk(self, step: Step, closures: Sequence[Closure], reuse: bool) -> Any:
        """From φ to the new φ, in place. Returns the α that moved it, one a parameter."""
        raise NotImplementedError

    def tell(self, step: Step, kind: str, i: int, **values: Any) -> None:
        for observer in self.observers:
            observer(Event(kind, i, step.params, **values))

    def slope(self) -> tuple[list[Tensor], list[Tensor], list[bool]]:
        """The parameters that have a gradient, their gradients, and their `adaptive` flags."""
        steep = [
            (p, p.grad, group.get("adaptive", True))
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None and p.requires_grad
        ]
        if not steep:
            raise ValueError("closure must call backward, got no gradient on any parameter")
        params, grads, adaptive = map(list, zip(*steep, strict=True))
        return params, grads, adaptive

    def __setattr__(self, name: str, value: Any) -> None:
        """A setting is what has a check, `_check_<name>`, which sees each value that it gets."""
        getattr(self, f"_check_{name}", lambda value: None)(value)
        super().__setattr__(name, value)

    def _check_k(self, value: Any) -> None:
        whole("k", value, 1)

    def settings(self) -> dict[str, Any]:
        names = [n.removeprefix("_check_") for n in dir(self) if n.startswith("_check_")]
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state and this one's settings; a callable `alpha` isn't stored."""
        shapes = [list(p.shape) for group in self.param_groups for p in group["params"]]
        made_by = {"class": type(self).__name__, "base": type(self.base).__name__, "shapes": shapes}
        settings = {name: stored(value) for name, value in self.settings().items()}
        return {"made_by": made_by, "inner": self.inner.state_dict(), "settings": settings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, settings included.

        Raises ValueError, before anything is changed, where the state is another optimizer's,
        another model's, or broken.
        """
        state, mine = state_dict, self.state_dict()
        if not isinstance(state, dict) or set(state) != set(mine):
            raise ValueError(f"state must come from {type(self).__name__}.state_dict()")
        told, own = (
            {**s["made_by"], **{part: [*s[part]] for part in ("inner", "settings")}}
            for s in (state, mine)
        )
        if told != own:
            raise ValueError(f"state is another optimizer's: {told}, this is {own}")
        now = self.settings()
        settings = {n: restored(value, now[n]) for n, value in state["settings"].items()}
        for name, value in settings.items():
            getattr(self, f"_check_{name}")(value)
        self.inner.load_state_dict(state["inner"])
        self.__dict__.update(settings)


def stored(value: Any) -> Any:
    """A setting as a checkpoint keeps it."""
    if isinstance(value, Ball):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return value if isinstance(value, int | float | str | Tensor) else None


def restored(value: Any, current: Any) -> Any:
    """The setting that was `stored`; `current` is the one it replaces."""
    if value is None or not isinstance(current, Ball):
        return current if value is None else value
    if not isinstance(value, dict) or set(value) != {f.name for f in fields(current)}:
        raise ValueError(f"state was saved with the ball {value}, this optimizer has {current}")
    return type(current)(**value)
