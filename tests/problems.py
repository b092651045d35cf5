"""Small problems, base optimizers and methods that the optimizer's tests draw from."""

import copy
import io
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise, product

import pytest
import torch
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


def multistep(base, rho=0.1, alpha=0.5, k=3, ball=Ball, **options):
    return MultistepSAM(base, ball(rho), k=k, **options)


def lookbehind(base, rho=0.1, alpha=0.5, k=3, ball=Ball, always=None, **options):
    return Lookbehind(base, ball(rho), k=k, alpha=always or alpha, **options)


# name: make(base, rho, alpha, k, **options). Every class, scheme and neighborhood.
METHODS = {
    "SAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: SAM(base, rho, **o),
    "ASAM": lambda base, rho=0.1, alpha=0.5, k=3, **o: ASAM(base, rho, **o),
    "Multistep last": multistep,
    "Multistep mean": partial(multistep, ball=AdaptiveBall, gradient="mean"),
    "Lookbehind": lookbehind,
    "Lookbehind-ASAM": partial(lookbehind, ball=AdaptiveBall),
    "Lookbehind adaptive": partial(lookbehind, ball=AdaptiveBall, always="adaptive"),
    "Lookbehind 2k": partial(lookbehind, reuse_gradients=False),
    "Lookahead": lambda base, rho=0.1, k=3, **o: Lookahead(SAM(base, rho), k=k, **o),
}


def every_method(*bases):
    """Each of `METHODS` around each of these bases."""
    return pytest.mark.parametrize(("method", "base"), list(product(METHODS, bases)))


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
        return partial(self.evaluate, batch)

    def evaluate(self, batch):
        x, y = self.batches[batch]
        self.calls += 1
        self.model.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()
        return loss

    def gradient(self, batch=0):
        x, y = self.batches[batch]

        def at(weights):
            weights = [w.detach().requires_grad_() for w in weights]
            named = dict(zip(dict(self.model.named_parameters()), weights, strict=True))
            loss = self.loss(functional_call(self.model, named, (x,)), y)
            return loss.detach(), torch.autograd.grad(loss, weights)

        return at


def mlp(widths=(4, 5, 3), activation="tanh", seed=0, batches=1, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = [(nn.Linear(n, m), ACTIVATIONS[activation]()) for n, m in pairwise(widths)]
    model = nn.Sequential(*chain(*layers))[:-1].to(dtype)
    x, y = torch.randn(batches, 6, widths[0], dtype=dtype), torch.randint(widths[-1], (batches, 6))
    return Problem(model, list(zip(x, y, strict=True)))


def closure_of(params, loss):
    """Of a loss of the parameters: one, or one a member."""

    def closure():
        losses = loss(*params)
        grads = torch.autograd.grad(losses.sum(), params)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        return losses

    return closure


def make_base(name, params, lr=0.05):
    make, options, own = BASES[name]
    return make(params, lr=lr, **options, **own)


def around_mlp(method, base, dtype=torch.float64, **options):
    """A problem, and the method around a base optimizer on it."""
    problem = mlp(dtype=dtype)
    return problem, METHODS[method](make_base(base, problem.params), **options)


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
    found, expected = ([t.detach().numpy().tobytes() for t in some] for some in (ones, others))
    return found == expected


def difference(ones, others):
    """The largest absolute difference."""
    return max((a - b).abs().max().item() for a, b in zip(ones, others, strict=True))
