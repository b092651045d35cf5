"""Eigenpairs and trace against a dense Hessian."""

import math

import numpy as np
import pytest
import torch
from measuring import Squared, a_small_network, one_image
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lookbehind.measure import hessian_eigenpairs, hessian_trace
from lookbehind.train import make_model
from lookbehind.weights import weights_of


def flat(direction):
    return torch.cat([d.flatten() for d in direction.values()])


def dense(model, batches):
    """∇²L by differentiating twice in a flat vector."""
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    weights = weights_of(model)
    model.eval()

    def loss(at):
        parts = at.split([w.numel() for w in weights.values()])
        named = {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}
        return cross_entropy(functional_call(model, named, (images,)), labels)

    return torch.autograd.functional.hessian(loss, flat(weights))


@pytest.mark.parametrize("count", [4, 48])  # all 48 take the whole matrix
def test_eigenpairs_are_those_of_the_dense_hessian(count):
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


def test_the_layout_in_memory_changes_nothing_and_a_resnet_warns_of_nothing():
    torch.manual_seed(0)
    model = make_model("micro-resnet8", channels=3, size=(8, 8))
    data = [(torch.randn(4, 3, 8, 8), torch.randint(10, (4,)))]
    ours = hessian_trace(model, data, draws=2).values
    theirs = hessian_trace(model.to(memory_format=torch.channels_last), data, draws=2).values
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def signs(draws, n):
    """The vectors of ±1 that the seed 0 stands for, (draws, n)."""
    generator = torch.Generator().manual_seed(0)
    bits = [torch.randint(2, (n,), generator=generator) for _ in range(draws)]
    return 2.0 * torch.stack(bits).double() - 1


def test_the_trace_within_its_error_and_exact_where_the_hessian_is_diagonal():
    model, batches = a_small_network()
    matrix = dense(model, batches)
    found = hessian_trace(model, batches, draws=40)
    probes = signs(40, 48)
    expected = ((probes @ matrix) * probes).sum(1)
    assert found.values == pytest.approx(expected.numpy(), rel=1e-10)
    assert abs(found.mean - float(matrix.trace())) < 2 * found.error
    assert found.error == pytest.approx(np.std(found.values) / math.sqrt(39))
    diagonal = hessian_trace(Squared([4.0, 1.0], [0.3, 0.4]), one_image(), draws=2)
    assert diagonal.values == pytest.approx([5.0, 5.0], rel=1e-12)
