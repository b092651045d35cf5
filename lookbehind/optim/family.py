"""Climb and step: Lookbehind-SAM and its family, around any `torch.optim` optimizer.

The closure owns how a gradient is made; the optimizer owns where it is taken and what is done with
it. Between steps the parameters are the slow weights φ: everything else is local to one `step`.
So evaluation needs no swapping, a checkpoint is the base optimizer's, and a step that fails puts
the weights and the base optimizer's state back.

With members (`rho` of shape (E,), parameters with a leading dimension E) one optimizer runs E
experiments. There a member whose loss or gradient is not finite is put back to its φ while the
others go on; `rolled_back` tells which. Alone, it would raise FloatingPointError.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.checks import check_bounded, members_of
from lookbehind.optim.neighborhood import AdaptiveBall, Ball, Lists, Neighborhood, batches
from lookbehind.weights import is_sharded, norm_of, norms, over_shards, per_member

Closure = Callable[[], Any]


Around = Callable[[int], AbstractContextManager[Any]]


Alpha = float | Tensor | str | Callable[[Tensor, Tensor], Any]


State = dict[Tensor, dict[str, Any]]


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


class _Evaluation(NamedTuple):
    ascents: int  # taken before it
    loss: Tensor
    norm: Tensor  # of the gradient


class _Outer:
    """One outer step around an inner optimizer: what the whole family shares."""

    _settings: tuple[str, ...] = ("k",)

    def __init__(self, inner: Any, k: int, observers: Sequence[Observer]) -> None:
        self.inner = inner
        if not any(group["params"] for group in self.base.param_groups):
            raise ValueError("base must hold parameters, got an empty parameter list")
        self.k = k
        self.observers = list(observers)
        self.rolled_back: Tensor | None = None
        self._guarded = False  # an outer step around this one keeps the base optimizer's state

    @property
    def k(self) -> int:
        """Inner steps per outer step; may be changed between steps."""
        return self._k

    @k.setter
    def k(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"k must be an int ≥ 1, got {value!r}")
        if value < 1:
            raise ValueError(f"k must be ≥ 1, got {value}")
        self._k = value

    @property
    def base(self) -> Optimizer:
        """The `torch.optim` optimizer that descends; learning-rate schedulers wrap it."""
        return getattr(self.inner, "base", self.inner)

    @property
    def climber(self) -> "_Climber | None":
        """The optimizer that climbs, inside wrappers."""
        return getattr(self.inner, "climber", None)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's."""
        return self.base.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As `torch.optim.Optimizer.zero_grad`."""
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state and this one's settings; a callable `alpha` isn't stored."""
        settings = {name: _stored(getattr(self, name)) for name in self._settings}
        return {"made_by": self._made_by(), "inner": self.inner.state_dict(), "settings": settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken, settings included.

        Raises ValueError, before anything is changed, where `state` is another optimizer's, another
        model's, or broken.
        """
        mine = self.state_dict()
        if not isinstance(state, dict) or set(state) != set(mine):
            raise ValueError(f"state must come from {type(self).__name__}.state_dict()")
        if state["made_by"] != mine["made_by"]:
            raise ValueError(f"state was made by {state['made_by']}, this is {mine['made_by']}")
        for part in ("inner", "settings"):
            if set(state[part]) != set(mine[part]):
                raise ValueError(f"state[{part!r}] must hold {[*mine[part]]}, got {[*state[part]]}")
        trial = copy.copy(self)
        for name, value in state["settings"].items():
            setattr(trial, name, _restored(value, getattr(self, name)))
        self.inner.load_state_dict(state["inner"])
        self.__dict__.update(trial.__dict__)

    def _made_by(self) -> dict[str, Any]:
        shapes = [list(p.shape) for group in self.base.param_groups for p in group["params"]]
        return {"class": type(self).__name__, "base": type(self.base).__name__, "shapes": shapes}

    def _check_members(self, name: str, members: int | None) -> None:
        for p in self._params() if members is not None else ():
            if p.shape[:1] != (members,):
                raise ValueError(
                    f"{name} has shape ({members},), one value a member, so every parameter must "
                    f"have leading dimension {members}; got one of shape {tuple(p.shape)}"
                )

    def _params(self) -> list[Tensor]:
        return [p for group in self.base.param_groups for p in group["params"] if p.requires_grad]

    @property
    def _members(self) -> int | None:
        raise NotImplementedError

    def _closures(self, closure: Closure | Sequence[Closure]) -> Sequence[Closure]:
        if callable(closure):
            return [closure] * self.k
        if not isinstance(closure, Sequence) or not all(callable(c) for c in closure):
            raise TypeError(f"closure must be a function, or a sequence of k; got {closure!r}")
        if len(closure) != self.k:
            raise ValueError(
                f"closure must be one, or a sequence of k = {self.k}; got {len(closure)}"
            )
        return closure

    def _notify(self, kind: str, i: int, **values: Any) -> None:
        for observer in self.observers:
            observer(Event(kind, i, self._params(), **values))

    @contextmanager
    def _home(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Yield the parameters and a copy of them, the slow weights φ.

        Whatever is raised inside puts φ and the base optimizer's state back.
        """
        params = self._params()
        slow, state = _clones(params), {} if self._guarded else _copied(self.base.state)
        self._evaluations: list[_Evaluation] = []
        try:
            for group in self.base.param_groups:
                for p in group["params"]:
                    if not p.requires_grad:
                        p.grad = None  # else the base optimizer would move it by a stale gradient
            self._notify("slow", 0)
            yield params, slow
            self._settle(params, slow, state)
        except BaseException:
            _copy(params, slow)
            if not self._guarded:
                self.base.state.clear()
                self.base.state.update(state)
            raise

    def _seen(self, ascents: int, loss: Any, norm: Tensor, like: Tensor) -> Tensor:
        """Remember an evaluation for `_settle`. Returns the loss as a detached tensor."""
        loss = torch.as_tensor(loss, device=like.device).detach()
        if self._members is not None and loss.shape not in ((), (self._members,)):
            raise ValueError(
                f"closure must return one loss, or one per member; got shape {tuple(loss.shape)}"
            )
        self._evaluations.append(_Evaluation(ascents, loss, norm))
        return loss

    def _settle(self, params: list[Tensor], slow: list[Tensor], state: State) -> None:
        """Look at all losses and gradients of the step at once: its only synchronization."""
        seen = [v for e in self._evaluations for v in (e.loss, e.norm)]
        if self._members is not None:
            finite = torch.stack(torch.broadcast_tensors(*seen)).isfinite()
            self.rolled_back = ~finite.all(0)
            now, before = (self.base.state, state) if not self._guarded else ({}, {})
            # To ask whether one failed would wait for a GPU; on a CPU it saves passes over memory.
            if self.rolled_back.device.type != "cpu" or self.rolled_back.any():
                _put_back(self.rolled_back, params, slow, now, before)
            return
        self.rolled_back = None
        flags = torch.stack([v.sum() if v.ndim else v for v in seen]).isfinite().tolist()
        if False in flags:
            n, what = divmod(flags.index(False), 2)
            raise FloatingPointError(
                f"the {('loss', 'gradient')[what]} is not finite at evaluation {n + 1} of "
                f"{len(self._evaluations)} (after {self._evaluations[n].ascents} ascent steps); "
                "the weights and the base optimizer's state are as before the step"
            )


class _Climber(_Outer):
    """The climb that Multistep-SAM and Lookbehind share: φ'_i = φ'_{i−1} + ε_i, φ'_0 = φ."""

    _settings: tuple[str, ...] = ("k", "ball")

    def __init__(
        self,
        base: Optimizer,
        ball: Neighborhood,
        *,
        k: int,
        around: Around = lambda i: nullcontext(),
        observers: Sequence[Observer] = (),
    ) -> None:
        if not isinstance(base, Optimizer):
            raise TypeError(f"base must be a torch.optim.Optimizer, got {base!r}")
        super().__init__(base, k, observers)
        self.ball = ball
        self.around = around

    @property
    def climber(self) -> "_Climber":
        return self

    @property
    def ball(self) -> Neighborhood:
        """The neighborhood, so ρ; may be changed between steps."""
        return self._ball

    @ball.setter
    def ball(self, value: Neighborhood) -> None:
        if not callable(getattr(value, "worst", None)):
            raise TypeError(f"ball must be a Ball or an AdaptiveBall, got {value!r}")
        self._check_members("rho", value.members)
        self._ball = value

    @property
    def _members(self) -> int | None:
        return self.ball.members

    def _climb(self, closures: Sequence[Closure], reuse: bool) -> Iterator[int]:
        """Yield i = 1..k, each time after ∇L(φ'_i) was left in `.grad`.

        With `reuse` the gradient at φ'_i serves the ascent i + 1 too, which is made before the
        yield: a base optimizer may overwrite gradients in place (SGD with nesterov does).
        """
        self._ascend(*self._evaluate(closures[0], 0))
        for i, closure in enumerate(closures, 1):
            if i > 1 and not reuse:
                self._ascend(*self._evaluate(closure, i - 1, repeated=True))
            self._notify("ascent", i)
            slope = self._evaluate(closure, i)
            if i < self.k and reuse:
                self._ascend(*slope)
            del slope  # else these gradients would live beside the next ones
            yield i

    def _evaluate(self, closure: Closure, i: int, repeated: bool = False) -> tuple[Lists, Tensor]:
        with self.around(i), torch.enable_grad():
            loss = closure()
        if loss is None:
            raise TypeError("closure must return the loss, got None")
        params, grads, adaptive = slope = self._slope()
        if not grads:
            raise ValueError("closure must call backward, got no gradient on any parameter")
        norm = self.ball.norm(params, grads, adaptive)
        loss = self._seen(i, loss, norm, grads[0])
        if not repeated:
            self._notify("gradient", i, loss=loss)
        return slope, norm

    def _ascend(self, slope: Lists, norm: Tensor) -> None:
        for params, grads, adaptive in batches(*slope, members=self._members):
            torch._foreach_add_(params, self.ball.worst(params, grads, adaptive, norm))

    def _slope(self) -> Lists:
        """The parameters that have a gradient, their gradients, and their `adaptive` flags."""
        params: list[Tensor] = []
        adaptive: list[bool] = []
        for group in self.base.param_groups:
            steep = [p for p in group["params"] if p.grad is not None and p.requires_grad]
            params += steep
            adaptive += [group.get("adaptive", True)] * len(steep)
        return params, [p.grad for p in params if p.grad is not None], adaptive


class MultistepSAM(_Climber):
    """Multistep-SAM: climb k steps, then descend once, from φ.

        φ ← A(φ, ∇L(φ'_k))                 gradient="last"
        φ ← A(φ, 1/k Σ_i ∇L(φ'_i))         gradient="mean"

    A is the base optimizer's step. k + 1 gradients. k = 1 is SAM (Foret et al. 2021,
    arXiv 2010.01412). Arguments, errors and the closure as in `Lookbehind`.
    """

    def __init__(
        self,
        base: Optimizer,
        ball: Neighborhood,
        *,
        k: int,
        gradient: str = "last",
        around: Around = lambda i: nullcontext(),
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(base, ball, k=k, around=around, observers=observers)
        if gradient not in ("last", "mean"):
            raise ValueError(f'gradient must be "last" or "mean", got {gradient!r}')
        self.gradient = gradient

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure]) -> Tensor:
        """One outer step; see `Lookbehind.step`."""
        closures = self._closures(closure)
        with self._home() as (params, slow):
            total: dict[Tensor, Tensor] = {}
            for _ in self._climb(closures, reuse=callable(closure)):
                for p in params if self.gradient == "mean" else ():
                    if p.grad is not None:
                        total[p] = total[p].add_(p.grad) if p in total else p.grad.clone()
            for p, gradient in total.items():
                p.grad = gradient.div_(self.k)
            _copy(params, slow)
            self.base.step()
            self._notify("descent", 1)
            self._notify("slow", 1)
        return self._evaluations[0].loss


