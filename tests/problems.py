"""Small problems, base optimizers and methods that the optimizer's tests draw from."""

import copy
import io
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lookbehind import ASAM, SAM, AdaptiveBall, Ball, Lookahead, Lookbehind, MultistepSAM

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "softplus": nn.Softplus}

SGD, FOREACH = torch.optim.SGD, {"foreach": True}
NESTEROV, DECAY = {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.01}

# name: (class, options, which of torch's implementations)
BASES = {
    "sgd": (SGD, {}, {}),
    "sgd wd": (SGD, DECAY, {}),
    "momentum": (SGD, {"momentum": 0.9}, {}),
    "momentum wd": (SGD, {"momentum": 0.9, **DECAY}, {}),
    "nesterov": (SGD, NESTEROV, {}),
    # without weight decay torch's foreach nesterov overwrites the gradients in place
    "nesterov foreach": (SGD, NESTEROV, FOREACH),
    "nesterov wd": (SGD, {**NESTEROV, **DECAY}, FOREACH),
    "adam": (torch.optim.Adam, {}, {}),
    "adam wd": (torch.optim.Adam, DECAY, FOREACH),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}, {}),
    "rmsprop": (torch.optim.RMSprop, DECAY, {}),
}


def multistep(ball, gradient):
    return lambda base, rho=0.1, alpha=0.5, k=3, **o: MultistepSAM(
        base, ball(rho), k=k, gradient=gradient, **o
    )


def lookbehind(ball, **own):
    return lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookbehind(
        base, ball(rho), k=k, **{"alpha": alpha, **own, **o}
    )


# name: make(base, rho, alpha, k, **options). Every class, scheme and neighborhood.
METHODS = {
    "SAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: SAM(base, rho, **o),
    "ASAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: ASAM(base, rho, **o),
    "Multistep last": multistep(Ball, "last"),
    "Multistep mean": multistep(AdaptiveBall, "mean"),
    "Lookbehind": lookbehind(Ball),
    "Lookbehind-ASAM": lookbehind(AdaptiveBall),
    "Lookbehind adaptive": lookbehind(AdaptiveBall, alpha="adaptive"),
    "Lookbehind 2k": lookbehind(Ball, reuse_gradients=False),
    "Lookahead": lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookahead(
        SAM(base, rho), k=k, alpha=alpha, **o
    ),
}
# How many gradients a step of each takes, with k = 3.
GRADIENTS = {**dict.fromkeys(METHODS, 4), "SAM": 2, "ASAM": 2, "Lookbehind 2k": 6, "Lookahead": 6}


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    """Of a module, not of a test: what a module's own fixtures make is in double precision too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Problem:
    """A model with its minibatches: a closure for the package, a gradient for the oracle."""

    def __init__(self, model, batches, loss=cross_entropy):
        self.model, self.batches, self.loss = model, batches, loss
        self.calls = 0

    @property
    def params(self):
        return list(self.model.parameters())

    @property
    def weights(self):
        return [p.detach().clone() for p in self.params]

    def closure(self, batch=0):
        def evaluate():
            x, y = self.batches[batch]
            self.calls += 1
            self.model.zero_grad()
            loss = self.loss(self.model(x), y)
            loss.backward()
            return loss

        return evaluate

    def gradient(self, batch=0):
        x, y = self.batches[batch]
        names = [name for name, _ in self.model.named_parameters()]

        def at(weights):
            weights = [w.detach().requires_grad_() for w in weights]
            named = dict(zip(names, weights, strict=True))
            loss = self.loss(functional_call(self.model, named, (x,)), y)
            return loss.detach(), torch.autograd.grad(loss, weights)

        return at


def mlp(widths=(4, 5, 3), activation="tanh", seed=0, batches=1, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), ACTIVATIONS[activation]()]
    model = nn.Sequential(*layers[:-1]).to(dtype)
    data = [
        (torch.randn(6, widths[0], dtype=dtype), torch.randint(widths[-1], (6,)))
        for _ in range(batches)
    ]
    return Problem(model, data)


@st.composite
def mlps(draw, batches=1, dtype=torch.float64):
    depth = draw(st.integers(0, 2))
    hidden = draw(st.lists(st.integers(1, 6), min_size=depth, max_size=depth))
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    return mlp((4, *hidden, 3), activation, draw(st.integers(0, 99)), batches, dtype)


def make_base(name, params, lr=0.05):
    make, options, own = BASES[name]
    return make(params, lr=lr, **options, **own)


@contextmanager
def unchanged(problem, optimizer):
    """What is done inside leaves the weights, where they lie and the base's state as they were."""

    def now():
        storage = [p.data_ptr() for p in problem.params]
        return problem.weights, storage, copy.deepcopy(optimizer.base.state_dict()["state"])

    before = now()
    yield
    torch.testing.assert_close(now(), before, rtol=0, atol=0)


def through_disk(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def identical(ones, others):
    """Bit for bit, the sign of zero included."""

    def bits(tensors):
        return [torch.atleast_1d(t.detach()).contiguous().view(torch.uint8) for t in tensors]

    return all(map(torch.equal, bits(ones), bits(others))) and len(ones) == len(others)


def difference(ones, others):
    """The largest absolute difference."""
    return max((a - b).abs().max().item() for a, b in zip(ones, others, strict=True))


RHO = st.floats(0, 0.5)
ALPHA = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
K = st.integers(1, 6)


def examples(n):
    return settings(max_examples=n, deadline=None, derandomize=True)


def trained(problem, base, make):
    """The weights of a copy of `problem` after two steps of what `make` makes around the base."""
    problem = copy.deepcopy(problem)
    optimizer = make(make_base(base, problem.params))
    for _ in range(2):
        optimizer.step(problem.closure())
    return problem.weights
