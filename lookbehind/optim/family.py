"""Climb and step: Lookbehind-SAM and its family, around any `torch.optim` optimizer.

The closure owns how a gradient is made; the optimizer owns where it is taken and what is done with
it. Between steps the parameters are the slow weights φ: everything else is local to one `step`.
So evaluation needs no swapping, and a step that fails is undone (`undo`).

With members (`rho` of shape (E,), parameters with a leading dimension E) one optimizer runs E
experiments: one whose loss or gradient isn't finite is put back while the others go on, and
`rolled_back` tells which.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lookbehind.checks import check_bounded, check_members, one_of
from lookbehind.optim.neighborhood import AdaptiveBall, Ball
from lookbehind.optim.outer import Closure, Outer
from lookbehind.optim.undo import Step
from lookbehind.weights import add_, clones, copy_, cosine, interpolate_, members_of, norm, swapped

Alpha = float | Tensor | str | Callable[[Tensor, Tensor], Any]
Around = Callable[[int], AbstractContextManager[Any]]


class Climber(Outer):
    """The climb that Multistep-SAM and Lookbehind share: φ'_i = φ'_{i−1} + ε_i, φ'_0 = φ."""

    def __init__(
        self, base: Optimizer, ball: Ball, k: int, around: Around = nullcontext, **options: Any
    ) -> None:
        if not isinstance(base, Optimizer) or isinstance(base, Outer):
            raise TypeError(f"base must be a torch.optim.Optimizer, got {base!r}")
        super().__init__(base, k, **options)
        self.ball, self.around = ball, around

    def _check_ball(self, value: Any) -> Ball:
        ball = type(self.ball)(**value) if isinstance(value, dict) else value  # of a checkpoint
        if not isinstance(ball, Ball):
            raise TypeError(f"ball must be a Ball or an AdaptiveBall, got {value!r}")
        check_members("rho", ball.members, self.param_groups)
        return ball

    def evaluate(self, step: Step, closure: Closure, i: int, again: bool = False) -> None:
        """Leave the gradient at φ'_i in `.grad`."""
        with self.around(i), torch.enable_grad():
            loss = closure()
        loss = step.meet(i, loss, self.ball.norm)
        if not again:
            self.tell(step, "gradient", i, loss=loss)

    def ascend(self, step: Step) -> None:
        """φ' ← φ' + ε, by the gradient that was evaluated last."""
        params, grads, adaptive = step.slope()
        add_(params, self.ball.worst(params, grads, adaptive, step.met[-1].norm))

    def climb(self, step: Step, closures: Sequence[Closure], reuse: bool) -> Iterator[int]:
        """Yield i = 1..k, each time with ∇L(φ'_i) in `.grad`: k + 1 gradients if they are reused,
        by ascents before the yield, as a base may overwrite its gradient (nesterov)."""
        self.evaluate(step, closures[0], 0)
        self.ascend(step)
        for i, closure in enumerate(closures, 1):
            if i > 1 and not reuse:
                self.evaluate(step, closure, i - 1, again=True)
                self.ascend(step)
            self.tell(step, "ascent", i)
            self.evaluate(step, closure, i)
            if i < self.k and reuse:
                self.ascend(step)
            yield i


