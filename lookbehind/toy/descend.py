"""Descents on toy losses, by the optimizers that train networks, that record every point."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lookbehind.checks import whole
from lookbehind.toy.losses import Array, Loss


@dataclass(frozen=True)
class Trajectory:
    """A descent of T outer steps, every point of it. With E members each shape gains an E before 2.

    slow       (T + 1, 2)  φ before the first and after each outer step
    ascent     (T, a, 2)   the climb φ'_1 … φ'_a of each outer step (a = k; 0 for SGD)
    fast       (T, d, 2)   the descents φ_1 … φ_d (d = k for Lookbehind and Lookahead, else 1)
    gradients  (T, g, 2)   ∇L where it was taken, noise included; g is the cost of an outer step
    losses     (T + 1,)    L(φ), without noise
    alpha      (T,)        the interpolation; NaN where the method has none
    diverged   ()          whether a step was undone because its loss or gradient was not finite
    """

    slow: Array
    ascent: Array
    fast: Array
    gradients: Array
    losses: Array
    alpha: Array
    diverged: NDArray[np.bool_]


def descend(
    loss: Loss, start: ArrayLike, make_optimizer: Callable[[list[Tensor]], Any], steps: int, *,
    seed: int | Sequence[int] = 0,
) -> Trajectory:  # fmt: skip
    """Run `steps` outer steps of `make_optimizer([w])` on `loss` from `start`, in float64.

    `start` of shape (2,) is one descent; of shape (E, 2), E members in one call, for which the
    optimizer's `rho` must have shape (E,) (and `alpha` may). The noise of a `ToyLoss` is drawn from
    `seed`, the same for all members, or from one seed per member.
    Raises ValueError or TypeError for a wrong `start` or `steps`, and where `loss` returns another
    shape; FloatingPointError where a single descent diverges (members are put back).
    """
    w = _checked_start(loss, start, steps).requires_grad_()
    optimizer = make_optimizer([w])
    _check_members(optimizer, w)
    minibatches = getattr(optimizer, "minibatches", 1)
    noise = _noise(getattr(loss, "noise", 0.0), (steps, minibatches, *w.shape), seed)
    record = _Recorder(w, optimizer)
    for draws in noise:
        closures = [_closure(loss, w, draw) for draw in draws]
        optimizer.step(closures if minibatches > 1 else closures[0])
        record.step()
    return record.trajectory(loss)


class _Recorder:
    """Copies the weights at every event, and stacks them into a `Trajectory`."""

    def __init__(self, w: Tensor, optimizer: Any) -> None:
        self.w, self.optimizer, self.alpha = w, optimizer, list[Tensor]()
        self.points = {kind: list[Tensor]() for kind in ("slow", "ascent", "descent", "gradient")}
        self.keep("slow")
        self.diverged = torch.zeros(w.shape[:-1], dtype=torch.bool)
        # Of an optimizer inside another, only where its gradients were taken, and these.
        climber: Any = getattr(optimizer, "climber", None)
        for each, observer in ((optimizer, self.walked), (climber, self.climbed)):
            if hasattr(each, "observers"):
                each.observers.append(observer)

    def walked(self, event: Any) -> None:
        if event.kind == "descent":
            self.keep("descent")
        if event.alpha is not None:
            alpha = torch.as_tensor(event.alpha[0], dtype=torch.float64)
            self.alpha.append(alpha.expand(self.w.shape[:-1]))

    def climbed(self, event: Any) -> None:
        if event.kind in ("ascent", "gradient"):
            self.keep(event.kind)

    def keep(self, kind: str) -> None:
        tensor = self.w.grad if kind == "gradient" else self.w
        assert tensor is not None
        self.points[kind].append(tensor.detach().clone())

    def step(self) -> None:
        self.keep("slow")
        if not hasattr(self.optimizer, "observers"):  # a plain torch.optim optimizer
            self.keep("descent")
            self.keep("gradient")
        if (undone := getattr(self.optimizer, "rolled_back", None)) is not None:
            self.diverged |= undone

    def trajectory(self, loss: Loss) -> Trajectory:
        slow, *others = (torch.stack(p) if p else self.w.new_empty(0) for p in self.points.values())
        steps, shape = len(slow) - 1, self.w.shape
        ascent, fast, grads = (p.reshape(steps, -1, *shape).numpy() for p in others)
        losses, none = loss(slow).detach().numpy(), np.full((steps, *shape[:-1]), np.nan)
        alpha = torch.stack(self.alpha).numpy() if self.alpha else none
        return Trajectory(slow.numpy(), ascent, fast, grads, losses, alpha, self.diverged.numpy())


def _closure(loss: Loss, w: Tensor, noise: Tensor | None) -> Callable[[], Tensor]:
    """The loss of one minibatch, L(w) + ⟨ξ, w⟩; its gradient goes to `w.grad`."""
    at = w.detach()
    gradient: Loss = getattr(loss, "gradient", None) or torch.func.grad(lambda w: loss(w).sum())

    def closure() -> Tensor:
        value, w.grad = loss(at), gradient(at)
        if noise is None:
            return value
        w.grad += noise
        return value + (noise * at).sum(-1)

    return closure


def _noise(sigma: float, shape: Sequence[int], seed: int | Sequence[int]) -> Iterable[Any]:
    """Gradient noise of shape (steps, minibatches, [E,] 2), from one stream or one per member; with
    σ = 0, None for every minibatch."""
    steps, minibatches, *members, _ = shape
    if not sigma:
        return [[None] * minibatches] * steps
    seeds = [seed] if isinstance(seed, int) else seed
    if seeds is seed and [len(seeds)] != members:
        raise ValueError(f"seed must be an int or one int per member {members}, got {len(seeds)}")
    by = [torch.Generator().manual_seed(int(s)) for s in seeds]
    drawn = [torch.randn(steps, minibatches, 2, generator=b, dtype=torch.float64) for b in by]
    return sigma * torch.stack(drawn, 2).expand(-1, -1, *(members or [1]), -1).reshape(*shape)


def _checked_start(loss: Loss, start: ArrayLike, steps: int) -> Tensor:
    w = torch.as_tensor(np.array(start, dtype=np.float64))
    if w.ndim not in (1, 2) or w.shape[-1] != 2 or not bool(w.isfinite().all()):
        raise ValueError(f"start must be finite, of shape (2,) or (E, 2), got {start!r}")
    whole("steps", steps, 1)
    value = loss(w)
    if not isinstance(value, Tensor) or value.shape != w.shape[:-1]:
        found = tuple(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"loss must map shape (…, 2) to (…), got {found!r} from {tuple(w.shape)}")
    return w


def _check_members(optimizer: Any, w: Tensor) -> None:
    """Members share nothing only if each has its own norm."""
    climber, members = getattr(optimizer, "climber", None), len(w) if w.ndim == 2 else None
    if climber is not None and climber.ball.members != members:
        rho = "a number" if members is None else f"a tensor of shape ({members},)"
        start = f"a start of shape {tuple(w.shape)}"
        raise ValueError(f"rho must be {rho} for {start}, got {climber.ball.rho!r}")
