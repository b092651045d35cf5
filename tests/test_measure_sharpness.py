"""How far the loss rises, and the Hessian, against naive oracles; what all measures leave alone."""

import math

import numpy as np
import pytest
import torch
from measuring import ONE_IMAGE, Squared, a_network, a_small_network, all_of, rescaled
from scipy.optimize import brentq
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector as flat
from torch.nn.utils import parametrizations, prune

from lookbehind import AdaptiveBall, Ball
from lookbehind.measure import average_rise, line, plane, quantized, worst_rise, worst_rises
from lookbehind.measure.directions import dot, normal, stream
from lookbehind.measure.objective import Objective
from lookbehind.measure.sharpness import gradient, hessian_eigenpairs, hessian_trace, weight_noise
from lookbehind.train import make_model
from lookbehind.weights import moved, weights_of

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
BALLS = [Ball(0.3), AdaptiveBall(0.3, 0.01)]


@pytest.mark.parametrize("ball", BALLS)
def test_a_rise_is_that_of_the_mean_over_all_images_at_the_worst_point(ball):
    model, batches = a_network()
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    model.eval()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    squares, ways, slope = 0.0, {}, gradient(model, batches)
    for name, p in model.named_parameters():
        torch.testing.assert_close(slope[name], p.grad, rtol=1e-9, atol=1e-12)
        adaptive = isinstance(ball, AdaptiveBall) and "weight" in name
        t = p.detach().abs() + ball.eta if adaptive else torch.ones_like(p)
        squares += float(((t * p.grad) ** 2).sum())
        ways[name] = t**2 * p.grad
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += ball.rho * ways[name] / math.sqrt(squares)
        expected = float(cross_entropy(model(images), labels) - loss)
    assert worst_rise(a_network()[0], batches, ball) == pytest.approx(expected, rel=1e-9)


def highest_of_a_quadratic(h, w, rho):
    """How far ½ Σ h w² rises within ρ: to ε = g / (μ − h), whose length μ > max h sets to ρ."""
    h, g = np.array(h), np.multiply(h, w)
    mu = brentq(lambda mu: np.linalg.norm(g / (mu - h)) - rho, max(h) + 1e-6, max(h) + 1e3)
    e = g / (mu - h)
    return g @ e + h @ e**2 / 2


def test_steps_find_the_highest_point_of_a_quadratic():
    problem = [4.0, 1.0, 0.5], [0.1, 0.4, -0.5]
    model, highest = Squared(*problem), highest_of_a_quadratic(*problem, 0.3)
    assert worst_rise(model, ONE_IMAGE, Ball(0.3)) < 0.97 * highest
    found = worst_rise(model, ONE_IMAGE, Ball(0.3), steps=40)
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
    found = average_rise(model, ONE_IMAGE, sigma, draws=400)
    expected = sigma**2 * (4 + 1) / 2
    assert abs(found.mean - expected) < 3 * found.error
    relative = average_rise(model, ONE_IMAGE, sigma, draws=400, relative=True)
    assert abs(relative.mean - (0.3**2 + 0.4**2) / 2 * expected) < 3 * relative.error
    generator = stream("noise", 0)
    for value in found.values[:3]:
        a, b = (sigma * torch.randn(2, generator=generator, dtype=torch.float64)).tolist()
        rise = 4 * (0.3 * a + a * a / 2) + (0.4 * b + b * b / 2)
        assert value == pytest.approx(rise, rel=1e-9)


MEASURES = [
    gradient,
    lambda *a: worst_rises(*a, BALLS, steps=2),
    lambda *a: average_rise(*a, 0.1, draws=2),
    lambda *a: weight_noise(*a, [0.1], draws=2),
    hessian_eigenpairs,
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


def dense(model, batches):
    """∇²L by differentiating twice in a flat vector."""
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    weights = weights_of(model.eval())

    def loss(at):
        parts = at.split([w.numel() for w in weights.values()])
        named = {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}
        return cross_entropy(functional_call(model, named, (images,)), labels)

    return torch.autograd.functional.hessian(loss, flat(weights.values()))


@pytest.mark.parametrize("count", [4, 48])  # all 48 take the whole matrix
def test_eigenpairs_are_those_of_the_dense_hessian(count):
    model, batches = a_small_network()
    found, matrix = hessian_eigenpairs(model, batches, count), dense(model, batches)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:count].numpy()
    assert len(matrix) == 48
    assert found.values == pytest.approx(expected, rel=1e-8, abs=1e-14)
    vectors = torch.stack([flat(v.values()) for v in found.vectors])
    assert [*found.vectors[0]] == [*weights_of(model)]
    products, scaled = vectors @ matrix, torch.tensor(found.values)[:, None] * vectors
    torch.testing.assert_close(products, scaled, rtol=0, atol=1e-7 * expected[0])
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(count).double(), rtol=0, atol=1e-10)
    assert all(v[v.abs().argmax()] > 0 for v in vectors)


def test_the_layout_in_memory_changes_nothing_and_a_resnet_warns_of_nothing():
    torch.manual_seed(0)
    model = make_model("micro-resnet8", channels=3, size=(8, 8))
    data = [(torch.randn(4, 3, 8, 8), torch.randint(10, (4,)))]
    ours = hessian_trace(model, data, draws=2).values
    theirs = hessian_trace(model.to(memory_format=torch.channels_last), data, draws=2).values
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_trace_within_its_error_and_exact_where_the_hessian_is_diagonal():
    model, batches = a_small_network()
    matrix, generator = dense(model, batches), torch.Generator().manual_seed(0)
    found = hessian_trace(model, batches, draws=40)
    probes = 2 * torch.randint(2, (40, 48), generator=generator).double() - 1
    expected = ((probes @ matrix) * probes).sum(1)
    assert found.values == pytest.approx(expected.numpy(), rel=1e-10)
    assert abs(found.mean - float(matrix.trace())) < 2 * found.error
    assert found.error == pytest.approx(np.std(found.values) / math.sqrt(39))
    diagonal = hessian_trace(Squared([4.0, 1.0], [0.3, 0.4]), ONE_IMAGE, draws=2)
    assert diagonal.values == pytest.approx([5.0, 5.0], rel=1e-12)


