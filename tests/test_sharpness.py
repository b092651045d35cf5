"""`worst_rise` against cases worked by hand and a naive oracle; the network is left as it was."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind import AdaptiveBall, Ball
from lookbehind.models import make_model
from lookbehind.sharpness import worst_rise

BALLS = [Ball(0.3), AdaptiveBall(0.3, 0.01)]


class Slope(nn.Module):
    """Logits (w·x, 0): the loss of label 0 is log(1 + exp(−w·x))."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x @ self.weight, torch.zeros(len(x), dtype=x.dtype)], 1)


class Squared(nn.Module):
    """Logits (−s, log(1 − exp(−s))) with s = ½ Σ hⱼ wⱼ²: the loss of label 0 is s, a quadratic."""

    def __init__(self, curvature: list[float], weight: list[float]) -> None:
        super().__init__()
        self.h = torch.tensor(curvature, dtype=torch.float64)
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        s = (self.h * self.weight**2).sum() / 2
        logits = torch.stack([-s, torch.log1p(-torch.exp(-s))])
        return logits.expand(len(x), 2)


def one_image(*pixels: float) -> list[tuple[Tensor, Tensor]]:
    return [(torch.tensor([pixels], dtype=torch.float64), torch.tensor([0]))]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def a_network() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = make_model("tiny-cnn", channels=1, size=(8, 8)).double()
    model(torch.randn(30, 1, 8, 8, dtype=torch.float64))  # running statistics of its own
    images, labels = torch.randn(9, 1, 8, 8, dtype=torch.float64), torch.randint(10, (9,))
    return model, list(zip(images.split(4), labels.split(4), strict=True))


def test_a_quadratic_rises_by_gradient_plus_curvature() -> None:
    h, w, rho = [4.0, 1.0], [0.3, 0.4], 0.1
    g = [h[0] * w[0], h[1] * w[1]]
    norm = math.hypot(*g)
    rise = rho * norm + rho**2 / 2 * (h[0] * g[0] ** 2 + h[1] * g[1] ** 2) / norm**2
    assert worst_rise(Squared(h, w), one_image(0.0), Ball(rho)) == pytest.approx(rise, rel=1e-12)


def test_a_slope_worked_by_hand() -> None:
    model, data = Slope([0.5, -1.0]), one_image(3.0, 4.0)  # w·x = −2.5; ∇L points along −x
    expected = softplus(2.5 + 0.2 * 5) - softplus(2.5)
    assert worst_rise(model, data, Ball(0.2)) == pytest.approx(expected, rel=1e-12)


def test_the_adaptive_ball_by_hand() -> None:
    model, data = Slope([0.5, -1.0]), one_image(3.0, 4.0)
    t = [0.5 + 0.1, 1.0 + 0.1]
    norm = math.hypot(3 * t[0], 4 * t[1])
    climb = 0.2 * ((3 * t[0]) ** 2 + (4 * t[1]) ** 2) / norm
    expected = softplus(2.5 + climb) - softplus(2.5)
    assert worst_rise(model, data, AdaptiveBall(0.2, 0.1)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ball", BALLS)
def test_the_gradient_is_that_of_the_mean_over_all_images(ball: Ball | AdaptiveBall) -> None:
    model, batches = a_network()
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    model.eval()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    squares, moved = 0.0, {}
    for name, p in model.named_parameters():
        adaptive = isinstance(ball, AdaptiveBall) and "weight" in name
        t = p.detach().abs() + ball.eta if adaptive else torch.ones_like(p)
        squares += float(((t * p.grad) ** 2).sum())
        moved[name] = t**2 * p.grad
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += ball.rho * moved[name] / math.sqrt(squares)
        expected = float(cross_entropy(model(images), labels) - loss)
    assert worst_rise(a_network()[0], batches, ball) == pytest.approx(expected, rel=1e-9)


def test_no_radius_no_rise() -> None:
    model, batches = a_network()
    assert worst_rise(model, batches, Ball(0.0)) == pytest.approx(0, abs=1e-15)


def state_of(model: nn.Module) -> list[Tensor]:
    values = [value.clone() for value in model.state_dict().values()]
    return values + [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails: bool) -> None:
    model, batches = a_network()
    model.bn2.eval()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before, modes = state_of(model), [module.training for module in model.modules()]
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        if fails and len(calls) == 5:  # at w + ε
            raise RuntimeError("out of memory")

    model.register_forward_hook(fail)
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            worst_rise(model, batches, BALLS[0])
    else:
        worst_rise(model, batches, BALLS[0])
        assert len(calls) == 6
    assert all(map(torch.equal, state_of(model), before))
    assert [module.training for module in model.modules()] == modes


def test_a_frozen_or_unused_parameter_stays() -> None:
    model = Slope([0.5, -1.0])
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.frozen = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)
    expected = worst_rise(Slope([0.5, -1.0]), one_image(3.0, 4.0), Ball(0.2))
    assert worst_rise(model, one_image(3.0, 4.0), Ball(0.2)) == expected


def test_bad_arguments() -> None:
    model, batches = a_network()
    with pytest.raises(ValueError, match="ball must have one radius"):
        worst_rise(model, batches, Ball(torch.tensor([0.1, 0.2])))
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        worst_rise(model, [], Ball(0.1))
