"""Toy losses and their trajectories."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.optim import SGD

from lookbehind import ASAM, SAM, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.optim import METHODS, make_method
from lookbehind.toy import LOSSES, ToyLoss, descend, hessian_eigenvalues
from lookbehind.toy.expression import FUNCTIONS, LONGEST

WRITTEN_OUT = {
    "valley": lambda x, y: 0.5 * (x * y - 1) ** 2,
    "ring": lambda x, y: 0.5 * (5 - 4 * x / torch.hypot(x, y)) * (torch.hypot(x, y) - 1) ** 2,
    "two basins": lambda x, y: -0.2 * torch.logaddexp(
        -5 * 8 * ((x + 1) ** 2 + y**2), -5 * 0.5 * ((x - 1) ** 2 + y**2)
    ),
    "quadratic": lambda x, y: 0.5 * (x**2 + 25 * y**2),
    "noisy quadratic": lambda x, y: 0.5 * (x**2 + 8 * y**2),
    "Rosenbrock": lambda x, y: ((1 - x) ** 2 + 20 * (y - x**2) ** 2) / 20,
    "Himmelblau": lambda x, y: ((x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2) / 100,
}  # fmt: skip
ALL = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def gradient(loss, points):
    w = torch.tensor(np.asarray(points), requires_grad=True)
    return torch.autograd.grad(loss(w).sum(), w)[0].numpy()


@ALL
def test_minima_are_minima_and_lie_in_the_window(loss):
    assert_allclose(gradient(loss, loss.minima), 0, atol=1e-4)
    assert (hessian_eigenvalues(loss, loss.minima) >= -1e-9).all()
    lowest = min(loss(torch.tensor(m)).item() for m in loss.minima)
    x0, x1, y0, y1 = loss.window
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in (loss.start, *loss.minima))
    assert loss.lesson.endswith(".") and loss.latex
    x, y = np.meshgrid(np.linspace(x0, x1, 401), np.linspace(y0, y1, 401))
    assert loss(torch.from_numpy(np.stack([x, y], -1))).min() >= lowest - 1e-4


@ALL
def test_the_expression_is_the_formula_with_its_derivatives(loss):
    points = np.vstack([loss.start, np.random.default_rng(0).normal(size=(50, 2))])
    w = torch.from_numpy(points)

    def formula(w):
        return WRITTEN_OUT[loss.name](*w.unbind(-1))

    torch.testing.assert_close(loss(w), formula(w), rtol=1e-12, atol=1e-13)
    assert_allclose(loss.gradient(w), gradient(formula, points), rtol=1e-9, atol=1e-9)
    H = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(formula)))(w)
    entries = torch.stack([H[:, 0, 0], H[:, 0, 1], H[:, 1, 1]], -1)
    torch.testing.assert_close(loss.hessian(w), entries, rtol=1e-9, atol=1e-9)
    for one in (loss, lambda w: loss(w)):  # a function, too, that has no formula
        found = hessian_eigenvalues(one, points)
        assert_allclose(found, torch.linalg.eigvalsh(H), rtol=1e-8, atol=1e-8)


def test_the_two_basins_and_the_ring_are_defined_where_the_naive_form_is_not():
    far = torch.tensor([(40.0, 3.0), (-40.0, 0.0), (0.0, 1e4)]).double()
    two, ring = LOSSES["two basins"], LOSSES["ring"]
    x, y = far.unbind(-1)
    expected = torch.minimum(8 * ((x + 1) ** 2 + y**2), 0.5 * ((x - 1) ** 2 + y**2))
    torch.testing.assert_close(two(far), expected)
    for loss, points in ((two, far), (ring, torch.zeros(1, 2).double())):
        for values in (loss(points), loss.gradient(points), loss.hessian(points)):
            assert values.isfinite().all()


BALL = Ball(0.1)
RUNS = {  # name: (what is made of SGD, how many ascents, the gradients by which it descends, α)
    "SGD": (lambda base: base, 0, [0], np.nan),
    "SAM": (partial(SAM, rho=0.1), 1, [1], np.nan),
    "ASAM": (partial(ASAM, rho=0.1), 1, [1], np.nan),
    "Multistep": (partial(MultistepSAM, ball=BALL, k=3), 3, [3], np.nan),
    "Lookbehind": (partial(Lookbehind, ball=BALL, k=3, alpha=0.3), 3, [1, 2, 3], 0.3),
    "adaptive": (partial(Lookbehind, ball=BALL, k=3, alpha="adaptive"), 3, [1, 2, 3], None),
    "Lookahead-SAM": (lambda base: Lookahead(SAM(base, 0.1), k=3), 3, [1, 3, 5], 0.5),
    "Lookahead": (partial(Lookahead, k=3), 0, [0, 1, 2], 0.5),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_point_is_recorded_and_obeys_the_algorithm(name):
    loss, (make, ascents, used, alpha) = LOSSES["ring"], RUNS[name]
    plain = loss.__call__  # a function as any other, without a gradient of its own
    run = descend(plain, loss.start, lambda w: make(SGD(w, lr=0.05)), steps=6)
    assert (run.slow[0] == loss.start).all() and not run.diverged
    assert_allclose(run.losses, loss(torch.from_numpy(run.slow)))
    before = run.slow[:-1]
    climb, walk = (np.concatenate([before[:, None], p], 1) for p in (run.ascent, run.fast))
    if name == "Lookahead-SAM":  # climbs from where its last inner step ended
        climb = np.stack([walk[:, :-1], run.ascent], 2).reshape(6, 6, 2)
    assert run.ascent.shape == (6, ascents, 2) and run.fast.shape == (6, len(used), 2)
    if name != "Lookahead":  # an inner plain SGD has nobody to observe its gradients
        assert_allclose(run.gradients, gradient(loss, climb), atol=1e-13)
        assert_allclose(np.diff(walk, axis=1), -0.05 * run.gradients[:, used], atol=1e-12)
    if name in ("SAM", "Multistep", "Lookbehind", "adaptive"):
        g = run.gradients[:, :-1]
        epsilon = 0.1 * g / np.linalg.norm(g, axis=-1, keepdims=True)
        assert_allclose(np.diff(climb, axis=1), epsilon, atol=1e-12)
    first, total = run.fast[:, 0] - before, run.fast[:, -1] - before
    if name == "adaptive":
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(total, axis=-1)
        alpha = (1 + (first * total).sum(-1) / norms) / 2
    assert_allclose(run.alpha, np.broadcast_to(alpha, 6), atol=1e-12)
    moved = before + np.nan_to_num(run.alpha, nan=1)[:, None] * total
    assert_allclose(run.slow[1:], moved, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_members_equal_their_own_runs(method):
    loss, base = LOSSES["noisy quadratic"], partial(SGD, lr=0.05, momentum=0.6)
    rho, alpha = torch.tensor([0.0, 0.05, 0.2]).double(), torch.tensor([0.1, 0.5, 0.9]).double()
    starts = np.array([(2.0, 1.0), (-1.0, 0.5), (0.3, -0.8)])

    def make(rho, alpha):
        return lambda w: make_method(method, base(w), rho=rho, k=3, alpha=alpha)

    together = descend(loss, starts, make(rho, alpha), steps=12, seed=[4, 5, 6])
    for e in range(3):
        alone = descend(loss, starts[e], make(rho[e].item(), alpha[e].item()), 12, seed=4 + e)
        for name in ("slow", "ascent", "fast", "gradients", "losses", "alpha"):
            member = getattr(together, name).take(e, -1 if name in ("losses", "alpha") else -2)
            assert_allclose(member, getattr(alone, name), atol=1e-12, err_msg=name)


def test_noise_is_seeded_and_shared_by_the_inner_steps():
    loss, (make, *_) = LOSSES["noisy quadratic"], RUNS["Lookbehind"]
    run = partial(descend, loss, loss.start, lambda w: make(SGD(w, lr=0.05)), steps=50)
    a, b, c = (run(seed=seed) for seed in (1, 1, 2))
    assert (a.slow == b.slow).all() and (a.slow[1:] != c.slow[1:]).any()
    noise = a.gradients - gradient(loss, np.concatenate([a.slow[:-1, None], a.ascent], 1))
    assert_allclose(noise, np.repeat(noise[:, :1], 4, 1), atol=1e-12)
    assert 0.7 < noise[:, 0].std() < 1.3


def test_a_diverging_member_stops_alone():
    loss = LOSSES["valley"]

    def run(start, rho):
        return descend(loss, start, lambda w: SAM(SGD(w, lr=0.1), rho), steps=30)

    together = run([loss.start, (30.0, 30.0)], torch.tensor([0.05, 0.4]).double())
    assert together.diverged.tolist() == [False, True]
    assert_allclose(together.slow[:, 0], run(loss.start, 0.05).slow, atol=1e-12)
    assert np.isfinite(together.slow).all()
    with pytest.raises(FloatingPointError, match="not finite at evaluation"):
        run((30.0, 30.0), 0.4)


def own(expression):
    return ToyLoss("own", expression, (1.0, 1.0), (), (-1.0, 2.0, -1.0, 2.0), "")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("x**2 - 3*y", -5.0), ("-x**-2 + +y", 2.75), ("abs(x - y) + sqrt(2)*x", 1 + 2 * 2**0.5),
        ("exp(-x) * sin(pi*y) + log(e)", np.exp(-2) * np.sin(3 * np.pi) + 1),
        ("tanh(x)/cosh(y) - atan(x)*tan(1.5) + sinh(0.1)*cos(y)", None),
        ("logaddexp(x, 2*y) * r", np.logaddexp(2, 6) * 13**0.5), ("7", 7.0), (" 1e-3 * x ", 2e-3),
        ("abs(x)**2 + logaddexp(x, y)**3", 4 + np.logaddexp(2, 3) ** 3), ("abs(x)*y", 6.0),
        ("sqrt(2)*x", 2 * 2**0.5),
    ],
)  # fmt: skip
def test_an_expression_of_ones_own(expression, value):
    loss, w = own(expression), torch.tensor([2.0, 3.0]).double()
    if value is not None:
        assert loss(w).item() == pytest.approx(value)
    if "x" in expression:
        slope = torch.autograd.functional.jacobian(loss, w)
        torch.testing.assert_close(loss.gradient(w), slope)
        bend = torch.autograd.functional.hessian(loss, w)
        torch.testing.assert_close(loss.hessian(w), bend[[0, 0, 1], [0, 1, 1]])
    many = w.expand(3, 4, 2)
    for each in (loss, loss.gradient, loss.hessian):
        torch.testing.assert_close(each(many), each(w).expand(3, 4, *each(w).shape))
    assert loss.latex and loss.javascript


@pytest.mark.parametrize(
    ("expression", "place", "problem"),
    [
        ("x^2", 3, "a power is written"), ("x + z", 5, "'z' is none"), ("2x", 2, "can't be read"),
        ("x.real", 1, "Attribute"), ("__import__('os')", 1, "is none of the functions"),
        ("(lambda: 1)()", 1, "Call"), ("x**y", 4, "exponent"), ("x**99", 4, "exponent"),
        ("9**9**9", 4, "exponent"), ("sin(x, y)", 1, "given 2 values"), ("sin(x=1)", 1, "Call"),
        ("1e999", 1, "no real number"), ("2j*x", 1, "no real number"), ("True", 1, "real number"),
        ("'x'", 1, "no real number"), ("x if y else 1", 1, "IfExp"), ("x < 1", 1, "Compare"),
        ("[x]", 1, "List"), ("x % 2", 1, "BinOp"), ("x; y", 2, "can't be read"), ("", 1, ""),
        ("sin(" * 7 + "x" + ")" * 7, 25, "inside each other"),
        ("(" * 99 + "x" + ")" * 98, 1, "can't be read"), ("x\0", 1, "can't be read"),
        ("x" + " + x" * LONGEST, 1, ""), (None, 1, ""), (3.0, 1, ""),
    ],
)  # fmt: skip
def test_a_wrong_expression_is_refused_where_it_is_wrong(expression, place, problem):
    with pytest.raises(ValueError, match=r"^expression must be ") as caught:
        own(expression)
    said = str(caught.value)
    assert problem in said
    if problem:
        assert all(name in said for name in FUNCTIONS)
        assert f"at character {place} " in said or problem == "can't be read"


@pytest.mark.parametrize(
    "expression", ["sqrt(-1)*x", "(((9**20)**20)**20)**20 * x", "x/0", "(-2)**0.5", "0**-1 + y"]
)
def test_an_expression_that_is_no_real_number_is_refused(expression):
    with pytest.raises(ValueError, match="expression must"):
        own(expression)(torch.zeros(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": (1, 2, 3)}, "start must be finite, of shape"),
        ({"start": (np.nan, 0)}, "start must be finite, of shape"),
        ({"steps": 0}, "steps must be .*≥ 1, got 0"),
        ({"steps": 2.5}, "steps must be an int ≥ 1, got 2.5"),
        ({"loss": lambda w: w}, r"loss must map shape \(…, 2\) to \(…\)"),
        ({"loss": lambda w: 1.0}, r"loss must map shape \(…, 2\) to \(…\)"),
        ({"start": [(1, 2), (3, 4)]}, r"rho must be a tensor of shape \(2,\)"),
        ({"start": [(1, 2), (3, 4)], "seed": [1, 2, 3]}, "one int per member"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    loss = LOSSES["noisy quadratic"]
    rho = torch.full((2,), 0.1).double() if "seed" in change else 0.1
    arguments = {"loss": loss, "start": loss.start, "steps": 3} | change
    with pytest.raises((TypeError, ValueError), match=message):
        descend(make_optimizer=lambda w: SAM(SGD(w, lr=0.1), rho), **arguments)
