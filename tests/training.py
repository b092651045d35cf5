"""What the tests of training share: a small problem, the family around SGD, states compared."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind import ASAM, SAM, Ball, Lookahead, Lookbehind, MultistepSAM

generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=generator, dtype=torch.float64)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
MINIBATCHES = list(zip(X.split(10), Y.split(10), strict=True))
SPLITS = {"train": [(X, Y)]}

FAMILY = {
    "SGD": (lambda base: base, 1),
    "SAM": (lambda base: SAM(base, 0.05), 2),
    "ASAM": (lambda base: ASAM(base, 0.5), 2),
    "Multistep": (lambda base: MultistepSAM(base, Ball(0.05), k=3), 4),
    "Lookbehind": (lambda base: Lookbehind(base, Ball(0.05), k=3), 4),
    "Lookahead": (lambda base: Lookahead(SAM(base, 0.05), k=3), 6),
}


def model_and(name, lr=0.1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **options)
    return model, FAMILY[name][0](base)


class Spoiled:
    """Cross-entropy that counts its calls, and is multiplied by `factor` after the first `good`."""

    def __init__(self, good=0, factor=math.inf):
        self.good, self.factor, self.calls = good, factor, 0

    def __call__(self, logits, labels):
        self.calls += 1
        return cross_entropy(logits, labels) * (self.factor if self.calls > self.good else 1.0)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def same(one, other):
    """Whether two states, of dictionaries and lists, are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def stop_after(steps):
    """Asks for a stop after so many steps."""
    taken = iter([False] * steps)
    return lambda: next(taken, True)
