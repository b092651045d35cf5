"""A member is what it would be alone, and fails alone."""

import copy
from math import inf, nan

import pytest
import torch
from problems import METHODS, closure_of, difference, every_method, identical, make_base
from torch import nn

from lookbehind import SAM, AdaptiveBall, Ball, Lookbehind

RHOS = torch.tensor([0.0, 0.05, 0.2, 0.5], dtype=torch.float64)
ALPHAS = torch.tensor([0.5, 0.2, 1.0, 0.0], dtype=torch.float64)


def stacked(method, base):
    """Parameters of 4 networks 4–5–3, the loss of each, (4,), or () of one, and an optimizer."""
    torch.manual_seed(0)
    shapes = [(4, 5), (1, 5), (5, 3), (3,)]
    params = [nn.Parameter(torch.randn(4, *shape, dtype=torch.float64)) for shape in shapes]
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def loss(w1, b1, w2, b2):
        out = torch.tanh(x @ w1 + b1) @ w2 + b2.unsqueeze(-2)
        return (out - y).square().mean((-2, -1))

    return params, loss, METHODS[method](make_base(base, params), rho=RHOS, alpha=ALPHAS)


@every_method("nesterov wd", "adamw")
def test_a_member_is_what_it_would_be_alone(method, base):
    (together, loss, optimizer), path = stacked(method, base), []
    for _ in range(3):
        losses = optimizer.step(closure_of(together, loss))
        assert losses.shape == (4,)
        path.append(([p.detach().clone() for p in together], losses))
    assert not optimizer.rolled_back.any()
    for e in range(4):
        alone = [nn.Parameter(w[e].detach()) for w in stacked(method, base)[0]]
        rho, alpha = RHOS[e].item(), ALPHAS[e].item()
        single = METHODS[method](make_base(base, alone), rho=rho, alpha=alpha)
        for weights, losses in path:
            assert (single.step(closure_of(alone, loss)) - losses[e]).abs() <= 1e-12
            assert difference([w[e] for w in weights], alone) <= 1e-12


@every_method("momentum", "adamw")
def test_a_member_that_diverges_is_put_back_and_the_others_go_on(method, base):
    """Member 2's loss (and gradient) leaves the finite at its second evaluation in step 1 or 3."""
    for failing, bad in ((1, nan), (3, inf)):
        together, loss, optimizer = stacked(method, base)
        untouched, _, never_fails = stacked(method, base)

        def diverging(*params):
            return loss(*params) * torch.tensor([1, 1, next(factors, 1), 1])  # noqa: B023

        for t in range(1, 5):
            factors = iter((1, bad if t == failing else 1))
            before = [p.detach().clone() for p in together]
            state = copy.deepcopy([*optimizer.base.state.values()]) or [{} for _ in before]
            optimizer.step(closure_of(together, diverging))
            never_fails.step(closure_of(untouched, loss))
            assert optimizer.rolled_back.tolist() == [False, False, t == failing, False]
            if t == failing:
                assert identical([p[2] for p in together], [p[2] for p in before])
                for kept, then in zip(optimizer.base.state.values(), state, strict=True):
                    for name, now in kept.items():
                        if torch.is_tensor(now) and now.ndim:
                            assert torch.equal(now[2], then.get(name, torch.zeros_like(now))[2])
        assert identical(*([p[[0, 1, 3]] for p in params] for params in (together, untouched)))
        assert all(p.isfinite().all() for p in together)


def test_one_member_alone_is_still_a_member():
    w = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = Lookbehind(torch.optim.SGD([w], lr=0.1), Ball(torch.tensor([0.1])), k=2)
    optimizer.step(closure_of([w], lambda w: w.square().sum(1) * nan))
    assert optimizer.rolled_back.tolist() == [True] and w.tolist() == [[1.0, 2.0]]


def test_one_loss_for_all_members_is_allowed_and_another_shape_is_not():
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1), torch.full((3,), 0.1))

    def closure(*shape):
        return closure_of([w], lambda w: w.square().sum().expand(shape))

    optimizer.step(closure())
    assert optimizer.rolled_back.tolist() == [False] * 3
    with pytest.raises(ValueError, match=r"one per member; got shape \(2,\)"):
        optimizer.step(closure(2))
    optimizer.ball = Ball(0.1)
    optimizer.step(closure(2))
    assert optimizer.rolled_back is None


@pytest.mark.parametrize("ball", [Ball, AdaptiveBall])
def test_a_member_in_bfloat16_is_what_it_would_be_alone(ball):
    torch.manual_seed(0)
    value, rho = torch.randn(3, 4000, dtype=torch.bfloat16), torch.tensor([0.1, 0.5, 1.0])

    def stepped(value, rho):
        w = nn.Parameter(value.clone())
        optimizer = Lookbehind(torch.optim.SGD([w], lr=0.1), ball(rho), k=2)
        optimizer.step(closure_of([w], lambda w: w.float().square().sum(-1)))
        return w

    alone = [stepped(v, r.item()) for v, r in zip(value, rho, strict=True)]
    assert difference(stepped(value, rho), alone) <= 0.02
