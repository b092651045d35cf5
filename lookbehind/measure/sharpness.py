"""How sharp a minimum is: measures of the loss around the weights of a network.

L(w) is everywhere the mean cross-entropy, in nats, over all images of `batches` together, with the
network in evaluation mode: BatchNorm normalizes by its stored statistics. w are all parameters
that require a gradient. The caller's network is never touched (see `Objective`), and no measure
draws from the global random stream.

The Hessian's measures need curvlinops and scipy: `pip install "lookbehind[notebooks]"`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from lookbehind.measure.noise import _check_count
from lookbehind.measure.objective import Objective
from lookbehind.optim import AdaptiveBall, Ball
from lookbehind.scores import Minibatch
from lookbehind.weights import Weights, moved


def gradient(model: nn.Module, batches: Iterable[Minibatch]) -> Weights:
    """∇L(w), by parameter name."""
    return Objective(model, batches).gradient()[1]


# The worst point of a neighborhood


def worst_rise(
    model: nn.Module,
    batches: Iterable[Minibatch],
    ball: Ball | AdaptiveBall,
    *,
    steps: int = 1,
    per_batch: bool = False,
) -> float:
    """How far the loss rises in a neighborhood at worst: max over j of L(w + ε_j) − L(w), in nats.

        ε_j = argmax of ⟨∇L(w + ε_{j−1}), ε⟩ over ε in `ball`,    ε_0 = 0,    j = 1 … steps

    Each step goes to the worst point of the loss linearised where the last one ended. One step is
    the sharpness that SAM bounds, to first order (Foret et al. 2021, arXiv 2010.01412, eqs. 1 and
    2); in an `AdaptiveBall`, whose T stays that of w, ASAM's (Kwon et al. 2021, arXiv 2102.11600).
    To higher order it may come out below 0. More steps never give less, as the highest point met
    counts. Where L is convex each is higher than the last (the generalized power method, Journée
    et al. 2010, arXiv 0811.4724).

    `per_batch` gives every minibatch its own loss and its own worst point, and the mean of the
    rises over images: m-sharpness, with m images in a minibatch (Foret et al. 2021, sec. 4.1).

    Raises ValueError where `ball` has one radius per member, `batches` is empty or steps < 1.
    """
    return worst_rises(model, batches, [ball], steps=steps, per_batch=per_batch)[0]


def worst_rises(
    model: nn.Module,
    batches: Iterable[Minibatch],
    balls: Sequence[Ball | AdaptiveBall],
    *,
    steps: int = 1,
    per_batch: bool = False,
) -> tuple[float, ...]:
    """`worst_rise` in each of several neighborhoods, which share the gradient at w."""
    for ball in balls:
        if ball.members is not None:
            raise ValueError(f"ball must have one radius, got rho={ball.rho}")
    _check_count("steps", steps, 1)
    objective = Objective(model, batches)
    parts = list(objective.minibatches()) if per_batch else [objective]
    rises = np.array([_rises(part, balls, steps) for part in parts])
    shares = np.array([part.images / objective.images for part in parts])
    return tuple(float(rise) for rise in shares @ rises)


def _rises(objective: Objective, balls: Sequence[Ball | AdaptiveBall], steps: int) -> list[float]:
    loss, slope = objective.gradient()
    return [_highest(objective, ball, slope, steps) - loss for ball in balls]


def _highest(objective: Objective, ball: Ball | AdaptiveBall, slope: Weights, steps: int) -> float:
    """The highest loss at ε_1 … ε_steps; `slope` is ∇L(w)."""
    w, losses = objective.weights, []
    adaptive = ["weight" in name for name in w]  # as `param_groups`
    for left in reversed(range(steps)):
        worst = ball.worst([*w.values()], [*slope.values()], adaptive)
        there = moved(w, (1.0, dict(zip(w, worst, strict=True))))
        loss, slope = objective.gradient(there) if left else (objective.loss(there), slope)
        losses.append(loss)
    return max(losses)
