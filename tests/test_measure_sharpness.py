"""The measures of sharpness against cases worked by hand, a dense Hessian and naive oracles.

The network is left as it was, and so is the global random stream.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lookbehind import AdaptiveBall, Ball
from lookbehind.measure import (
    Objective,
    average_rise,
    gradient,
    hessian_eigenpairs,
    hessian_trace,
    quantization,
    quantized,
    spectral_density,
    weight_noise,
    worst_rise,
    worst_rises,
)
from lookbehind.train import make_model
from lookbehind.weights import moved, weights_of

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


# Several steps, radii and minibatches


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
@pytest.mark.parametrize("per_batch", [False, True])
def test_more_steps_never_give_less(ball: Ball | AdaptiveBall, per_batch: bool) -> None:
    model, batches = a_network()
    rises = [worst_rise(model, batches, ball, steps=n, per_batch=per_batch) for n in range(1, 5)]
    assert rises == sorted(rises) and rises[3] > rises[0]


def test_several_radii_at_once() -> None:
    model, batches = a_network()
    balls = [Ball(0.1), Ball(0.3), AdaptiveBall(0.3)]
    for some in ({}, {"steps": 2}, {"per_batch": True}):
        one_by_one = tuple(worst_rise(model, batches, ball, **some) for ball in balls)
        assert worst_rises(model, batches, balls, **some) == one_by_one
    assert worst_rises(model, batches, []) == ()


@pytest.mark.parametrize("ball", BALLS)
def test_per_batch_is_the_mean_over_images_of_each_minibatchs_own_rise(
    ball: Ball | AdaptiveBall,
) -> None:
    model, batches = a_network()  # minibatches of 4, 4 and 1
    own = [worst_rise(model, [minibatch], ball) for minibatch in batches]
    expected = (4 * own[0] + 4 * own[1] + own[2]) / 9
    found = worst_rise(model, batches, ball, per_batch=True)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found > 1.1 * worst_rise(model, batches, ball)


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


def rescaled(model: nn.Module, c: float) -> nn.Module:
    """The same function: layers without biases between ReLUs, w₁ c and w₂ / c."""
    other = nn.Sequential(nn.Linear(6, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False))
    other.double().load_state_dict(model.state_dict())
    with torch.no_grad():
        other[0].weight *= c
        other[2].weight /= c
    return other


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


# The Hessian


def a_small_network() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(11, 4, dtype=torch.float64), torch.randint(3, (11,))
    model(3 * x)  # running statistics of its own
    model[1].bias.requires_grad_(False)
    return model, list(zip(x.split(8), y.split(8), strict=True))


def dense(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """∇²L by differentiating twice in a flat vector."""
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    weights = weights_of(model)
    model.eval()

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([w.numel() for w in weights.values()])
        at = {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}
        return cross_entropy(functional_call(model, at, (images,)), labels)

    flat = torch.cat([w.flatten() for w in weights.values()])
    return torch.autograd.functional.hessian(loss, flat)


def flat(direction: dict[str, Tensor]) -> Tensor:
    return torch.cat([d.flatten() for d in direction.values()])


@pytest.mark.parametrize("count", [1, 4, 30, 48])  # 30 and all 48 take the whole matrix
def test_eigenpairs_are_those_of_the_dense_hessian(count: int) -> None:
    model, batches = a_small_network()
    found, matrix = hessian_eigenpairs(model, batches, count), dense(model, batches)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:count].numpy()
    assert len(matrix) == 48
    assert found.values == pytest.approx(expected, rel=1e-8, abs=1e-14)
    vectors = torch.stack([flat(v) for v in found.vectors])
    assert [*found.vectors[0]] == [*weights_of(model)]
    products, scaled = vectors @ matrix, torch.tensor(found.values)[:, None] * vectors
    torch.testing.assert_close(products, scaled, rtol=0, atol=1e-7 * expected[0])
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(count).double(), rtol=0, atol=1e-10)
    assert all(v[v.abs().argmax()] > 0 for v in vectors)


def test_two_parameters_have_two_eigenpairs() -> None:
    found = hessian_eigenpairs(Squared([1.0, 4.0], [0.3, 0.4]), one_image(0.0), 2)
    assert found.values == pytest.approx([4.0, 1.0], rel=1e-12)
    expected = torch.eye(2, dtype=torch.float64)
    vectors = torch.stack([v["weight"] for v in found.vectors])
    torch.testing.assert_close(vectors, expected.flip(0), rtol=0, atol=1e-12)


def test_eigenpairs_of_a_convolutional_network_against_differences_of_gradients() -> None:
    model, batches = a_network()
    batches = batches[:1]
    found, objective = hessian_eigenpairs(model, batches), Objective(model, batches)
    (value,), (v,) = found.values, found.vectors
    ahead, behind = (
        flat(objective.gradient(moved(objective.weights, (h, v)))[1]) for h in (1e-6, -1e-6)
    )
    torch.testing.assert_close((ahead - behind) / 2e-6, value * flat(v), rtol=0, atol=1e-5 * value)


def test_the_layout_in_memory_changes_nothing_and_a_resnet_warns_of_nothing() -> None:
    torch.manual_seed(0)
    model = make_model("micro-resnet8", channels=3, size=(8, 8))
    data = [(torch.randn(4, 3, 8, 8), torch.randint(10, (4,)))]
    ours = hessian_trace(model, data, draws=2).values
    theirs = hessian_trace(model.to(memory_format=torch.channels_last), data, draws=2).values
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def signs(draws: int, n: int) -> Tensor:
    """The vectors of ±1 that the seed 0 stands for, (draws, n)."""
    generator = torch.Generator().manual_seed(0)
    bits = [torch.randint(2, (n,), generator=generator) for _ in range(draws)]
    return 2.0 * torch.stack(bits).double() - 1


def test_the_trace_within_its_error_and_exact_where_the_hessian_is_diagonal() -> None:
    model, batches = a_small_network()
    matrix = dense(model, batches)
    found = hessian_trace(model, batches, draws=40)
    probes = signs(40, 48)
    expected = ((probes @ matrix) * probes).sum(1)
    assert found.values == pytest.approx(expected.numpy(), rel=1e-10)
    assert abs(found.mean - float(matrix.trace())) < 2 * found.error
    assert found.error == pytest.approx(np.std(found.values) / math.sqrt(39))
    diagonal = hessian_trace(Squared([4.0, 1.0], [0.3, 0.4]), one_image(0.0), draws=2)
    assert diagonal.values == pytest.approx([5.0, 5.0], rel=1e-12)


def test_the_density_has_the_moments_of_its_draws() -> None:
    """vᵀ Hᵖ v / n up to p = 2 · steps − 1, so the mean is that of the trace's draws."""
    model, batches = a_small_network()
    matrix, probes = dense(model, batches), signs(3, 48)
    found = spectral_density(model, batches, steps=3, draws=3)
    powers = probes
    for power in range(6):
        expected = float((powers * probes).sum()) / probes.numel()
        assert found.weights @ found.nodes**power == pytest.approx(expected, rel=1e-9)
        powers = powers @ matrix
    lowest, *_, highest = torch.linalg.eigvalsh(matrix).tolist()
    assert len(found.nodes) == 9
    assert lowest < found.nodes.min() and found.nodes.max() < highest


