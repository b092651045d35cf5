"""How far the loss rises, against cases worked by hand and naive oracles; and what all measures
leave alone: the network, its gradients and modes, the global random stream.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from measuring import Slope, Squared, a_network, a_small_network, all_of, one_image, rescaled, same
from problems import one_thread  # noqa: F401
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind import AdaptiveBall, Ball
from lookbehind.measure import (
    average_rise,
    gradient,
    hessian_eigenpairs,
    hessian_trace,
    quantization,
    spectral_density,
    weight_noise,
    worst_rise,
    worst_rises,
)
from lookbehind.measure.directions import stream

BALLS = [Ball(0.3), AdaptiveBall(0.3, 0.01)]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_a_quadratic_rises_by_gradient_plus_curvature() -> None:
    h, w, rho = [4.0, 1.0], [0.3, 0.4], 0.1
    g = [h[0] * w[0], h[1] * w[1]]
    norm = math.hypot(*g)
    rise = rho * norm + rho**2 / 2 * (h[0] * g[0] ** 2 + h[1] * g[1] ** 2) / norm**2
    assert worst_rise(Squared(h, w), one_image(0.0), Ball(rho)) == pytest.approx(rise, rel=1e-12)


@pytest.mark.parametrize(
    ("ball", "t"), [(Ball(0.2), (1.0, 1.0)), (AdaptiveBall(0.2, 0.1), (0.5 + 0.1, 1.0 + 0.1))]
)
def test_a_slope_worked_by_hand(ball: Ball | AdaptiveBall, t: tuple[float, float]) -> None:
    model, data = Slope([0.5, -1.0]), one_image(3.0, 4.0)  # w·x = −2.5; ∇L points along −x
    climb = 0.2 * math.hypot(3 * t[0], 4 * t[1])
    expected = softplus(2.5 + climb) - softplus(2.5)
    assert worst_rise(model, data, ball) == pytest.approx(expected, rel=1e-12)


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


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails: bool) -> None:
    model, batches = a_network()
    model.get_submodule("layer1").eval()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before = all_of(model)
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        if fails and len(calls) == 5:  # at w + ε
            raise RuntimeError("out of memory")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory") if fails else nullcontext():
        worst_rise(model, batches, BALLS[0])
    assert len(calls) == (5 if fails else 6)
    assert same(all_of(model), before)


def test_a_frozen_or_unused_parameter_stays() -> None:
    model = Slope([0.5, -1.0])
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.frozen = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)
    expected = worst_rise(Slope([0.5, -1.0]), one_image(3.0, 4.0), Ball(0.2))
    assert worst_rise(model, one_image(3.0, 4.0), Ball(0.2)) == expected


def highest_of_a_quadratic(h: list[float], w: list[float], rho: float) -> float:
    """How far ½ Σ h w² rises within ρ: to ε = g / (μ − h), whose length μ > max h sets to ρ."""
    low, high = max(h), max(h) + 1e3
    g = [a * b for a, b in zip(h, w, strict=True)]
    for _ in range(200):
        mu = (low + high) / 2
        e = [a / (mu - b) for a, b in zip(g, h, strict=True)]
        low, high = (mu, high) if math.hypot(*e) > rho else (low, mu)
    return sum(a * c + b * c * c / 2 for a, b, c in zip(g, h, e, strict=True))


def test_steps_find_the_highest_point_of_a_quadratic() -> None:
    h, w, rho = [4.0, 1.0, 0.5], [0.1, 0.4, -0.5], 0.3
    highest = highest_of_a_quadratic(h, w, rho)
    model, data = Squared(h, w), one_image(0.0)
    assert worst_rise(model, data, Ball(rho)) < 0.97 * highest
    assert worst_rise(model, data, Ball(rho), steps=40) == pytest.approx(highest, rel=1e-9)


@pytest.mark.parametrize("ball", BALLS)
def test_more_steps_never_give_less(ball: Ball | AdaptiveBall) -> None:
    model, batches = a_network()
    rises = [worst_rise(model, batches, ball, steps=steps) for steps in range(1, 5)]
    assert rises == sorted(rises) and rises[3] > rises[0]


def test_several_radii_at_once() -> None:
    model, batches = a_network()
    balls = [Ball(0.1), Ball(0.3), AdaptiveBall(0.3)]
    for steps in (1, 2):
        one_by_one = tuple(worst_rise(model, batches, ball, steps=steps) for ball in balls)
        assert worst_rises(model, batches, balls, steps=steps) == one_by_one
    assert worst_rises(model, batches, []) == ()
    assert worst_rise(model, batches, Ball(0.0)) == pytest.approx(0, abs=1e-15)


def test_a_small_radius_gives_the_gradients_norm() -> None:
    model, batches = a_network()
    slope, eta, rho = gradient(model, batches), 0.01, 1e-6
    norm = math.sqrt(sum(float((g**2).sum()) for g in slope.values()))
    assert worst_rise(model, batches, Ball(rho)) / rho == pytest.approx(norm, rel=1e-4)
    squares = 0.0
    for name, p in model.named_parameters():
        t = p.detach().abs() + eta if "weight" in name else torch.ones_like(p)
        squares += float(((t * slope[name]) ** 2).sum())
    rise = worst_rise(model, batches, AdaptiveBall(rho, eta)) / rho
    assert rise == pytest.approx(math.sqrt(squares), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_asams_sharpness_survives_a_rescaling_of_layers_and_sams_does_not(steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False))
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randint(4, (20,))
    model, other = model.double(), rescaled(model, 4.0)
    assert torch.equal(model(x), other(x))
    (asam, sam), (asam_too, sam_too) = (
        worst_rises(m, [(x, y)], [AdaptiveBall(0.3, eta=0.0), Ball(0.05)], steps=steps)
        for m in (model, other)
    )
    assert asam_too == pytest.approx(asam, rel=1e-12)
    assert sam_too > 2 * sam


def test_the_average_rise_of_a_quadratic() -> None:
    h, w, sigma = [4.0, 1.0], [0.3, 0.4], 0.05
    found = average_rise(Squared(h, w), one_image(0.0), sigma, draws=400)
    assert abs(found.mean - sigma**2 * sum(h) / 2) < 3 * found.error
    relative = average_rise(Squared(h, w), one_image(0.0), sigma, draws=400, relative=True)
    squares = (w[0] ** 2 + w[1] ** 2) / 2
    assert abs(relative.mean - squares * sigma**2 * sum(h) / 2) < 3 * relative.error
    generator = stream("noise", 0)
    for value in found.values[:3]:
        a, b = (sigma * torch.randn(2, generator=generator, dtype=torch.float64)).tolist()
        rise = h[0] * (w[0] * a + a * a / 2) + h[1] * (w[1] * b + b * b / 2)
        assert value == pytest.approx(rise, rel=1e-9)


MEASURES: list[Callable[..., Any]] = [
    lambda *a: gradient(*a),
    lambda *a: worst_rises(*a, BALLS, steps=2),
    lambda *a: average_rise(*a, 0.1, draws=2),
    lambda *a: weight_noise(*a, [0.1], draws=2),
    lambda *a: quantization(*a, [4]),
    lambda *a: hessian_eigenpairs(*a),
    lambda *a: hessian_trace(*a, draws=2),
    lambda *a: spectral_density(*a, steps=3, draws=1),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_touches_neither_the_network_nor_the_random_stream(
    measure: Callable[..., Any],
) -> None:
    model, batches = a_small_network()
    model.train()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before = all_of(model)
    first, again = measure(model, batches), measure(model, iter(batches))
    assert repr(first) == repr(again)
    assert same(all_of(model), before)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda *a: worst_rise(*a, Ball(torch.tensor([0.1, 0.2]))), "ball must have one radius"),
        (lambda m, _: worst_rise(m, [], Ball(0.1)), "batches must hold at least one image"),
        (lambda *a: worst_rise(*a, Ball(0.1), steps=0), "steps must be .*≥ 1, got 0"),
        (lambda *a: average_rise(*a, -0.1), "sigma must be a finite number ≥ 0; got -0.1"),
        (lambda *a: weight_noise(*a, [0.1, math.nan]), "level must be a finite number ≥ 0"),
        (lambda *a: weight_noise(*a, [0.1], draws=1), "draws must be .*≥ 2, got 1"),
        (lambda *a: quantization(*a, [1]), "bits must be an integer from 2 to 16, got 1"),
        (lambda *a: quantization(*a, [17]), "bits must be an integer from 2 to 16, got 17"),
        (lambda *a: hessian_eigenpairs(*a, 0), "count must be .*≥ 1, got 0"),
        (lambda *a: hessian_eigenpairs(*a, 49), "count must be at most .* 48; got 49"),
        (lambda *a: hessian_trace(*a, draws=1), "draws must be .*≥ 2, got 1"),
        (lambda *a: spectral_density(*a, steps=0), "steps must be .*≥ 1, got 0"),
        (lambda *a: spectral_density(*a, draws=0), "draws must be .*≥ 1, got 0"),
    ],
)
def test_what_a_measure_wants(measure: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(*a_small_network())