class Lookbehind(Climber):
    """Lookbehind-SAM (Mordido et al. 2024, arXiv 2307.16704): k steps back, one step forward.

        φ'_0 = φ_0 = φ
        for i = 1..k:   φ'_i = φ'_{i−1} + ε(∇L(φ'_{i−1}))        the climb
                        φ_i  = A(φ_{i−1}, ∇L(φ'_i))              the descent of the fast weights
        φ ← φ + α (φ_k − φ)                                      the interpolation

    A is the step of `base`, any `torch.optim` optimizer; ε the worst perturbation in `ball`.
    """

    def walk(self, step: Step, closures: Sequence[Closure], reuse: bool) -> list[Any]:
        fast, first = clones(step.slow), None
        for i in self.climb(step, closures, reuse and self.reuse_gradients):
            with swapped(step.params, fast):
                self.base.step()
                self.tell(step, "descent", i)
            if i == 1 and isinstance(self.alpha, str | Callable):
                first = clones(fast)
        copy_(step.params, fast)
        alphas = [self.alpha] * len(fast) if first is None else self.chosen(step, first, fast)
        interpolate_(step.params, step.slow, alphas)
        return alphas

    def __init__(
        self, base: Optimizer, ball: Ball, *, k: int = 5, alpha: Alpha = 0.5,
        reuse_gradients: bool = True, **options: Any,
    ) -> None:  # fmt: skip
        """Lookbehind-ASAM is this with an `AdaptiveBall` and a base made on `param_groups(model)`.

        `k` ≥ 1. `alpha` in [0, 1]: a number, a tensor of shape (E,) (one per member), or one per
        parameter, from the displacements first = φ_1 − φ and total = φ_k − φ: "adaptive" is
        (1 + cos ∠(first, total)) / 2 as in the official code, near 1 where the k descents agree and
        near 0 where they turned back; a callable (first, total) → α (gets the shard that is here).

        `reuse_gradients`: the descent gradient ∇L(φ'_i) is the ascent gradient of step i + 1, so a
        step takes k + 1 gradients with the same weights as the 2k of the official code. That holds
        for a deterministic closure; with dropout say False.

        `options`: `around(i)` is a context manager around each gradient at φ'_i, 0 ≤ i ≤ k: frozen
        BatchNorm statistics for i ≥ 1, say. `observers` receive every `Event`.

        All may be changed between steps. TypeError or ValueError outside these bounds.
        """
        super().__init__(base, ball, k, **options)
        self.alpha, self.reuse_gradients = alpha, reuse_gradients

    def _check_alpha(self, value: Any) -> Alpha:
        if callable(value) or (isinstance(value, str) and value == "adaptive"):
            return value
        check_members("alpha", members_of(value), self.param_groups)
        also = ', or one per member, or "adaptive", or a callable (first, total) → α'
        return check_bounded("alpha", value, 1, also)

    def _check_reuse_gradients(self, value: Any) -> bool:
        return one_of("reuse_gradients", value, True, False)

    def chosen(self, step: Step, first: list[Tensor], fast: list[Tensor]) -> list[Any]:
        """α of each parameter, from its first and its whole displacement; overwrites both lists."""
        for points in (first, fast):
            torch._foreach_sub_(points, step.slow)
        found = zip(first, fast, step.params, strict=True)
        if callable(self.alpha):
            return [self.alpha(f, total) for f, total, _ in found]
        return [(1 + cosine(f, total, self.members, of=p)) / 2 for f, total, p in found]


class MultistepSAM(Climber):
    """Multistep-SAM: climb k steps, then descend once, from φ.

        φ ← A(φ, ∇L(φ'_k))                 gradient="last"
        φ ← A(φ, 1/k Σ_i ∇L(φ'_i))         gradient="mean"

    A is the base optimizer's step. k + 1 gradients. k = 1 is SAM (Foret et al. 2021,
    arXiv 2010.01412). Arguments, errors and the closure as in `Lookbehind`.
    """

    def __init__(
        self, base: Optimizer, ball: Ball, *, k: int, gradient: str = "last", **options: Any
    ) -> None:
        super().__init__(base, ball, k, **options)
        self.gradient = gradient

    def _check_gradient(self, value: Any) -> str:
        return one_of("gradient", value, "last", "mean")

    def walk(self, step: Step, closures: Sequence[Closure], reuse: bool) -> None:
        total: dict[Tensor, Tensor] = {}
        for _ in self.climb(step, closures, reuse):
            for p in step.params if self.gradient == "mean" else ():
                if p.grad is not None:
                    total[p] = total[p].add_(p.grad) if p in total else p.grad.clone()
        for p, gradient in total.items():
            p.grad = gradient.div_(self.k)
        copy_(step.params, step.slow)
        self.base.step()
        self.tell(step, "descent", 1)


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


class Lookahead(Outer):
    """Lookahead (Zhang et al. 2019, arXiv 1907.08610): k inner steps, then φ ← φ + α (φ_k − φ).

    `inner` is one of this family or of `torch.optim`; `k` ≥ 1; `alpha` in [0, 1] is a number or of
    shape (E,). Each inner step is on a minibatch of its own: `step` takes k closures, or one that
    draws its minibatch itself. TypeError or ValueError outside these bounds.
    """

    def __init__(
        self, inner: Any, *, k: int = 5, alpha: float | Tensor = 0.5, **options: Any
    ) -> None:
        if not isinstance(inner, Optimizer):
            raise TypeError(f"inner must be an optimizer with step(closure), got {inner!r}")
        super().__init__(inner, k, **options)
        self.alpha = alpha

    def _check_alpha(self, value: Any) -> Any:
        check_members("alpha", members_of(value), self.param_groups)
        return check_bounded("alpha", value, 1)

    @property
    def minibatches(self) -> int:
        """How many minibatches one `step` is made for: k."""
        return self.k

    def walk(self, step: Step, closures: Sequence[Closure], reuse: bool) -> list[Any]:
        for i, closure in enumerate(closures, 1):
            if isinstance(self.inner, Outer):  # whose evaluations are this step's
                inside = Step(self.base, self.members)
                self.inner.outer(inside, [closure] * self.inner.k, reuse=True)
                self.inner.rolled_back = inside.failed()
                step.met += inside.met
            else:
                loss = self.inner.step(closure)
                step.meet(0, loss, lambda _, grads, __: norm(grads, self.members))
            self.tell(step, "descent", i)
        alphas = [self.alpha] * len(step.params)
        interpolate_(step.params, step.slow, alphas)
        return alphas
