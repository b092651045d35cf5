"""One outer step around an inner optimizer: what the whole family shares, and what it is to others.

It is a `torch.optim.Optimizer` whose groups, state and defaults are the base's, stored once.
Settings are checked whenever they are set, and kept in checkpoints beside the base's state.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.checks import check_not_scaled, closures_of, outline, plain_numbers, whole
from lookbehind.optim.undo import Step, undone_if_it_fails
from lookbehind.weights import members_of

Closure = Callable[[], Any]


class Event(NamedTuple):
    """What an observer receives: `params` are live, so one that keeps them must copy them.

    In this order: `slow` 0 (the weights are φ), `gradient` 0 (∇L(φ) is in `.grad`, `loss` is L(φ));
    for each inner step i `ascent` i (the weights are φ'_i), `gradient` i, `descent` i (they are
    φ_i); last `slow` 1 (they are φ after the step; `alpha` is what moved them, one a parameter).
    Multistep-SAM descends once, Lookahead sends no `ascent` and no `gradient`.
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
    add_param_group = property(lambda self: self.base.add_param_group)
    inner: Any
    _step_supports_amp_scaling = property(lambda self: check_not_scaled(sys._getframe(1)))
    k: int  # may be changed between steps, like all settings
    observers: list[Observer]

    def __init__(self, inner: Any, k: int, observers: Sequence[Observer] = ()) -> None:
        # In place of Optimizer.__init__, which would make groups and a state of its own.
        self.__setstate__({"inner": inner, "observers": list(observers), "rolled_back": None})
        if not any(group["params"] for group in self.param_groups):
            raise ValueError("base must hold parameters, got an empty parameter list")
        self.k = k

    def __getstate__(self) -> dict[str, Any]:
        """All but hooks, and the `step` that a scheduler wraps: as of any optimizer."""
        return {n: v for n, v in vars(self).items() if n != "step" and not n.startswith("_")}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({settings}) around {self.inner!r}"

    @property
    def base(self) -> Optimizer:
        """The `torch.optim` optimizer that descends."""
        return getattr(self.inner, "base", self.inner)

    @property
    def climber(self) -> Any:
        """The optimizer that climbs: this one, or the one inside it; None where none does."""
        return getattr(self.inner, "climber", self if hasattr(self, "ball") else None)

    @property
    def members(self) -> int | None:
        """How many experiments it runs at once, on parameters that are stacked."""
        return members_of(self.climber.ball.rho if self.climber else getattr(self, "alpha", None))

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure] | None = None) -> Tensor:  # type: ignore[override]
        """One outer step. Returns the loss at φ, detached; after it the parameters are the new φ.

        `closure` clears the gradients, runs forward and backward on one minibatch, and returns the
        loss. Or a sequence of k closures, one minibatch each (2k gradients of Lookbehind).

        An exception in the closure, or a loss or gradient that is not finite (FloatingPointError),
        leaves the weights and what the base keeps as they were.
        """
        closures = closures_of(closure, self.k)
        with undone_if_it_fails(self.base, self.members) as step:
            self.outer(step, closures, reuse=callable(closure))
        self.rolled_back = step.rolled_back
        return step.met[0].loss

    def outer(self, step: Step, closures: Sequence[Closure], reuse: bool) -> None:
        self.tell(step, "slow", 0)
        self.tell(step, "slow", 1, alpha=self.walk(step, closures, reuse))

    def walk(self, step: Step, closures: Sequence[Closure], reuse: bool) -> Any:
        """From φ to the new φ, in place. Returns the α that moved it, one a parameter."""
        raise NotImplementedError

    def tell(self, step: Step, kind: str, i: int, **values: Any) -> None:
        for observer in self.observers:
            observer(Event(kind, i, step.params, **values))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self.checked(name, value))

    def checked(self, name: str, value: Any) -> Any:
        """What is kept of a value. A setting is what has a check, `_check_<name>`."""
        return getattr(self, f"_check_{name}", lambda value: value)(value)

    def _check_k(self, value: Any) -> int:
        return whole("k", value, 1)

    def settings(self) -> dict[str, Any]:
        names = [n.removeprefix("_check_") for n in dir(self) if n.startswith("_check_")]
        return {name: getattr(self, name) for name in names}

    @property
    def family(self) -> list["Outer"]:
        """This optimizer and those of the family inside it."""
        return [self, *(self.inner.family if isinstance(self.inner, Outer) else ())]

    def described(self) -> dict[str, Any]:
        """Whose state it is, and the settings; a function, as `alpha` may be one, isn't kept."""
        own = [{n: v for n, v in s.settings().items() if not callable(v)} for s in self.family]
        return {
            "made_by": [type(each).__name__ for each in (*self.family, self.base)],
            "shapes": [list(p.shape) for group in self.param_groups for p in group["params"]],
            "settings": [{n: v.asdict() if n == "ball" else v for n, v in s.items()} for s in own],
        }

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's `state` and `param_groups`, whose they are, and the settings."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        state = {**plain_numbers(self.base.state_dict()), **self.described()}
        for change in self._optimizer_state_dict_post_hooks.values():
            state = change(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, settings included.

        Raises ValueError, before anything is changed, where the state is another optimizer's,
        another model's, or broken.
        """
        state, own = state_dict, self.described()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state = hook(self, state) or state
        if not isinstance(state, dict) or not {"state", "param_groups", *own} <= set(state):
            raise ValueError(f"state must come from {type(self).__name__}.state_dict()")
        told = {part: state[part] for part in own}
        if outline(told) != outline(own) or any(told[p] != own[p] for p in ("made_by", "shapes")):
            raise ValueError(f"state is another optimizer's: {told}, this is {own}")
        new = [
            (each, {name: each.checked(name, value) for name, value in settings.items()})
            for each, settings in zip(self.family, told["settings"], strict=True)
        ]
        self.base.load_state_dict(state)
        for each, settings in new:
            vars(each).update(settings)
        for done in self._optimizer_load_state_dict_post_hooks.values():
            done(self)
