"""Two-dimensional losses with known minima, and descents on them that record every point.

A loss is any Python function of a tensor of shape (…, 2) that returns shape (…); the ones here
carry their formula, a start, their minima and what they teach. `descend` runs the same optimizer
classes that train networks, in float64, for one start or for many members at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ToyLoss:
    """A closed-form loss L(x, y) and how to look at it.

    `function` maps (…, 2) to (…). `gradient` is its gradient in closed form, (…, 2) to (…, 2): on
    so small a function several times faster than autograd, to which None leaves it. `window` is
    (x₀, x₁, y₀, y₁), `minima` the minima inside it (of a valley, its flattest point), `lr` a
    learning rate that suits the loss, `noise` the standard deviation σ of a gradient noise that
    `descend` adds, one draw a minibatch.
    """

    name: str
    formula: str
    function: Loss
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    window: tuple[float, float, float, float]
    lesson: str
    lr: float = 0.05
    noise: float = 0.0
    gradient: Loss | None = None

    def __call__(self, w: Tensor) -> Tensor:
        return self.function(w)


def valley(w: Tensor) -> Tensor:
    """½(xy − 1)², a two-layer linear network on one example: λ = x² + y² on the minima xy = 1."""
    x, y = w.unbind(-1)
    return 0.5 * (x * y - 1).square()


def valley_gradient(w: Tensor) -> Tensor:
    x, y = w.unbind(-1)
    error = x * y - 1
    return torch.stack([error * y, error * x], -1)


def ring(w: Tensor) -> Tensor:
    """½(1 + 4(1 − x/r))(r − 1)², r = √(x² + y²): minima on the circle, λ 9 (left) to 1 (right)."""
    r = (w.square().sum(-1) + 1e-24).sqrt()  # defined at the origin too
    return 0.5 * (5 - 4 * w[..., 0] / r) * (r - 1).square()


def ring_gradient(w: Tensor) -> Tensor:
    r = (w.square().sum(-1, keepdim=True) + 1e-24).sqrt()
    outward = w / r
    cosine = outward[..., :1]
    turn = (w.new_tensor([1.0, 0.0]) - cosine * outward) / r
    return (5 - 4 * cosine) * (r - 1) * outward - 2 * (r - 1).square() * turn


def two_basins(w: Tensor) -> Tensor:
    """A sharp basin at (−1, 0) beside a wide one at (1, 0), the lower envelope smoothed."""
    x, y = w.unbind(-1)
    sharp, wide = 8 * ((x + 1).square() + y.square()), 0.5 * ((x - 1).square() + y.square())
    return -0.2 * torch.logaddexp(-5 * sharp, -5 * wide)


def two_basins_gradient(w: Tensor) -> Tensor:
    left, right = w + w.new_tensor([1.0, 0.0]), w - w.new_tensor([1.0, 0.0])
    gap = 8 * left.square().sum(-1, keepdim=True) - 0.5 * right.square().sum(-1, keepdim=True)
    share = torch.sigmoid(5 * gap)  # of the wide basin
    return (1 - share) * 16 * left + share * right


def quadratic(w: Tensor) -> Tensor:
    """½(x² + 25 y²): condition number 25."""
    x, y = w.unbind(-1)
    return 0.5 * (x.square() + 25 * y.square())


def noisy_quadratic(w: Tensor) -> Tensor:
    """½(x² + 8 y²); its noise is added by `descend`."""
    x, y = w.unbind(-1)
    return 0.5 * (x.square() + 8 * y.square())


def rosenbrock(w: Tensor) -> Tensor:
    """((1 − x)² + 20 (y − x²)²) / 20."""
    x, y = w.unbind(-1)
    return ((1 - x).square() + 20 * (y - x.square()).square()) / 20


def rosenbrock_gradient(w: Tensor) -> Tensor:
    x, y = w.unbind(-1)
    error = y - x.square()
    return torch.stack([(x - 1) / 10 - 4 * x * error, 2 * error], -1)


def himmelblau(w: Tensor) -> Tensor:
    """((x² + y − 11)² + (x + y² − 7)²) / 100: four minima of one height."""
    x, y = w.unbind(-1)
    return ((x.square() + y - 11).square() + (x + y.square() - 7).square()) / 100


def himmelblau_gradient(w: Tensor) -> Tensor:
    x, y = w.unbind(-1)
    a, b = x.square() + y - 11, x + y.square() - 7
    return torch.stack([4 * x * a + 2 * b, 2 * a + 4 * y * b], -1) / 100


LOSSES = {
    loss.name: loss
    for loss in (
        ToyLoss(
            "valley",
            r"\tfrac12 (xy - 1)^2",
            valley,
            gradient=valley_gradient,
            start=(3.0, 0.6),
            minima=((1.0, 1.0),),
            window=(-0.6, 3.6, -0.9, 2.1),
            lesson="All points of the valley have loss 0, and the flattest is (1, 1): "
            "gradient descent stops where it arrives, sharpness-aware methods walk on.",
            lr=0.1,
        ),
        ToyLoss(
            "ring",
            r"\tfrac12 \left(1 + 4 (1 - x/r)\right) (r - 1)^2",
            ring,
            gradient=ring_gradient,
            start=(-1.4, 0.5),
            minima=((1.0, 0.0),),
            window=(-1.9, 1.9, -1.4, 1.4),
            lesson="A curved ravine: the floor is level all round, and its walls are 9 times "
            "steeper on the left than on the right.",
            lr=0.15,
        ),
        ToyLoss(
            "two basins",
            r"-\tfrac15 \log\left(e^{-40 ((x+1)^2 + y^2)} + e^{-\frac52 ((x-1)^2 + y^2)}\right)",
            two_basins,
            gradient=two_basins_gradient,
            start=(-1.3, 0.3),
            minima=((1.0, 0.0), (-1.0, 0.0)),
            window=(-2.0, 2.2, -1.5, 1.5),
            lesson="A sharp basin beside a wide one: SGD stays in the sharp one, SAM often hangs "
            "on the barrier between them, and whether Lookbehind crosses depends on k and ρ.",
            lr=0.1,
        ),
        ToyLoss(
            "quadratic",
            r"\tfrac12 (x^2 + 25 y^2)",
            quadratic,
            gradient=lambda w: w * w.new_tensor([1.0, 25.0]),
            start=(-2.5, 1.0),
            minima=((0.0, 0.0),),
            window=(-3.0, 1.2, -1.5, 1.5),
            lesson="One minimum of curvature 25 across and 1 along: there is nothing flatter to "
            "find, and the climb only keeps the weights a distance of about ρ away.",
            lr=0.03,
        ),
        ToyLoss(
            "noisy quadratic",
            r"\tfrac12 (x^2 + 8 y^2) + \langle \xi, w \rangle,\ \xi \sim N(0, 1)",
            noisy_quadratic,
            gradient=lambda w: w * w.new_tensor([1.0, 8.0]),
            start=(2.0, 1.0),
            minima=((0.0, 0.0),),
            window=(-1.6, 2.6, -1.5, 1.5),
            lesson="Minibatch noise: k descents on one minibatch repeat its error k times, and α "
            "scales the sum down again.",
            lr=0.05,
            noise=1.0,
        ),
        ToyLoss(
            "Rosenbrock",
            r"\left((1 - x)^2 + 20 (y - x^2)^2\right) / 20",
            rosenbrock,
            gradient=rosenbrock_gradient,
            start=(-1.2, 1.0),
            minima=((1.0, 1.0),),
            window=(-1.8, 1.9, -0.7, 1.9),
            lesson="The floor of this valley slopes, so loss and flatness pull apart: near the "
            "minimum, the climb costs progress.",
            lr=0.1,
        ),
        ToyLoss(
            "Himmelblau",
            r"\left((x^2 + y - 11)^2 + (x + y^2 - 7)^2\right) / 100",
            himmelblau,
            gradient=himmelblau_gradient,
            start=(0.0, 0.0),
            minima=(
                (3.0, 2.0),
                (-2.805118086952745, 3.131312518250573),
                (-3.779310253377747, -3.283185991286170),
                (3.584428340330492, -1.848126526964404),
            ),
            window=(-6.0, 6.0, -5.0, 5.0),
            lesson="Four minima of height 0: where a method ends is decided early, by small "
            "differences in its path.",
            lr=0.1,
        ),
    )
}


def hessian_eigenvalues(loss: Loss, points: ArrayLike) -> Array:
    """λ₁ ≤ λ₂ of ∇²L at each of `points` of shape (…, 2), by automatic differentiation; (…, 2)."""
    at = torch.as_tensor(np.asarray(points, dtype=np.float64))
    flat = at.reshape(-1, 2)
    hessians = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss)))(flat)
    (a, b), (_, d) = hessians.permute(1, 2, 0)
    middle, spread = (a + d) / 2, torch.hypot((a - d) / 2, b)
    return torch.stack([middle - spread, middle + spread], -1).reshape(at.shape).numpy()
