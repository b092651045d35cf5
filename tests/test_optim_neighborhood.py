"""The worst perturbation lies on the neighborhood's edge, and nothing in it is worse."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import difference, mlp, one_thread  # noqa: F401
from torch import nn

from lookbehind import AdaptiveBall, Ball, param_groups

examples = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def slopes(draw, dtype=torch.float64):
    """Weights, gradients and flags of a few tensors, 0-dim ones among them."""
    torch.manual_seed(draw(st.integers(0, 999)))
    shapes = draw(
        st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=3), min_size=1, max_size=4)
    )
    params = [torch.randn(shape, dtype=dtype) for shape in shapes]
    grads = [torch.randn(shape, dtype=dtype) for shape in shapes]
    flags = draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)))
    return params, grads, flags


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def stretch(params, flags, eta):
    """T as one vector."""
    ones = [torch.ones_like(w) for w in params]
    return flat([w.abs() + eta if f else o for w, o, f in zip(params, ones, flags, strict=True)])


@examples
@given(slopes(), st.floats(0, 3))
def test_the_worst_in_a_ball_is_along_the_gradient_at_its_edge(slope, rho):
    params, grads, _ = slope
    worst = flat(Ball(rho).worst(params, grads))
    g = flat(grads)
    assert difference([worst], [rho * g / g.norm()]) < 1e-12
    assert worst.norm().item() == pytest.approx(rho, abs=1e-12)
    assert Ball(rho).norm(params, grads).item() == pytest.approx(g.norm().item())


@examples
@given(slopes(), st.floats(0, 3), st.floats(0.001, 1))
def test_the_worst_in_an_adaptive_ball_is_at_its_edge(slope, rho, eta):
    """ε = ρ T² g / ‖T g‖: ‖T⁻¹ε‖ = ρ, and ⟨g, ε⟩ = ρ ‖T g‖, the largest by Cauchy-Schwarz."""
    params, grads, flags = slope
    ball = AdaptiveBall(rho, eta)
    worst, t, g = flat(ball.worst(params, grads, flags)), stretch(params, flags, eta), flat(grads)
    assert difference([worst], [rho * t**2 * g / (t * g).norm()]) < 1e-12
    assert (worst / t).norm().item() == pytest.approx(rho, abs=1e-12)
    rise = rho * ball.norm(params, grads, flags)
    assert (g @ worst).item() == pytest.approx(rise.item(), abs=1e-12)


@examples
@given(slopes(), st.integers(0, 99), st.booleans())
def test_nothing_else_in_the_neighborhood_is_worse(slope, seed, adaptive):
    params, grads, flags = slope
    ball = AdaptiveBall(0.5, 0.1) if adaptive else Ball(0.5)
    t = stretch(params, flags, 0.1) if adaptive else torch.ones_like(flat(params))
    torch.manual_seed(seed)
    other = torch.randn_like(t)
    other = t * 0.5 * other / other.norm()
    assert flat(grads) @ other <= flat(grads) @ flat(ball.worst(params, grads, flags)) + 1e-12


@examples
@given(slopes())
def test_by_default_all_are_adaptive_and_nothing_is_changed(slope):
    params, grads, _ = slope
    before = copy.deepcopy((params, grads))
    all_of_them = [True] * len(params)
    ball = AdaptiveBall(0.5)
    assert difference(ball.worst(params, grads), ball.worst(params, grads, all_of_them)) == 0
    assert difference([ball.norm(params, grads)], [ball.norm(params, grads, all_of_them)]) == 0
    none = [False] * len(params)
    assert difference(ball.worst(params, grads, none), Ball(0.5).worst(params, grads)) == 0
    assert difference(params + grads, before[0] + before[1]) == 0


def test_an_adaptive_ball_knows_no_scale():
    """Rescaling the weights by c rescales ε by c (η = 0): T⁻¹ε doesn't change."""
    w, g = torch.randn(2, 5, dtype=torch.float64)
    (one,), (other,) = (AdaptiveBall(0.5, 0.0).worst([c * w], [g / c]) for c in (1.0, 7.0))
    assert difference([7 * one], [other]) < 1e-12


