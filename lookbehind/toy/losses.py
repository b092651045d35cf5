"""Two-dimensional losses with known minima: formula, start, minima, and what each teaches."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lookbehind.toy.expression import check_expression, formulas

Array = NDArray[np.float64]
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ToyLoss:
    """A loss L(x, y), written as one expression, and how to look at it.

    `expression` is made of numbers, x, y, r = √(x² + y²), pi, e, + - * / **, and the functions of
    `lookbehind.toy.expression`. Of points (…, 2) the loss is (…), its `gradient` (…, 2) and its
    `hessian` (…, 3), the entries xx, xy and yy; `latex` is the formula, `javascript` an object
    {loss(x, y), gradient(x, y), hessian(x, y)}. `window` is (x₀, x₁, y₀, y₁), `minima` are the
    minima inside it (of a valley, its flattest point), `lr` is a learning rate that suits the loss,
    `noise` the standard deviation σ of a gradient noise that `descend` adds, one draw a minibatch.

    Raises ValueError, with the place and what is allowed, for an expression that is wrong.
    """

    name: str
    expression: str
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    window: tuple[float, float, float, float]
    lesson: str
    lr: float = 0.05
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_expression(self.expression)

    def __call__(self, w: Tensor) -> Tensor:
        return formulas(self.expression).value(w)[..., 0]

    def gradient(self, w: Tensor) -> Tensor:
        return formulas(self.expression).gradient(w)

    def hessian(self, w: Tensor) -> Tensor:
        return formulas(self.expression).hessian(w)

    @property
    def latex(self) -> str:
        noise = rf" + \langle \xi, w \rangle,\ \xi \sim N(0, {self.noise:g}^2)"
        return formulas(self.expression).latex + (noise if self.noise else "")

    @property
    def javascript(self) -> str:
        return formulas(self.expression).javascript


LOSSES = {
    loss.name: loss
    for loss in (
        ToyLoss(
            "valley", "(x*y - 1)**2 / 2", start=(3.0, 0.6), minima=((1.0, 1.0),),
            window=(-0.6, 3.6, -0.9, 2.1), lr=0.1,
            lesson="All points of its floor have loss 0, and the flattest is (1, 1): "
            "gradient descent stops where it arrives, sharpness-aware methods walk on.",
        ),
        ToyLoss(
            "ring", "(5 - 4*x/r) * (r - 1)**2 / 2", start=(-1.4, 0.5), minima=((1.0, 0.0),),
            window=(-1.9, 1.9, -1.4, 1.4), lr=0.15,
            lesson="A curved ravine: the floor is level all round, and its walls are 9 times "
            "steeper on the left than on the right.",
        ),
        ToyLoss(
            "two basins", "-logaddexp(-40*((x + 1)**2 + y**2), -5/2*((x - 1)**2 + y**2)) / 5",
            start=(-1.3, 0.3), minima=((1.0, 0.0), (-1.0, 0.0)), window=(-2.0, 2.2, -1.5, 1.5),
            lr=0.1,
            lesson="A sharp basin beside a wide one: SGD stays in the sharp one, SAM often hangs "
            "on the barrier between them, and whether Lookbehind crosses depends on k and ρ.",
        ),
        ToyLoss(
            "quadratic", "(x**2 + 25*y**2) / 2", start=(-2.5, 1.0), minima=((0.0, 0.0),),
            window=(-3.0, 1.2, -1.5, 1.5), lr=0.03,
            lesson="One minimum of curvature 25 across and 1 along: there is nothing flatter to "
            "find, and the climb only keeps the weights a distance of about ρ away.",
        ),
        ToyLoss(
            "noisy quadratic", "(x**2 + 8*y**2) / 2", start=(2.0, 1.0), minima=((0.0, 0.0),),
            window=(-1.6, 2.6, -1.5, 1.5), lr=0.05, noise=1.0,
            lesson="Minibatch noise: k descents on one minibatch repeat its error k times, and α "
            "scales the sum down again.",
        ),
        ToyLoss(
            "Rosenbrock", "((1 - x)**2 + 20*(y - x**2)**2) / 20", start=(-1.2, 1.0),
            minima=((1.0, 1.0),), window=(-1.8, 1.9, -0.7, 1.9), lr=0.1,
            lesson="The floor of this valley slopes, so loss and flatness pull apart: near the "
            "minimum, the climb costs progress.",
        ),
        ToyLoss(
            "Himmelblau", "((x**2 + y - 11)**2 + (x + y**2 - 7)**2) / 100", start=(0.0, 0.0),
            minima=((3.0, 2.0), (-2.805118086952745, 3.131312518250573),
                    (-3.779310253377747, -3.283185991286170),
                    (3.584428340330492, -1.848126526964404)),
            window=(-6.0, 6.0, -5.0, 5.0), lr=0.1,
            lesson="Four minima of height 0: where a method ends is decided early, by small "
            "differences in its path.",
        ),
    )
}  # fmt: skip


def hessian_eigenvalues(loss: Loss, points: ArrayLike) -> Array:
    """λ₁ ≤ λ₂ of ∇²L at each of `points` (…, 2): (…, 2). In closed form, or of another function
    than a `ToyLoss` by automatic differentiation."""
    at = torch.as_tensor(np.asarray(points, dtype=np.float64))
    if isinstance(loss, ToyLoss):
        a, b, d = loss.hessian(at).unbind(-1)
    else:
        every = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss)))(at.reshape(-1, 2))
        a, b, d = (every[:, i, j].reshape(at.shape[:-1]) for i, j in ((0, 0), (0, 1), (1, 1)))
    middle, spread = (a + d) / 2, torch.hypot((a - d) / 2, b)
    return torch.stack([middle - spread, middle + spread], -1).numpy()
