"""Small problems, base optimizers and methods that the optimizer's tests draw from."""

import copy
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

# name: (torch class, what it is called in reference.py, its options in both, torch's own options)
BASES = {
    "sgd": (torch.optim.SGD, "sgd", {}, {}),
    "sgd wd": (torch.optim.SGD, "sgd", {"weight_decay": 0.01}, {}),
    "momentum": (torch.optim.SGD, "sgd", {"momentum": 0.9}, {}),
    "momentum wd": (torch.optim.SGD, "sgd", {"momentum": 0.9, "weight_decay": 0.01}, {}),
    "nesterov": (torch.optim.SGD, "sgd", {"momentum": 0.9, "nesterov": True}, {}),
    # without weight decay torch's foreach nesterov overwrites the gradients in place
    "nesterov foreach": (
        torch.optim.SGD,
        "sgd",
        {"momentum": 0.9, "nesterov": True},
        {"foreach": True},
    ),
    "nesterov wd": (
        torch.optim.SGD,
        "sgd",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"foreach": True},
    ),
    "adam": (torch.optim.Adam, "adam", {}, {}),
    "adam wd": (torch.optim.Adam, "adam", {"weight_decay": 0.01}, {"foreach": True}),
    "adamw": (torch.optim.AdamW, "adamw", {"weight_decay": 0.1}, {}),
    "rmsprop": (torch.optim.RMSprop, "rmsprop", {"weight_decay": 0.01}, {}),
}

# name: make(base, rho, alpha, k, **options). Every class, scheme and neighborhood.
METHODS = {
    "SAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: SAM(base, rho, **o),
    "ASAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: ASAM(base, rho, **o),
    "Multistep last": lambda base, rho=0.1, alpha=0.5, k=3, **o: MultistepSAM(
        base, Ball(rho), k=k, **o
    ),
    "Multistep mean": lambda base, rho=0.1, alpha=0.5, k=3, **o: MultistepSAM(
        base, AdaptiveBall(rho), k=k, gradient="mean", **o
    ),
    "Lookbehind": lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookbehind(
        base, Ball(rho), k=k, alpha=alpha, **o
    ),
    "Lookbehind-ASAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookbehind(
        base, AdaptiveBall(rho), k=k, alpha=alpha, **o
    ),
    "Lookbehind adaptive": lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookbehind(
        base, Ball(rho), k=k, alpha="adaptive", **o
    ),
    "Lookbehind 2k": lambda base, rho=0.1, alpha=0.5, k=3, **o: Lookbehind(
        base, Ball(rho), k=k, alpha=alpha, reuse_gradients=False, **o
    ),
    "Lookahead": lambda base, rho=0.1, alpha=0.5, k=3, observers=(): Lookahead(
        SAM(base, rho), k=k, alpha=alpha, observers=observers
    ),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On a busy machine two threads mostly wait for each other over problems as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
            loss = self.loss(
                functional_call(self.model, dict(zip(names, weights, strict=True)), (x,)), y
            )
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
    make, _, options, own = BASES[name]
    return make(params, lr=lr, **options, **own)


def copied_state(base):
    """The base optimizer's state by parameter, in order; tensors copied."""
    return {
        p: {n: v.clone() if torch.is_tensor(v) else v for n, v in values.items()}
        for p, values in base.state.items()
    }


def same_state(one, two):
    """Whether two states hold the same, to the last bit."""
    return list(one) == list(two) and all(
        list(one[p]) == list(two[p])
        and all(
            torch.equal(v, two[p][n]) if torch.is_tensor(v) else v == two[p][n]
            for n, v in one[p].items()
        )
        for p in one
    )


def identical(ones, others):
    """Bit for bit, the sign of zero included."""

    def bits(tensor):
        return torch.atleast_1d(tensor.detach()).contiguous().view(torch.uint8)

    return len(ones) == len(others) and all(
        torch.equal(bits(a), bits(b)) for a, b in zip(ones, others, strict=True)
    )


def difference(ones, others):
    """The largest absolute difference."""
    return max((a - b).abs().max().item() for a, b in zip(ones, others, strict=True))


RHO = st.floats(0, 0.5)
ALPHA = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
K = st.integers(1, 6)


def examples(n):
    return settings(max_examples=n, deadline=None, derandomize=True)


def trained(problem, optimizer, steps=2):
    """The weights of a copy of `problem` after some steps of `optimizer(problem)`."""
    problem = copy.deepcopy(problem)
    made = optimizer(problem)
    for _ in range(steps):
        made.step(problem.closure())
    return problem.weights
