"""How far the loss rises, against cases worked by hand and naive oracles; and what all measures
leave alone: the network, its gradients and modes, the global random stream."""

import math

import numpy as np
import pytest
import torch
from measuring import Squared, a_network, a_small_network, all_of, one_image, rescaled
from scipy.optimize import brentq
from torch import nn
from torch.nn.functional import cross_entropy

from lookbehind import AdaptiveBall, Ball
from lookbehind.measure import gradient, hessian_eigenpairs, hessian_trace, line, plane, quantized
from lookbehind.measure.directions import stream
from lookbehind.measure.objective import Objective
from lookbehind.measure.sharpness import average_rise, weight_noise, worst_rise, worst_rises
from lookbehind.weights import weights_of

BALLS = [Ball(0.3), AdaptiveBall(0.3, 0.01)]


@pytest.mark.parametrize("ball", BALLS)
def test_a_rise_is_that_of_the_mean_over_all_images_at_the_worst_point(ball):
    model, batches = a_network()
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    model.eval()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    squares, moved, slope = 0.0, {}, gradient(model, batches)
    for name, p in model.named_parameters():
        torch.testing.assert_close(slope[name], p.grad, rtol=1e-9, atol=1e-12)
        adaptive = isinstance(ball, AdaptiveBall) and "weight" in name
        t = p.detach().abs() + ball.eta if adaptive else torch.ones_like(p)
        squares += float(((t * p.grad) ** 2).sum())
        moved[name] = t**2 * p.grad
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += ball.rho * moved[name] / math.sqrt(squares)
        expected = float(cross_entropy(model(images), labels) - loss)
    assert worst_rise(a_network()[0], batches, ball) == pytest.approx(expected, rel=1e-9)


def test_a_frozen_or_unused_parameter_stays():
    model = Squared([4.0, 1.0], [0.3, 0.4])
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.frozen = nn.Parameter(torch.ones(3, dtype=torch.float64), requires_grad=False)
    expected = worst_rise(Squared([4.0, 1.0], [0.3, 0.4]), one_image(), Ball(0.2))
    assert worst_rise(model, one_image(), Ball(0.2)) == expected


def highest_of_a_quadratic(h, w, rho):
    """How far ½ Σ h w² rises within ρ: to ε = g / (μ − h), whose length μ > max h sets to ρ."""
    h, g = np.array(h), np.multiply(h, w)
    mu = brentq(lambda mu: np.linalg.norm(g / (mu - h)) - rho, max(h) + 1e-6, max(h) + 1e3)
    e = g / (mu - h)
    return g @ e + h @ e**2 / 2


def test_steps_find_the_highest_point_of_a_quadratic():
    problem = [4.0, 1.0, 0.5], [0.1, 0.4, -0.5]
    model, highest = Squared(*problem), highest_of_a_quadratic(*problem, 0.3)
    assert worst_rise(model, one_image(), Ball(0.3)) < 0.97 * highest
    found = worst_rise(model, one_image(), Ball(0.3), steps=40)
    assert found == pytest.approx(highest, rel=1e-9)


def test_more_steps_never_give_less():
    model, batches = a_network()
    rises = [worst_rise(model, batches, BALLS[1], steps=steps) for steps in range(1, 5)]
    assert rises == sorted(rises) and rises[3] > rises[0]


def test_several_radii_at_once():
    model, batches = a_network()
    balls = [Ball(0.1), Ball(0.3), AdaptiveBall(0.3)]
    one_by_one = tuple(worst_rise(model, batches, ball, steps=2) for ball in balls)
    assert worst_rises(model, batches, balls, steps=2) == one_by_one
    assert worst_rises(model, batches, []) == ()
    assert worst_rise(model, batches, Ball(0.0)) == pytest.approx(0, abs=1e-15)


def test_asams_sharpness_survives_a_rescaling_of_layers_and_sams_does_not():
    model, other, data = rescaled()
    balls = [AdaptiveBall(0.3, eta=0.0), Ball(0.05)]
    asam, sam = worst_rises(model, data, balls, steps=3)
    asam_too, sam_too = worst_rises(other, data, balls, steps=3)
    assert asam_too == pytest.approx(asam, rel=1e-12)
    assert sam_too > 2 * sam