def test_enough_steps_find_every_eigenvalue() -> None:
    model, batches = a_small_network()
    values, vectors = torch.linalg.eigh(dense(model, batches))
    found = spectral_density(model, batches, steps=1000, draws=1)
    order = found.nodes.argsort()
    order = order[np.abs(found.nodes[order]) > 1e-9]  # a null space is one node
    distinct = values.abs() > 1e-9
    assert found.nodes[order] == pytest.approx(values[distinct].numpy(), rel=1e-7)
    shares = (vectors.T @ signs(1, 48)[0]).square()[distinct] / 48
    assert found.weights[order] == pytest.approx(shares.numpy(), abs=1e-7)


def test_two_curvatures_are_two_nodes() -> None:
    found = spectral_density(Squared([4.0, 1.0], [0.3, 0.4]), one_image(0.0), steps=40, draws=1)
    assert sorted(found.nodes) == pytest.approx([1.0, 4.0], rel=1e-12)
    assert found.weights == pytest.approx([0.5, 0.5], rel=1e-12)
    same = spectral_density(Squared([3.0, 3.0], [0.3, 0.4]), one_image(0.0), steps=40, draws=1)
    assert same.nodes == pytest.approx([3.0], rel=1e-12)  # the space is exhausted at once


def test_a_density_on_a_grid_integrates_to_one() -> None:
    found = spectral_density(Squared([4.0, 1.0], [0.3, 0.4]), one_image(0.0))
    grid = np.linspace(-2, 8, 2001)
    density = found.at(grid, 0.3)
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, rel=1e-9)
    at_a_node = 0.5 / (0.3 * math.sqrt(2 * math.pi))  # the other is ten widths away
    assert found.at(np.array([4.0]), 0.3) == pytest.approx([at_a_node], rel=1e-9)


# Noise and few bits