class SAM(MultistepSAM):
    """Sharpness-aware minimization φ ← A(φ, ∇L(φ + ρ g/‖g‖₂)), g = ∇L(φ) (Foret et al. 2021)."""

    def __init__(self, base: Optimizer, rho: float | Tensor = 0.05, **options: Any) -> None:
        super().__init__(base, Ball(rho), k=1, **options)


class ASAM(MultistepSAM):
    """Adaptive SAM: SAM in an `AdaptiveBall` (Kwon et al. 2021). See `param_groups`."""

    def __init__(
        self, base: Optimizer, rho: float | Tensor = 0.5, eta: float = 0.01, **options: Any
    ) -> None:
        super().__init__(base, AdaptiveBall(rho, eta), k=1, **options)


class Lookbehind(_Climber):
    """Lookbehind-SAM (Mordido et al. 2024, arXiv 2307.16704): k steps back, one step forward.

        φ'_0 = φ_0 = φ
        for i = 1..k:   φ'_i = φ'_{i−1} + ε(∇L(φ'_{i−1}))        the climb
                        φ_i  = A(φ_{i−1}, ∇L(φ'_i))              the descent of the fast weights
        φ ← φ + α (φ_k − φ)                                      the interpolation

    A is the step of `base`, any `torch.optim` optimizer; ε the worst perturbation in `ball`.
    Lookbehind-ASAM is this with an `AdaptiveBall` and `base` made on `param_groups(model)`.

    `k` ≥ 1. `alpha` in [0, 1]: a number, a tensor of shape (E,) (one per member), "adaptive", or a
    callable (first, total) → α, called once per parameter with the displacements φ_1 − φ and
    φ_k − φ. "adaptive" is α = (1 + cos ∠(first, total)) / 2, per parameter. `k`, `ball` and `alpha`
    may be changed between steps.

    `reuse_gradients`: the descent gradient ∇L(φ'_i) is the ascent gradient of step i + 1, so a step
    takes k + 1 gradients with the same weights as the 2k of the official code. That holds for a
    deterministic closure; with dropout say False (2k gradients).

    `around(i)` is a context manager around each gradient at φ'_i, 0 ≤ i ≤ k: frozen BatchNorm
    statistics for i ≥ 1, say. `observers` receive every `Event`.

    Raises TypeError or ValueError for arguments outside these bounds.
    """

    _settings = ("k", "ball", "alpha")

    def __init__(
        self,
        base: Optimizer,
        ball: Neighborhood,
        *,
        k: int = 5,
        alpha: Alpha = 0.5,
        reuse_gradients: bool = True,
        around: Around = lambda i: nullcontext(),
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(base, ball, k=k, around=around, observers=observers)
        self.alpha = alpha
        self.reuse_gradients = reuse_gradients

    @property
    def alpha(self) -> Alpha:
        """The interpolation; may be changed between steps."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: Alpha) -> None:
        if not callable(value) and not (isinstance(value, str) and value == "adaptive"):
            also = ', or one per member, or "adaptive", or a callable (first, total) → α'
            check_bounded("alpha", value, 1, also)
            self._check_members("alpha", members_of(value))
        self._alpha = value

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure]) -> Tensor:
        """One outer step. Returns the loss at φ, detached; after it the parameters are the new φ.

        `closure` clears the gradients, runs forward and backward on one minibatch, and returns the
        loss. Or a sequence of k closures, one minibatch each (2k gradients).

        An exception in the closure, or a loss or gradient that is not finite (FloatingPointError),
        leaves the weights and the base optimizer's state as they were.
        """
        closures = self._closures(closure)
        reuse = self.reuse_gradients and callable(closure)
        with self._home() as (params, slow):
            fast, first = _clones(params), None
            for i in self._climb(closures, reuse):
                with _swapped(params, fast):
                    self.base.step()
                    self._notify("descent", i)
                if i == 1 and isinstance(self.alpha, str | Callable):
                    first = _clones(fast)
            _copy(params, fast)
            self._notify("slow", 1, alpha=self._interpolate(params, slow, first))
        return self._evaluations[0].loss

    def _interpolate(
        self, params: list[Tensor], slow: list[Tensor], first: list[Tensor] | None
    ) -> list[Any]:
        if first is None:
            return _interpolate(params, slow, [self.alpha] * len(params))
        adaptive = partial(cosine_alpha, members=self._members)
        alpha = self.alpha if callable(self.alpha) else adaptive
        torch._foreach_sub_(first, slow)
        moved = zip(first, params, slow, strict=True)
        return _interpolate(params, slow, [alpha(f, p - s) for f, p, s in moved])


class Lookahead(_Outer):
    """Lookahead (Zhang et al. 2019, arXiv 1907.08610): k inner steps, then φ ← φ + α (φ_k − φ).

    `inner` is anything of this family or a `torch.optim` optimizer. One outer step takes k inner
    steps, each on a minibatch of its own: `step` takes k closures, or one that is called for each
    inner step and may draw its minibatch itself.

    `k` ≥ 1; `alpha` in [0, 1] is a number or a tensor of shape (E,). Raises TypeError or ValueError
    for arguments outside these bounds.
    """

    _settings = ("k", "alpha")

    def __init__(
        self,
        inner: Any,
        *,
        k: int = 5,
        alpha: float | Tensor = 0.5,
        observers: Sequence[Observer] = (),
    ) -> None:
        if not isinstance(inner, _Outer | Optimizer):
            raise TypeError(f"inner must be an optimizer with step(closure), got {inner!r}")
        super().__init__(inner, k, observers)
        self.alpha = alpha

    @property
    def alpha(self) -> float | Tensor:
        """The interpolation; may be changed between steps."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float | Tensor) -> None:
        check_bounded("alpha", value, 1)
        self._check_members("alpha", members_of(value))
        self._alpha = value

    @property
    def minibatches(self) -> int:
        """How many minibatches one `step` is made for: k."""
        return self.k

    @property
    def _members(self) -> int | None:
        inner = self.inner._members if isinstance(self.inner, _Outer) else None
        return members_of(self.alpha) if inner is None else inner

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure]) -> Tensor:
        """One outer step. Returns the loss at φ, detached; failures as in `Lookbehind.step`."""
        closures = self._closures(closure)
        with self._home() as (params, slow), self._guarding():
            for i, inner_closure in enumerate(closures, 1):
                loss = self.inner.step(inner_closure)
                if loss is None:
                    raise TypeError("closure must return the loss, got None")
                self._seen(0, loss, self._inner_norm(params), params[0])
                self._notify("descent", i)
            alpha = _interpolate(params, slow, [self.alpha] * len(params))
            self._notify("slow", 1, alpha=alpha)
        return self._evaluations[0].loss

    @contextmanager
    def _guarding(self) -> Iterator[None]:
        """Inside, `inner` keeps no copy of the base optimizer's state: this step has one."""
        if not isinstance(self.inner, _Outer):
            yield
            return
        self.inner._guarded = True
        try:
            yield
        finally:
            self.inner._guarded = False

    def _inner_norm(self, params: list[Tensor]) -> Tensor:
        """Not finite where the inner step met a gradient that wasn't."""
        if isinstance(self.inner, _Outer):
            failed = self.inner.rolled_back
            zero = torch.zeros((), dtype=params[0].dtype, device=params[0].device)
            return zero if failed is None else torch.where(failed, math.nan, 0.0)
        grads = [p.grad for p in params if p.grad is not None]
        if not grads:
            raise ValueError("closure must call backward, got no gradient on any parameter")
        return norm_of(norms(grads, self._members))


