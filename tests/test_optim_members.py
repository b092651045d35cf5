"""A member is what it would be alone, and fails alone."""

import copy

import pytest
import torch
from problems import METHODS, difference, identical, make_base, member_closure
from torch import nn

from lookbehind import SAM, AdaptiveBall, Ball, Lookbehind

RHOS = torch.tensor([0.0, 0.05, 0.2, 0.5], dtype=torch.float64)
ALPHAS = torch.tensor([0.5, 0.2, 1.0, 0.0], dtype=torch.float64)


def stacked():
    """Parameters of 4 networks 4–5–3 and the loss of each: shape (4,), or () for one."""
    torch.manual_seed(0)
    shapes = [(4, 5), (1, 5), (5, 3), (3,)]
    params = [nn.Parameter(torch.randn(4, *shape, dtype=torch.float64)) for shape in shapes]
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def loss(w1, b1, w2, b2):
        out = torch.tanh(x @ w1 + b1) @ w2 + b2.unsqueeze(-2)
        return (out - y).square().mean((-2, -1))

    return params, loss


@pytest.mark.parametrize("base", ["nesterov wd", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_a_member_is_what_it_would_be_alone(method, base):
    together, loss = stacked()
    make, path = METHODS[method], []
    optimizer = make(make_base(base, together), rho=RHOS, alpha=ALPHAS)
    for _ in range(3):
        losses = optimizer.step(member_closure(together, loss))
        assert losses.shape == (4,)
        path.append(([p.detach().clone() for p in together], losses))
    assert not optimizer.rolled_back.any()
    for e in range(4):
        alone = [nn.Parameter(w[e].detach()) for w in stacked()[0]]
        single = make(make_base(base, alone), rho=RHOS[e].item(), alpha=ALPHAS[e].item())
        for weights, losses in path:
            assert (single.step(member_closure(alone, loss)) - losses[e]).abs() <= 1e-12
            assert difference([w[e] for w in weights], alone) <= 1e-12


@pytest.mark.parametrize("base", ["momentum", "adamw"])
@pytest.mark.parametrize("method", METHODS)
def test_a_member_that_diverges_is_put_back_and_the_others_go_on(method, base):
    """Member 2's loss (and gradient) leaves the finite at its second evaluation in step 1 or 3."""
    for failing, bad in ((1, float("nan")), (3, float("inf"))):
        (together, loss), (untouched, _) = stacked(), stacked()
        optimizer, never_fails = (
            METHODS[method](make_base(base, params), rho=RHOS, alpha=ALPHAS)
            for params in (together, untouched)
        )

        def diverging(*params):
            factor = torch.ones(4, dtype=torch.float64)
            factor[2] = next(factors, 1.0)  # noqa: B023
            return loss(*params) * factor  # noqa: B023

        for t in range(1, 5):
            factors = iter((1.0, bad if t == failing else 1.0))
            before = [p.detach().clone() for p in together]
            state = copy.deepcopy([*optimizer.base.state.values()]) or [{} for _ in before]
            optimizer.step(member_closure(together, diverging))
            never_fails.step(member_closure(untouched, loss))
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
    optimizer.step(member_closure([w], lambda w: w.square().sum(1) * float("nan")))
    assert optimizer.rolled_back.tolist() == [True] and w.tolist() == [[1.0, 2.0]]


def test_one_loss_for_all_members_is_allowed_and_another_shape_is_not():
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1), torch.full((3,), 0.1))

    def closure(shape):
        def evaluate():
            (w.grad,) = torch.autograd.grad(w.square().sum(), w)
            return torch.ones(shape)

        return evaluate

    optimizer.step(closure(()))
    assert optimizer.rolled_back.tolist() == [False] * 3
    with pytest.raises(ValueError, match=r"one per member; got shape \(2,\)"):
        optimizer.step(closure((2,)))
    optimizer.ball = Ball(0.1)
    optimizer.step(closure((2,)))
    assert optimizer.rolled_back is None


@pytest.mark.parametrize("ball", [Ball, AdaptiveBall])
def test_a_member_in_bfloat16_is_what_it_would_be_alone(ball):
    torch.manual_seed(0)
    value, rho = torch.randn(3, 4000, dtype=torch.bfloat16), torch.tensor([0.1, 0.5, 1.0])

    def stepped(value, rho):
        w = nn.Parameter(value.clone())
        optimizer = Lookbehind(torch.optim.SGD([w], lr=0.1), ball(rho), k=2)
        optimizer.step(member_closure([w], lambda w: w.float().square().sum(-1)))
        return w

    alone = [stepped(v, r.item()) for v, r in zip(value, rho, strict=True)]
    assert difference(stepped(value, rho), alone) <= 0.02