def test_the_average_rise_of_a_quadratic() -> None:
    h, w, sigma = [4.0, 1.0], [0.3, 0.4], 0.05
    found = average_rise(Squared(h, w), one_image(0.0), sigma, draws=400)
    assert abs(found.mean - sigma**2 * sum(h) / 2) < 3 * found.error
    relative = average_rise(Squared(h, w), one_image(0.0), sigma, draws=400, relative=True)
    squares = (w[0] ** 2 + w[1] ** 2) / 2
    assert abs(relative.mean - squares * sigma**2 * sum(h) / 2) < 3 * relative.error
    generator = torch.Generator().manual_seed(0)
    for value in found.values[:3]:
        a, b = (sigma * torch.randn(2, generator=generator, dtype=torch.float64)).tolist()
        rise = h[0] * (w[0] * a + a * a / 2) + h[1] * (w[1] * b + b * b / 2)
        assert value == pytest.approx(rise, rel=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_every_level_has_the_same_draws(relative: bool) -> None:
    model, batches = a_network()
    score = Objective(model, batches).score()
    noise = weight_noise(model, batches, [0.0, 0.1, 0.3], relative=relative, draws=3)
    assert noise.losses.shape == noise.accuracies.shape == (3, 3)
    assert noise.levels.tolist() == [0.0, 0.1, 0.3] and noise.relative == relative
    assert (noise.losses[0] == score.loss).all() and (noise.accuracies[0] == score.accuracy).all()
    alone = weight_noise(model, batches, [0.3], relative=relative, draws=4)
    assert (alone.losses[0, :3] == noise.losses[2]).all()
    assert len({*alone.losses[0]}) == 4
    other = weight_noise(model, batches, [0.3], relative=relative, draws=4, seed=1)
    assert not {*alone.losses[0]} & {*other.losses[0]}
    assert noise.mean == pytest.approx([sum(row) / 3 for row in noise.accuracies])
    assert noise.std == pytest.approx([np.std(row) * math.sqrt(3 / 2) for row in noise.accuracies])


def test_relative_noise_follows_a_rescaling_of_layers_and_absolute_noise_does_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False))
    data = [(torch.randn(20, 6, dtype=torch.float64), torch.randint(4, (20,)))]
    model, other = model.double(), rescaled(model, 4.0)
    for relative in (True, False):
        ours, theirs = (weight_noise(m, data, [0.2], relative=relative) for m in (model, other))
        assert np.allclose(ours.losses, theirs.losses, rtol=1e-12) == relative


def test_relative_noise_is_a_share_of_each_tensors_norm() -> None:
    model = Slope([0.0, 0.0])  # a tensor that is 0 stays so
    noise = weight_noise(model, one_image(3.0, 4.0), [0.5], draws=2)
    assert noise.losses.tolist() == [[math.log(2)] * 2]


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_quantized_weights_lie_on_the_nearest_of_evenly_spaced_values(bits: int) -> None:
    model, _ = a_network()
    found, before = quantized(model, bits), weights_of(model)
    assert [*found] == [*before]
    for name, w in before.items():
        if w.ndim < 2:
            assert torch.equal(found[name], w)
            continue
        step = float(w.abs().max()) / (2 ** (bits - 1) - 1)
        steps = found[name] / step
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
        assert float((found[name] - w).abs().max()) <= step / 2 * (1 + 1e-9)
        assert float(found[name].abs().max()) == pytest.approx(float(w.abs().max()), rel=1e-12)


def test_a_layer_of_zeros_has_no_scale() -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    assert torch.equal(quantized(model, 4)["weight"], torch.zeros(2, 3))


def test_quantization_scores_the_network_with_those_weights() -> None:
    model, batches = a_network()
    found = quantization(model, batches, [2, 16])
    for bits, loss, accuracy in zip(found.bits, found.losses, found.accuracies, strict=True):
        other, _ = a_network()
        other.load_state_dict(quantized(model, bits), strict=False)
        score = Objective(other, batches).score()
        assert (loss, accuracy) == (score.loss, score.accuracy)
    assert found.losses[1] == pytest.approx(Objective(model, batches).loss(), rel=1e-3)
    assert found.losses[0] != pytest.approx(found.losses[1], rel=1e-3)


MEASURES: list[Callable[..., Any]] = [
    lambda *a: gradient(*a),
    lambda *a: worst_rises(*a, BALLS, steps=2, per_batch=True),
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
    before, stream = state_of(model), torch.get_rng_state()
    first, again = measure(model, batches), measure(model, iter(batches))
    assert repr(first) == repr(again)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(map(torch.equal, state_of(model), before))
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda *a: worst_rise(*a, Ball(0.1), steps=0), "steps must be at least 1, got 0"),
        (lambda *a: average_rise(*a, -0.1), "sigma must be a finite number ≥ 0; got -0.1"),
        (lambda *a: weight_noise(*a, [0.1, math.nan]), "level must be a finite number ≥ 0"),
        (lambda *a: weight_noise(*a, [0.1], draws=1), "draws must be at least 2, got 1"),
        (lambda *a: quantization(*a, [1]), "bits must be an integer from 2 to 16, got 1"),
        (lambda *a: quantization(*a, [17]), "bits must be an integer from 2 to 16, got 17"),
        (lambda *a: hessian_eigenpairs(*a, 0), "count must be at least 1, got 0"),
        (lambda *a: hessian_eigenpairs(*a, 49), "count must be at most .* 48; got 49"),
        (lambda *a: hessian_trace(*a, draws=1), "draws must be at least 2, got 1"),
        (lambda *a: spectral_density(*a, steps=0), "steps must be at least 1, got 0"),
        (lambda *a: spectral_density(*a, draws=0), "draws must be at least 1, got 0"),
    ],
)
def test_what_a_measure_wants(measure: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(*a_small_network())
