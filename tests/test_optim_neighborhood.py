"""The worst perturbation lies on the neighborhood's edge, and nothing in it is worse."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import difference, examples
from torch import nn

from lookbehind import AdaptiveBall, Ball, param_groups


@st.composite
def slopes(draw):
    """Weights, gradients and flags of a few tensors, 0-dim ones among them."""
    torch.manual_seed(draw(st.integers(0, 999)))
    shapes = draw(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4))
    params, grads = ([torch.randn(shape).double() for shape in shapes] for _ in range(2))
    return params, grads, [draw(st.booleans()) for _ in shapes]


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


@examples(40)
@given(slopes(), st.floats(0, 3), st.one_of(st.none(), st.floats(0.001, 1)))
def test_the_worst_in_a_neighborhood_is_at_its_edge(slope, rho, eta):
    """ε = ρ T² g / ‖T g‖: ‖T⁻¹ε‖ = ρ, and ⟨g, ε⟩ = ρ ‖T g‖, the largest by Cauchy-Schwarz."""
    params, grads, flags = slope
    ball = Ball(rho) if eta is None else AdaptiveBall(rho, eta)
    pairs = zip(params, flags if eta is not None else [False] * len(flags), strict=True)
    t = flat([w.abs() + eta if f else torch.ones_like(w) for w, f in pairs])
    worst, g = flat(ball.worst(params, grads, flags)), flat(grads)
    assert difference([worst], [rho * t**2 * g / (t * g).norm()]) < 1e-12
    assert (worst / t).norm().item() == pytest.approx(rho, abs=1e-12)
    rise = rho * ball.norm(params, grads, flags)
    assert (g @ worst).item() == pytest.approx(rise.item(), abs=1e-12)


@examples(40)
@given(slopes())
def test_by_default_all_are_adaptive_and_nothing_is_changed(slope):
    params, grads, flags = slope
    before = copy.deepcopy(params + grads)

    def found(ball, *flags):
        return [*ball.worst(params, grads, *flags), ball.norm(params, grads, *flags)]

    assert difference(found(AdaptiveBall(0.5)), found(AdaptiveBall(0.5), [True] * len(flags))) == 0
    assert difference(found(AdaptiveBall(0.5), [False] * len(flags)), found(Ball(0.5))) == 0
    assert difference(params + grads, before) == 0


@pytest.mark.parametrize("ball", [Ball(0.3), AdaptiveBall(0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_gradient_has_no_worst_perturbation(ball, dtype):
    w, g = torch.ones(4, dtype=dtype), torch.zeros(4, dtype=dtype)
    assert torch.equal(ball.worst([w], [g])[0], g)
    members = type(ball)(torch.full((4,), 0.3))
    assert torch.equal(members.worst([w], [g])[0], g.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rho", "n"), [(1.0, 100_000), (torch.ones(2), 50_000)])
def test_half_precision_norms_are_summed_in_float32(dtype, rho, n):
    """In half precision this sum of squares would overflow, or stop growing."""
    g = torch.full((2, 50_000), 20.0, dtype=dtype)
    for ball, stretched in ((Ball(rho), 20.0), (AdaptiveBall(rho, 1.0), 40.0)):
        norm = ball.norm([torch.ones_like(g)], [g])
        assert norm.dtype == torch.float32
        assert norm.max().item() == pytest.approx(stretched * n**0.5, rel=1e-3)
    assert Ball(1.0).worst([g], [g])[0].dtype == dtype


def test_param_groups_are_what_the_official_asam_scales():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2, bias=False))
    names, groups = {p: name for name, p in model.named_parameters()}, param_groups(model)
    found = [[names[p] for p in group["params"]] for group in groups]
    assert found == [["0.weight", "1.weight", "2.weight"], ["0.bias", "1.bias"]]
    assert [group.get("adaptive", True) for group in groups] == [True, False]
    torch.optim.SGD(groups, lr=0.1)
    assert [len(group["params"]) for group in param_groups(model[2])] == [1]  # none is empty
    with pytest.raises(ValueError, match="model must have parameters, got ReLU with none"):
        param_groups(nn.ReLU())