def test_the_average_rise_of_a_quadratic():
    model, sigma = Squared([4.0, 1.0], [0.3, 0.4]), 0.05
    found = average_rise(model, one_image(), sigma, draws=400)
    expected = sigma**2 * (4 + 1) / 2
    assert abs(found.mean - expected) < 3 * found.error
    relative = average_rise(model, one_image(), sigma, draws=400, relative=True)
    assert abs(relative.mean - (0.3**2 + 0.4**2) / 2 * expected) < 3 * relative.error
    generator = stream("noise", 0)
    for value in found.values[:3]:
        a, b = (sigma * torch.randn(2, generator=generator, dtype=torch.float64)).tolist()
        rise = 4 * (0.3 * a + a * a / 2) + (0.4 * b + b * b / 2)
        assert value == pytest.approx(rise, rel=1e-9)


MEASURES = [
    lambda *a: gradient(*a),
    lambda *a: worst_rises(*a, BALLS, steps=2),
    lambda *a: average_rise(*a, 0.1, draws=2),
    lambda *a: weight_noise(*a, [0.1], draws=2),
    lambda *a: hessian_eigenpairs(*a),
    lambda *a: hessian_trace(*a, draws=2),
    lambda m, data: line(m, data, weights_of(m), points=3, statistics="reestimated").loss,
    lambda m, data: plane(m, data, *[weights_of(m)] * 2, points=3, stop=iter([0, 1]).__next__).loss,
]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_touches_neither_the_network_nor_the_random_stream(measure):
    model, batches = a_small_network()
    model.train()
    model[2].eval()
    model.append(nn.Dropout())
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    before = all_of(model)
    first, again = measure(model, batches), measure(model, iter(batches))
    assert repr(first) == repr(again)
    torch.testing.assert_close(all_of(model), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda *a: worst_rise(*a, Ball(torch.tensor([0.1, 0.2]))), "ball must have one radius"),
        (lambda *a: worst_rise(*a, Ball(0.1), steps=0), "steps must be .*≥ 1, got 0"),
        (lambda *a: average_rise(*a, -0.1), "sigma must be a finite number ≥ 0; got -0.1"),
        (lambda *a: weight_noise(*a, [0.1, math.nan]), "level must be a finite number ≥ 0"),
        (lambda *a: weight_noise(*a, [0.1], draws=1), "draws must be .*≥ 2, got 1"),
        (lambda m, _: quantized(m, 1), r"bits must be an int in \[2, 16\], got 1"),
        (lambda *a: hessian_eigenpairs(*a, 49), r"count must be an int in \[1, 48\], got 49"),
        (lambda *a: hessian_trace(*a, draws=1), "draws must be .*≥ 2, got 1"),
    ],
)
def test_what_a_measure_wants(measure, message):
    with pytest.raises(ValueError, match=message):
        measure(*a_small_network())


@pytest.mark.parametrize("relative", [False, True])
def test_every_level_has_the_same_draws(relative):
    model, batches = a_network()
    score = Objective(model, batches).score()
    noise = weight_noise(model, batches, [0.0, 0.1, 0.3], relative=relative, draws=3)
    assert noise.losses.shape == noise.accuracies.shape == (3, 3)
    assert noise.levels.tolist() == [0.0, 0.1, 0.3]
    assert (noise.losses[0] == score.loss).all() and (noise.accuracies[0] == score.accuracy).all()
    alone = weight_noise(model, batches, [0.3], relative=relative, draws=4)
    assert (alone.losses[0, :3] == noise.losses[2]).all()
    assert len({*alone.losses[0]}) == 4
    other = weight_noise(model, batches, [0.3], relative=relative, draws=4, seed=1)
    assert not {*alone.losses[0]} & {*other.losses[0]}
    assert noise.mean == pytest.approx([sum(row) / 3 for row in noise.accuracies])


def test_relative_noise_follows_a_rescaling_of_layers_and_absolute_noise_does_not():
    model, other, data = rescaled()
    for relative in (True, False):
        ours, theirs = (weight_noise(m, data, [0.2], relative=relative) for m in (model, other))
        assert np.allclose(ours.losses, theirs.losses, rtol=1e-12) == relative


@pytest.mark.parametrize("bits", [2, 8])
def test_quantized_weights_lie_on_the_nearest_of_evenly_spaced_values(bits):
    model, _ = a_network()
    nn.init.zeros_(model.get_submodule("fc").weight)  # which has no scale
    found, before = quantized(model, bits), weights_of(model)
    assert [*found] == [*before]
    for name, w in before.items():
        if w.ndim < 2 or not w.any():
            assert torch.equal(found[name], w)
            continue
        step = w.abs().max() / (2 ** (bits - 1) - 1)
        steps = found[name] / step
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
        assert ((found[name] - w).abs() <= step / 2 * (1 + 1e-9)).all()
        torch.testing.assert_close(found[name].abs().max(), w.abs().max(), rtol=1e-12, atol=0)
