"""What the tests of the measures share: networks worked by hand, directions, comparisons."""

import copy

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from lookbehind.measure import filter_normalized, gaussian_direction, unit
from lookbehind.measure.directions import normal
from lookbehind.train.models import resnet8
from lookbehind.weights import moved, weights_of

EXACT = {"rel": 1e-12}


def a_network():
    """Convolutions with BatchNorm, its statistics its own, and minibatches of 4, 4 and 1."""
    torch.manual_seed(0)
    model = resnet8(1, width=2).double()
    model(2 + torch.randn(30, 1, 8, 8, dtype=torch.float64))
    images, labels = torch.randn(9, 1, 8, 8, dtype=torch.float64), torch.randint(10, (9,))
    return model, list(zip(images.split(4), labels.split(4), strict=True))


def complete(found):
    """Whether every point of a line or plane was evaluated."""
    return not np.isnan(found.loss).any()


def away(model, size=0.3):
    weights = weights_of(model)
    return moved(weights, (size, normal(weights, torch.Generator().manual_seed(1))))


def with_weights(model, weights, seen=None):
    """A copy at these weights, the statistics of its BatchNorm made anew on what it has `seen`."""
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **weights})
    if seen is not None:
        update_bn(seen, other)
    return other


def all_of(model):
    """Every bit that a caller could see changed."""
    params = [(p.grad, p.requires_grad) for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    return copy.deepcopy([model.state_dict(), params, modes, torch.get_rng_state()])


def flat(weights):
    return torch.cat([weights[name].flatten() for name in sorted(weights)]).numpy()


def directions(model):
    """One that moves every parameter, and one that leaves biases and BatchNorm's scales alone."""
    first, second = (gaussian_direction(model, seed=seed) for seed in (1, 2))
    return unit(first), filter_normalized(model, second)


ONE_IMAGE = [(torch.zeros(1, 1, dtype=torch.float64), torch.tensor([0]))]


class Squared(nn.Module):
    """Logits (−s, log(1 − exp(−s))) with s = ½ Σ hⱼ wⱼ²: the loss of label 0 is s, a quadratic."""

    def __init__(self, curvature, weight):
        super().__init__()
        self.h = torch.tensor(curvature, dtype=torch.float64)
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x):
        s = (self.h * self.weight**2).sum() / 2
        return torch.stack([-s, torch.log1p(-torch.exp(-s))]).expand(len(x), 2)


def rescaled():
    """One function twice: layers without biases around a ReLU, w₁ and w₂, or 4 w₁ and w₂ / 4."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7, bias=False), nn.ReLU(), nn.Linear(7, 4, bias=False))
    first, second = model.double().parameters()
    other = with_weights(model, {"0.weight": 4 * first, "2.weight": second / 4})
    return model, other, [(torch.randn(20, 6).double(), torch.randint(4, (20,)))]


def a_small_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(11, 4, dtype=torch.float64), torch.randint(3, (11,))
    model(3 * x)  # running statistics of its own
    model[1].bias.requires_grad_(False)
    return model, list(zip(x.split(8), y.split(8), strict=True))