def cosine_alpha(first: Tensor, total: Tensor, members: int | None = None) -> Tensor:
    """Adaptive α = (1 + cos ∠(first, total)) / 2 of one parameter: a scalar, or shape (E,).

    `first` = φ_1 − φ and `total` = φ_k − φ. Near 1 where the k descents agree with the first, near
    0 where they turned back (Mordido et al. 2024, as in the official code). Overwrites both.
    """
    rows = [t if members is None else t.reshape(members, -1) for t in (first, total)]
    dim = None if members is None else 1
    for row in rows:
        length = over_shards(torch.linalg.vector_norm(row, dim=dim, keepdim=members is not None))
        row.div_(length.clamp_min_(torch.finfo(row.dtype).tiny))
    cosine = over_shards(rows[0].mul_(rows[1]).sum(dim))
    return (cosine.clamp_(-1, 1) + 1) / 2


def _interpolate(params: list[Tensor], slow: list[Tensor], alphas: list[Any]) -> list[Any]:
    """params ← α params + (1 − α) slow, rounded as the official code does. Returns the α.

    A weight that didn't move keeps its value to the last bit, which that rounding alone loses.
    With an α a member, `lerp` does it all in one pass; it rounds as slow + α (params − slow).
    """
    for p, s, a in zip(params, slow, alphas, strict=True):
        if isinstance(a, Tensor) and a.ndim:
            torch.lerp(s, p, per_member(a, p), out=p)
            continue
        still = p == s
        if isinstance(a, Tensor):
            p.mul_(a).addcmul_(s, 1 - a)
        else:
            p.mul_(a).add_(s, alpha=1 - a)
        torch.where(still, s, p, out=p)
    return alphas