@examples
@given(st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_each_member_has_its_own_radius_and_norm(members, seed, adaptive):
    torch.manual_seed(seed)
    shapes = [(members, 3, 2), (members,), (members, 4)]
    params = [torch.randn(s, dtype=torch.float64) for s in shapes]
    grads = [torch.randn(s, dtype=torch.float64) for s in shapes]
    rho = torch.rand(members, dtype=torch.float64)
    make = AdaptiveBall if adaptive else Ball
    together = make(rho).worst(params, grads, [True, False, True])
    norms = make(rho).norm(params, grads, [True, False, True])
    assert make(rho).members == members
    assert norms.shape == (members,)
    for e in range(members):
        alone = [w[e] for w in params], [g[e] for g in grads], [True, False, True]
        assert difference([t[e] for t in together], make(rho[e].item()).worst(*alone)) < 1e-14
        assert difference([norms[e]], [make(rho[e].item()).norm(*alone)]) < 1e-14


def test_a_number_and_a_scalar_tensor_have_no_members():
    assert Ball(0.1).members is None
    assert AdaptiveBall(torch.tensor(0.1)).members is None
    assert Ball(torch.ones(1)).members == 1


@pytest.mark.parametrize("ball", [Ball(0.3), AdaptiveBall(0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_gradient_has_no_worst_perturbation(ball, dtype):
    w, g = torch.ones(4, dtype=dtype), torch.zeros(4, dtype=dtype)
    assert torch.equal(ball.worst([w], [g])[0], g)
    members = type(ball)(torch.full((4,), 0.3))
    assert torch.equal(members.worst([w], [g])[0], g.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("members", [None, 2])
def test_half_precision_norms_are_summed_in_float32(dtype, members):
    """In half precision this sum of squares would overflow, or stop growing."""
    g = torch.full((2, 50_000), 20.0, dtype=dtype)
    rho = 1.0 if members is None else torch.ones(members)
    for ball, stretched in ((Ball(rho), 20.0), (AdaptiveBall(rho, 1.0), 40.0)):
        norm = ball.norm([torch.ones_like(g)], [g])
        n = g.numel() / (members or 1)
        assert norm.dtype == torch.float32
        assert norm.max().item() == pytest.approx(stretched * n**0.5, rel=1e-3)
    assert Ball(1.0).worst([g], [g])[0].dtype == dtype


def test_param_groups_are_what_the_official_asam_scales():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2, bias=False))
    scaled, rest = param_groups(model)
    named = dict(model.named_parameters())
    assert [id(p) for p in scaled["params"]] == [
        id(named[n]) for n in ("0.weight", "1.weight", "2.weight")
    ]
    assert [id(p) for p in rest["params"]] == [id(named[n]) for n in ("0.bias", "1.bias")]
    assert rest["adaptive"] is False
    assert scaled.get("adaptive", True) is True
    torch.optim.SGD(param_groups(model), lr=0.1)


def test_a_group_without_parameters_is_left_out():
    (group,) = param_groups(nn.Linear(2, 2, bias=False))
    assert len(group["params"]) == 1
    with pytest.raises(ValueError, match="model must have parameters, got ReLU with none"):
        param_groups(nn.ReLU())


def test_two_groups_and_flags_are_one_thing():
    """The flag of a group reaches every one of its parameters."""
    problem = mlp()
    flags = [p.ndim == 2 for p in problem.params]
    grads = problem.gradient()(problem.weights)[1]
    expected = AdaptiveBall(0.5).worst(problem.params, list(grads), flags)
    names = [n for n, _ in problem.model.named_parameters()]
    assert flags == ["weight" in n for n in names]
    t = stretch(problem.weights, flags, 0.01)
    g = flat(grads)
    assert difference([flat(expected)], [0.5 * t**2 * g / (t * g).norm()]) < 1e-12