T, C = 4, 6  # positions and features of an input


def sequence_of(layer):
    """A recurrent layer, or attention of x to x, that gives its output sequence alone."""
    if isinstance(layer, nn.MultiheadAttention):
        layer.register_forward_pre_hook(lambda _, given: 3 * given)
    layer.register_forward_hook(lambda *of: of[-1][0])
    return layer


LAYERS = {
    "linear": lambda: nn.Linear(C, C),
    "conv2d": lambda: nn.Sequential(nn.Unflatten(1, (1, T)), nn.Conv2d(1, 2, 3), nn.Flatten()),
    "batch norm": lambda: nn.BatchNorm1d(T),
    "batch norm, frozen": lambda: nn.BatchNorm1d(T).requires_grad_(False),
    "layer norm": lambda: nn.LayerNorm(C),
    "group norm": lambda: nn.GroupNorm(2, T),
    "rms norm": lambda: nn.RMSNorm(C),
    "multi-head attention": lambda: sequence_of(nn.MultiheadAttention(C, 2, batch_first=True)),
    "transformer": lambda: nn.TransformerEncoderLayer(C, 2, 8, batch_first=True),  # its is fused
    "gelu": nn.GELU,
    "prelu": nn.PReLU,
    "lstm": lambda: sequence_of(nn.LSTM(C, 5, batch_first=True)),
    "lstm, two ways": lambda: sequence_of(nn.LSTM(C, 3, 2, batch_first=True, bidirectional=True)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(C, C)),
    "weight norm, by a hook": lambda: torch.nn.utils.weight_norm(nn.Linear(C, C)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(C, C)),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(C, C), "weight", amount=0.5),
    "max pool": lambda: nn.MaxPool1d(2),
}


def network(name):
    """The layer between two others, and two minibatches."""
    torch.manual_seed(0)
    layer = LAYERS[name]()
    body = nn.Sequential(nn.Linear(C, C), nn.Tanh(), layer, nn.Flatten()).double()
    x = torch.randn(5, T, C, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            width = body(x).shape[1]  # and statistics of BatchNorm
        for p in layer.parameters():
            p.add_(0.2 * torch.randn_like(p))
    model = nn.Sequential(body, nn.Linear(width, 3).double())
    return model, list(zip(x.split(3), torch.randint(3, (5,)).split(3), strict=True))


def assert_product(objective):
    w, h, by = objective.weights, 1e-5, torch.Generator().manual_seed(1)
    u, other = normal(w, by), normal(w, by)
    ahead, behind = (objective.gradient(moved(w, (s * h, u)))[1] for s in (1, -1))
    found, turned = objective.curvature(u), objective.curvature(other)
    for name in w:
        expected = (ahead[name] - behind[name]) / (2 * h)
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-8)
    assert dot(found, other) == pytest.approx(dot(turned, u), rel=1e-9)  # H is symmetric
    assert any(p.abs().max() > 1e-6 for p in found.values())


@pytest.mark.parametrize("name", LAYERS)
def test_a_product_with_the_hessian_is_a_difference_of_gradients(name):
    model, data = network(name)
    assert_product(Objective(model, data))


@pytest.mark.parametrize("sparse", [False, True])
def test_embeddings_sparse_or_not(sparse):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, C, sparse=sparse), nn.Flatten(), nn.Linear(T * C, 3))
    data = [(torch.randint(50, (5, T)), torch.randint(3, (5,)))]
    assert_product(Objective(model.double(), data))
    assert worst_rise(model, data, Ball(0.1)) > 0
    assert model[0].sparse == sparse


@pytest.mark.parametrize("name", ["weight norm", "weight norm, by a hook", "pruned", "lstm"])
def test_weights_that_a_hook_makes_move_the_loss_and_stay(name):
    model, data = network(name)
    model(data[0][0])  # leaves a tensor with a history in the module
    before = {n: p.clone() for n, p in model.state_dict().items()}
    objective = Objective(model, data)
    direction = normal(objective.weights, torch.Generator().manual_seed(3))
    there = moved(objective.weights, (0.1, direction))
    other = network(name)[0]
    other.load_state_dict({**model.state_dict(), **there})
    other.eval().requires_grad_(False)
    total = sum(nn.functional.cross_entropy(other(x), y, reduction="sum") for x, y in data)
    assert objective.loss(there) == pytest.approx(float(total) / 5, rel=1e-12)
    assert objective.loss(there) != pytest.approx(objective.loss(), rel=1e-3)
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def test_weights_that_are_not_finite_or_complex_are_named():
    model, data = network("linear")
    for measure, value in ((hessian_eigenpairs, float("nan")), (hessian_trace, float("inf"))):
        with torch.no_grad():
            model[1].bias[0] = value
        with pytest.raises(ValueError, match=r"finite weights, those of '1\.bias' are not"):
            measure(model, data)
    with pytest.raises(ValueError, match=r"real parameters, 'weight' is torch\.complex64"):
        Objective(nn.Linear(2, 2, dtype=torch.complex64), [])