@contextmanager
def _swapped(params: list[Tensor], others: list[Tensor]) -> Iterator[None]:
    """Inside, `params` hold the values of `others`; what is done to them is done to `others`.

    Only pointers are exchanged, and back: the closure always sees the parameters' own storage.
    Of sharded parameters, which hide theirs, the values are.
    """
    if any(map(is_sharded, params)):
        _exchange(params, others)
        try:
            yield
        finally:
            _exchange(params, others)
        return
    own = [p.data for p in params]
    for p, other in zip(params, others, strict=True):
        p.data = other
    try:
        yield
    finally:
        for p, data in zip(params, own, strict=True):
            p.data = data


def _exchange(ones: list[Tensor], others: list[Tensor]) -> None:
    for one, other in zip(ones, others, strict=True):
        value = one.clone()
        one.copy_(other)
        other.copy_(value)


def _copy(targets: list[Tensor], values: list[Tensor]) -> None:
    """targets ← values, at once where they aren't sharded."""
    if not any(map(is_sharded, targets)):
        torch._foreach_copy_(targets, values)
        return
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def _copied(state: State) -> State:
    return {
        p: {n: v.clone() if isinstance(v, Tensor) else copy.deepcopy(v) for n, v in values.items()}
        for p, values in state.items()
    }


def _put_back(
    failed: Tensor, params: list[Tensor], slow: list[Tensor], state: State, before: State
) -> None:
    """Undo the step for the `failed` members, weights and state, without asking which they are.

    State that all members share (Adam's step count) goes on.
    """
    pairs = list(zip(params, slow, strict=True))
    for p, values in state.items():
        old = before.get(p, {})
        stacked = [(n, v) for n, v in values.items() if isinstance(v, Tensor) and v.ndim]
        pairs += [(v, old.get(n, torch.zeros_like(v))) for n, v in stacked]
    for now, then in pairs:
        now.copy_(torch.where(per_member(failed, now), then, now))


def _stored(value: Any) -> Any:
    if isinstance(value, int | float | str | Tensor):
        return value
    if isinstance(value, Ball | AdaptiveBall):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return None


def _restored(value: Any, current: Any) -> Any:
    if value is None or not isinstance(current, Ball | AdaptiveBall):
        return current if value is None else value
    if not isinstance(value, dict) or set(value) != {f.name for f in fields(current)}:
        raise ValueError(f"state was saved with the ball {value}, this optimizer has {current}")
    return type(current)(**value)
