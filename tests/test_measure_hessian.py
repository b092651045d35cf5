"""Eigenpairs and trace against a dense Hessian, products with it against gradients."""

import math

import numpy as np
import pytest
import torch
from measuring import Squared, a_small_network, one_image
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector as flat
from torch.nn.utils import parametrizations, prune

from lookbehind.measure import Objective, dot, hessian_eigenpairs, hessian_trace, worst_rise
from lookbehind.measure.directions import normal
from lookbehind.optim import Ball
from lookbehind.train import make_model
from lookbehind.weights import moved, weights_of

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


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
    diagonal = hessian_trace(Squared([4.0, 1.0], [0.3, 0.4]), one_image(), draws=2)
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
    "gru": lambda: sequence_of(nn.GRU(C, 5, batch_first=True)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(C, C)),
    "weight norm, by a hook": lambda: torch.nn.utils.weight_norm(nn.Linear(C, C)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(C, C)),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(C, C), "weight", amount=0.5),
    "dropout, off": lambda: nn.Dropout(0.5),
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
