"""The optimizer family does what the papers and the official code say."""

import copy
import io
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from problems import (
    BASES,
    METHODS,
    Problem,
    copied_state,
    difference,
    identical,
    make_base,
    mlp,
    mlps,
    one_thread,  # noqa: F401
    same_state,
)
from torch import nn

from lookbehind import (
    ASAM,
    SAM,
    AdaptiveBall,
    Ball,
    Lookahead,
    Lookbehind,
    MultistepSAM,
    param_groups,
)
from lookbehind.optim import cosine_alpha

GOLDEN = json.loads((Path(__file__).parent / "golden" / "trajectories.json").read_text())
RHO = st.floats(0, 0.5)
ALPHA = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])
K = st.integers(1, 6)


def examples(n):
    return settings(max_examples=n, deadline=None, derandomize=True)


# --- the official figures ---------------------------------------------------------------------


def golden_problem(case):
    if case["net"] == "mlp":
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    else:
        conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        head = nn.Linear(144, 3)
        model = nn.Sequential(conv, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), head)
    model = model.double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.tensor(case["init"][name], dtype=torch.float64).view(p.shape))
    batches = [
        (torch.tensor(b["x"], dtype=torch.float64).view(b["shape"]), torch.tensor(b["y"]))
        for b in case["batches"]
    ]
    return Problem(model, batches)


def golden_run(case, groups):
    """Yields after each outer step: its first loss and its closure calls, then the weights."""
    problem = golden_problem(case)
    base = torch.optim.SGD(groups(problem.model), lr=0.1, momentum=0.9, weight_decay=5e-4)
    asam = "asam" in case["method"]
    k, alpha = case["k"], case["alpha"]
    if case["method"] in ("sam", "asam"):
        optimizer = ASAM(base, case["rho"], case["eta"]) if asam else SAM(base, case["rho"])
    else:
        ball = AdaptiveBall(case["rho"], case["eta"]) if asam else Ball(case["rho"])
        optimizer = Lookbehind(base, ball, k=k, alpha=alpha)
    for t in range(len(case["first_losses"])):
        switched = [problem.closure(t * k + i) for i in range(k)]
        problem.calls = 0
        loss = optimizer.step(switched if case["switch_minibatch"] else problem.closure(t))
        yield loss.item(), problem.calls, dict(problem.model.named_parameters())


def one_group_each(model):
    """One group per parameter, in the model's order: the official order of the norm's sum."""
    return [{"params": [p], "adaptive": "weight" in name} for name, p in model.named_parameters()]


@pytest.mark.parametrize("groups", [param_groups, one_group_each])
@pytest.mark.parametrize("n", range(len(GOLDEN)))
def test_the_official_weights_are_reached(n, groups):
    case = GOLDEN[n]
    expected_calls = 2 * case["k"] if case["switch_minibatch"] else case["k"] + 1
    for t, (loss, calls, weights) in enumerate(golden_run(case, groups)):
        assert calls == expected_calls
        assert loss == pytest.approx(case["first_losses"][t], abs=1e-12)
        expected = case["weights_after_each_outer_step"][t]
        assert set(weights) == set(expected)
        for name, w in weights.items():
            official = torch.tensor(expected[name], dtype=torch.float64).view(w.shape)
            assert (w - official).abs().max() <= 1e-12, (t, name)


# --- the oracle ---------------------------------------------------------------------------------


@st.composite
def groupings(draw, problem):
    """Groups with their own learning rate and `adaptive` flag, as both sides need them."""
    n = len(problem.params)
    of = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    lrs = draw(st.lists(st.sampled_from([0.01, 0.05, 0.1]), min_size=3, max_size=3))
    flags = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    groups = []
    for j in sorted(set(of)):
        params = [p for p, i in zip(problem.params, of, strict=True) if i == j]
        groups.append({"params": params, "lr": lrs[j], "adaptive": flags[j]})
    return groups, [lrs[j] for j in of], [flags[j] for j in of]


@st.composite
def runs(draw, batches=1):
    """A problem, torch's optimizer on it, and the oracle's arguments for the same."""
    problem = draw(mlps(batches))
    name = draw(st.sampled_from(sorted(BASES)))
    groups, lrs, scaled = draw(groupings(problem))
    make, called, options, own = BASES[name]
    base = make(groups, lr=0.1, **options, **own)
    oracle = reference.Base(called, [{"lr": lr, **options} for lr in lrs])
    rho, eta = draw(RHO), draw(st.sampled_from([None, 0.0, 0.01]))
    ball = Ball(rho) if eta is None else AdaptiveBall(rho, eta)
    return problem, base, ball, oracle, (rho, eta), scaled


@examples(60)
@given(runs(), K, st.one_of(ALPHA, st.just("adaptive")), st.booleans())
def test_lookbehind_agrees_with_the_oracle(run, k, alpha, reuse):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = Lookbehind(base, ball, k=k, alpha=alpha, reuse_gradients=reuse)
    weights = problem.weights
    for _ in range(2):
        expected_loss = problem.gradient()(weights)[0]
        weights = reference.lookbehind(
            weights, [problem.gradient()] * k, oracle, climb, scaled, alpha
        )
        assert (optimizer.step(problem.closure()) - expected_loss).abs() < 1e-9
        assert difference(problem.weights, weights) < 1e-9
    assert problem.calls == 2 * (k + 1 if reuse else 2 * k)


@examples(20)
@given(runs(batches=3), ALPHA)
def test_switched_minibatches_agree_with_the_oracle(run, alpha):
    problem, base, ball, oracle, climb, scaled = run
    gradients = [problem.gradient(i) for i in range(3)]
    weights = reference.lookbehind(problem.weights, gradients, oracle, climb, scaled, alpha)
    optimizer = Lookbehind(base, ball, k=3, alpha=alpha)
    optimizer.step([problem.closure(i) for i in range(3)])
    assert difference(problem.weights, weights) < 1e-9
    assert problem.calls == 6


@examples(40)
@given(runs(), K, st.sampled_from(["last", "mean"]))
def test_multistep_agrees_with_the_oracle(run, k, gradient):
    problem, base, ball, oracle, climb, scaled = run
    optimizer = MultistepSAM(base, ball, k=k, gradient=gradient)
    weights = problem.weights
    for _ in range(2):
        mean = gradient == "mean"
        weights = reference.multistep(weights, problem.gradient(), oracle, climb, scaled, k, mean)
        optimizer.step(problem.closure())
        assert difference(problem.weights, weights) < 1e-9
    assert problem.calls == 2 * (k + 1)


def test_multistep_takes_switched_minibatches():
    """Inner step i takes both of its gradients on minibatch i."""
    problem = mlp(batches=2)
    point = problem.weights
    for batch in range(2):
        gradient = problem.gradient(batch)
        point = reference.ascended(point, gradient(point)[1], (0.1, None), [True] * len(point))
    used = problem.gradient(1)(point)[1]
    expected = [w - 0.1 * g for w, g in zip(problem.weights, used, strict=True)]
    MultistepSAM(torch.optim.SGD(problem.params, lr=0.1), Ball(0.1), k=2).step(
        [problem.closure(0), problem.closure(1)]
    )
    assert difference(problem.weights, expected) < 1e-12
    assert problem.calls == 4


@examples(30)
@given(runs(batches=3), ALPHA, st.booleans())
def test_lookahead_agrees_with_the_oracle(run, alpha, climbs):
    problem, base, ball, oracle, climb, scaled = run
    inner = MultistepSAM(base, ball, k=1) if climbs else base
    optimizer = Lookahead(inner, k=3, alpha=alpha)
    weights = problem.weights
    gradients = [problem.gradient(i) for i in range(3)]
    for _ in range(2):
        weights = reference.lookahead(
            weights, gradients, oracle, climb if climbs else None, scaled, alpha
        )
        optimizer.step([problem.closure(i) for i in range(3)])
        assert difference(problem.weights, weights) < 1e-9


# --- identities ---------------------------------------------------------------------------------


def trained(problem, optimizer, steps=2):
    """The weights of a copy of `problem` after some steps of `optimizer(problem)`."""
    problem = copy.deepcopy(problem)
    made = optimizer(problem)
    for _ in range(steps):
        made.step(problem.closure())
    return problem.weights


ANY_BASE = st.sampled_from(sorted(BASES))
BALLS = st.one_of(st.builds(Ball, RHO), st.builds(AdaptiveBall, RHO, st.just(0.01)))


@examples(30)
@given(mlps(), ANY_BASE, BALLS, st.booleans())
def test_lookbehind_with_one_step_and_alpha_one_is_sam(problem, base, ball, reuse):
    def lookbehind(q):
        optimizer = make_base(base, q.params)
        return Lookbehind(optimizer, ball, k=1, alpha=1.0, reuse_gradients=reuse)

    def sam(q):
        optimizer = make_base(base, q.params)
        adaptive = isinstance(ball, AdaptiveBall)
        return ASAM(optimizer, ball.rho, ball.eta) if adaptive else SAM(optimizer, ball.rho)

    def multistep(q):
        return MultistepSAM(make_base(base, q.params), ball, k=1)

    expected = trained(problem, sam)
    assert identical(trained(problem, lookbehind), expected)
    assert identical(trained(problem, multistep), expected)


@examples(30)
@given(mlps(), ANY_BASE, K, st.sampled_from([Ball(0.0), AdaptiveBall(0.0)]))
def test_without_radius_it_is_k_base_steps_with_one_gradient(problem, base, k, ball):
    """With ρ = 0 every φ'_i is φ: k steps of the base optimizer, all with ∇L(φ)."""
    plain = copy.deepcopy(problem)
    optimizer = make_base(base, plain.params)
    _, gradient = plain.gradient()(plain.weights)
    for _ in range(k):
        for p, g in zip(plain.params, gradient, strict=True):
            p.grad = g.clone()
        optimizer.step()
    Lookbehind(make_base(base, problem.params), ball, k=k, alpha=1.0).step(problem.closure())
    assert difference(problem.weights, plain.weights) < 1e-14


@examples(30)
@given(mlps(), ANY_BASE, K, BALLS)
def test_alpha_zero_changes_nothing(problem, base, k, ball):
    optimizer = Lookbehind(make_base(base, problem.params), ball, k=k, alpha=0.0)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights, before)
    assert all(optimizer.base.state[p] for p in problem.params) or base.startswith("sgd")


@examples(30)
@given(mlps(), st.sampled_from(["sgd", "momentum", "nesterov", "adam"]), K, ALPHA, BALLS)
def test_a_constant_alpha_is_a_factor_on_the_learning_rate(problem, base, k, alpha, ball):
    """No gradient is taken at the fast weights: without weight decay, (α, lr) is (1, α lr)."""
    interpolated = trained(
        problem, lambda q: Lookbehind(make_base(base, q.params, 0.05), ball, k=k, alpha=alpha)
    )
    slower = trained(
        problem, lambda q: Lookbehind(make_base(base, q.params, 0.05 * alpha), ball, k=k, alpha=1.0)
    )
    assert difference(interpolated, slower) < 1e-10


@examples(30)
@given(mlps(), K, ALPHA, BALLS)
def test_on_plain_sgd_it_is_multistep_with_the_mean_gradient(problem, k, alpha, ball):
    """φ + α Σ (−lr ∇L(φ'_i)) is one step along the mean gradient with the learning rate αk lr."""
    lookbehind = trained(
        problem, lambda q: Lookbehind(make_base("sgd", q.params, 0.05), ball, k=k, alpha=alpha)
    )
    mean = trained(
        problem,
        lambda q: MultistepSAM(
            make_base("sgd", q.params, 0.05 * alpha * k), ball, k=k, gradient="mean"
        ),
    )
    assert difference(lookbehind, mean) < 1e-10


@examples(30)
@given(mlps(), ANY_BASE, K, BALLS)
def test_multistep_shares_the_climb_and_descends_once(problem, base, k, ball):
    """Both meet the same φ'_1..φ'_k; Multistep goes from φ with the gradient at the last."""
    met = {}

    def climbing(name, make):
        q = copy.deepcopy(problem)
        points = met[name] = []

        def observe(event):
            if event.kind == "ascent":
                points.append([p.detach().clone() for p in event.params])

        optimizer = make(make_base(base, q.params), ball, k=k, observers=[observe])
        optimizer.step(q.closure())
        return q

    multistep = climbing("multistep", MultistepSAM)
    climbing("lookbehind", Lookbehind)
    assert len(met["multistep"]) == k
    for one, other in zip(met["multistep"], met["lookbehind"], strict=True):
        assert identical(one, other)
    once = copy.deepcopy(problem)
    for p, g in zip(once.params, once.gradient()(met["multistep"][-1])[1], strict=True):
        p.grad = g
    make_base(base, once.params).step()
    assert difference(multistep.weights, once.weights) < 1e-12


@examples(30)
@given(mlps(dtype=torch.float32), ANY_BASE, K, ALPHA, BALLS)
def test_reuse_and_2k_agree_to_the_last_bit_in_float32(problem, base, k, alpha, ball):
    def lookbehind(reuse):
        return lambda q: Lookbehind(
            make_base(base, q.params), ball, k=k, alpha=alpha, reuse_gradients=reuse
        )

    assert identical(trained(problem, lookbehind(True), 3), trained(problem, lookbehind(False), 3))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_reuse_and_2k_agree_with_batch_norm(k):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    problem = Problem(model, [(torch.randn(5, 1, 6, 6), torch.randint(3, (5,)))])

    def lookbehind(reuse):
        return lambda q: Lookbehind(
            make_base("momentum wd", q.params), Ball(0.1), k=k, reuse_gradients=reuse
        )

    assert identical(trained(problem, lookbehind(True), 4), trained(problem, lookbehind(False), 4))


@examples(25)
@given(mlps(), st.sampled_from(sorted(METHODS)), ANY_BASE)
def test_the_parameters_keep_their_storage(problem, method, base):
    """Graph capture, DDP and views hold on to it; and the closure never sees another one."""
    optimizer = METHODS[method](make_base(base, problem.params))
    storage = [p.data_ptr() for p in problem.params]
    inner = problem.closure()

    def closure():
        assert [p.data_ptr() for p in problem.params] == storage
        return inner()

    for _ in range(2):
        optimizer.step(closure)
        assert [p.data_ptr() for p in problem.params] == storage


@pytest.mark.parametrize("method", METHODS)
def test_between_steps_the_parameters_are_the_slow_weights(method):
    """The loss returned is the one at the weights that were there before the step."""
    problem = mlp()
    optimizer = METHODS[method](make_base("momentum", problem.params))
    for _ in range(3):
        before = problem.gradient()(problem.weights)[0]
        loss = optimizer.step(problem.closure())
        assert loss == before
        assert not loss.requires_grad
        assert loss.grad_fn is None


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(method):
    problem = mlp()
    optimizer = METHODS[method](make_base("momentum", problem.params))
    losses = [optimizer.step(problem.closure()).item() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_alpha_may_be_any_function_of_the_displacements():
    problem = mlp()
    weights = problem.weights
    seen = []

    def alpha(first, total):
        seen.append((first.clone(), total.clone()))
        return 0.25

    scaled = [True] * len(weights)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    steps = [problem.gradient()] * 3
    first = reference.lookbehind(weights, steps[:1], oracle, (0.1, None), scaled, 1)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    expected = reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, 0.25)
    base = make_base("momentum", problem.params)
    Lookbehind(base, Ball(0.1), k=3, alpha=alpha).step(problem.closure())
    assert difference(problem.weights, expected) < 1e-12
    assert len(seen) == len(weights)
    for (a, b), w, f, e in zip(seen, weights, first, expected, strict=True):
        assert difference([a], [f - w]) < 1e-12
        assert difference([b], [4 * (e - w)]) < 1e-12


@examples(50)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_cosine_alpha_lies_in_the_unit_interval_and_knows_members(members, n, seed):
    torch.manual_seed(seed)
    first, total = torch.randn(2, members, n, dtype=torch.float64)
    expected = (torch.nn.functional.cosine_similarity(first, total, dim=1) + 1) / 2
    alone = [cosine_alpha(a.clone(), b.clone()) for a, b in zip(first, total, strict=True)]
    assert cosine_alpha(first.clone(), 3 * first).item() == pytest.approx(1)
    together = cosine_alpha(first.clone(), total.clone(), members)
    assert together.shape == (members,)
    assert ((together >= 0) & (together <= 1)).all()
    assert difference([together], [expected]) < 1e-12
    assert difference(alone, list(expected)) < 1e-12


def test_cosine_alpha_of_opposite_and_of_no_movement():
    v = torch.tensor([3.0, -4.0])
    assert cosine_alpha(v.clone(), -2 * v).item() == pytest.approx(0, abs=1e-6)
    assert cosine_alpha(torch.zeros(2), v.clone()) == 0.5


# --- resume and schedules -----------------------------------------------------------------------


def through_disk(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("base", ["sgd", "momentum wd", "nesterov", "adamw", "rmsprop"])
@pytest.mark.parametrize("method", METHODS)
def test_resume_is_exact(method, base):
    """To stop after three steps and go on from disk is to go on, bit for bit, settings included."""
    problem = mlp(dtype=torch.float32)
    optimizer = METHODS[method](make_base(base, problem.params))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer.base, 2)

    def step(n, optimizer, problem, scheduler):
        for _ in range(n):
            optimizer.step(problem.closure())
            scheduler.step()

    step(3, optimizer, problem, scheduler)
    changed = optimizer.inner if method == "Lookahead" else optimizer
    if method not in ("SAM", "ASAM"):
        optimizer.k = 2
    changed.ball = type(changed.ball)(0.3)
    if hasattr(optimizer, "alpha"):
        optimizer.alpha = 0.3
    saved = through_disk(
        [x.state_dict() for x in (problem.model, optimizer, scheduler)],
    )
    other = mlp(seed=5, dtype=torch.float32)
    other.batches = problem.batches
    resumed = METHODS[method](make_base(base, other.params))
    resumed_scheduler = torch.optim.lr_scheduler.StepLR(resumed.base, 2)
    for x, state in zip((other.model, resumed, resumed_scheduler), saved, strict=True):
        x.load_state_dict(state)
    assert resumed.k == optimizer.k
    assert getattr(resumed, "alpha", None) == getattr(optimizer, "alpha", None)
    step(3, optimizer, problem, scheduler)
    step(3, resumed, other, resumed_scheduler)
    assert identical(other.weights, problem.weights)


def test_an_adaptive_alpha_and_members_are_restored():
    w = nn.Parameter(torch.ones(3, 2))
    rho = torch.tensor([0.1, 0.2, 0.3])
    one = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(rho, 0.2), k=4, alpha="adaptive")
    other = Lookbehind(torch.optim.SGD([w], lr=0.1), AdaptiveBall(0.5), alpha=rho)
    other.load_state_dict(through_disk(one.state_dict()))
    assert other.alpha == "adaptive"
    assert other.k == 4
    assert isinstance(other.ball, AdaptiveBall)
    assert torch.equal(other.ball.rho, rho)
    assert other.ball.eta == 0.2


def test_a_function_alpha_is_kept_when_a_state_is_loaded():
    problem = mlp()

    def alpha(first, total):
        return 0.5

    one = Lookbehind(make_base("sgd", problem.params), Ball(), alpha=alpha, k=2)
    other = Lookbehind(make_base("sgd", problem.params), Ball(), alpha=alpha)
    other.load_state_dict(through_disk(one.state_dict()))
    assert other.alpha is alpha
    assert other.k == 2


def broken(change):
    def make(good, problem):
        state = copy.deepcopy(good)
        change(state)
        return state

    return make


FOREIGN = {
    "no dict": lambda good, problem: None,
    "of the base alone": lambda good, problem: good["inner"],
    "without settings": broken(lambda s: s.pop("settings")),
    "setting missing": broken(lambda s: s["settings"].pop("k")),
    "setting too many": broken(lambda s: s["settings"].update(extra=1)),
    "k of 0": broken(lambda s: s["settings"].update(k=0)),
    "k of words": broken(lambda s: s["settings"].update(k="five")),
    "negative rho": broken(lambda s: s["settings"]["ball"].update(rho=-1.0)),
    "alpha of 2": broken(lambda s: s["settings"].update(alpha=2.0)),
    "other ball": broken(lambda s: s["settings"].update(ball={"rho": 0.1, "eta": 0.1})),
    "no base state": broken(lambda s: s["inner"].pop("state")),
    "no groups": broken(lambda s: s["inner"].pop("param_groups")),
    "other groups": broken(lambda s: s["inner"]["param_groups"].append({"params": []})),
    "other base": lambda good, problem: Lookbehind(
        make_base("adamw", problem.params), Ball()
    ).state_dict(),
    "other class": lambda good, problem: SAM(make_base("momentum", problem.params)).state_dict(),
    "other model": lambda good, problem: Lookbehind(
        make_base("momentum", mlp((4, 6, 3)).params), Ball()
    ).state_dict(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_or_broken_state_is_refused_before_anything_changes(kind):
    problem = mlp()
    optimizer = Lookbehind(make_base("momentum", problem.params), Ball(0.2), k=3, alpha=0.7)
    optimizer.step(problem.closure())
    good = copy.deepcopy(optimizer.state_dict())
    good["settings"].update(k=4)
    state = FOREIGN[kind](good, problem)
    before, options = copied_state(optimizer.base), copy.deepcopy(optimizer.base.defaults)
    lrs = [group["lr"] for group in optimizer.param_groups]
    with pytest.raises((ValueError, TypeError), match=r"state|k must|rho must|alpha must|param"):
        optimizer.load_state_dict(state)
    assert (optimizer.k, optimizer.alpha, optimizer.ball) == (3, 0.7, Ball(0.2))
    assert same_state(copied_state(optimizer.base), before)
    assert optimizer.base.defaults == options
    assert [group["lr"] for group in optimizer.param_groups] == lrs


def test_a_foreign_inner_state_leaves_lookahead_as_it_was():
    problem = mlp()
    optimizer = Lookahead(SAM(make_base("momentum", problem.params), 0.2), k=3, alpha=0.7)
    state = copy.deepcopy(optimizer.state_dict())
    state["settings"]["k"] = 4
    state["inner"]["settings"]["ball"]["rho"] = -1.0
    with pytest.raises(ValueError, match="rho must"):
        optimizer.load_state_dict(state)
    assert optimizer.k == 3
    assert optimizer.inner.ball == Ball(0.2)


def test_a_scheduler_wraps_the_base():
    problem = mlp()
    weights = problem.weights
    optimizer = Lookbehind(make_base("sgd", problem.params, lr=0.1), Ball(0.1), k=2, alpha=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer.base, 0.5)
    for lr in (0.1, 0.05, 0.025):
        oracle = reference.Base("sgd", [{"lr": lr}] * len(weights))
        steps = [problem.gradient()] * 2
        scaled = [True] * len(weights)
        weights = reference.lookbehind(weights, steps, oracle, (0.1, None), scaled, 0.5)
        optimizer.step(problem.closure())
        scheduler.step()
        assert difference(problem.weights, weights) < 1e-12


def test_k_ball_and_alpha_may_change_between_steps():
    problem = mlp()
    weights = problem.weights
    base = make_base("momentum", problem.params)
    oracle = reference.Base("sgd", [{"lr": 0.05, "momentum": 0.9} for _ in weights])
    optimizer = Lookbehind(base, Ball(0.1), k=2, alpha=0.5)
    for k, ball, climb, alpha in (
        (2, Ball(0.1), (0.1, None), 0.5),
        (4, Ball(0.3), (0.3, None), 0.2),
        (1, AdaptiveBall(0.2, 0.1), (0.2, 0.1), "adaptive"),
        (3, Ball(0.0), (0.0, None), 1),
    ):
        optimizer.k, optimizer.ball, optimizer.alpha = k, ball, alpha
        scaled = [True] * len(weights)
        steps = [problem.gradient()] * k
        weights = reference.lookbehind(weights, steps, oracle, climb, scaled, alpha)
        optimizer.step(problem.closure())
        assert difference(problem.weights, weights) < 1e-10


# --- members ------------------------------------------------------------------------------------

E = 4
RHOS = torch.tensor([0.0, 0.05, 0.2, 0.5], dtype=torch.float64)
ALPHAS = torch.tensor([0.5, 0.2, 1.0, 0.0], dtype=torch.float64)


def stacked(members=E):
    """Parameters of `members` networks 4–5–3 and the loss of each: shape (E,), or () for one."""
    torch.manual_seed(0)
    shapes = [(4, 5), (1, 5), (5, 3), (3,)]
    params = [torch.randn(members, *shape, dtype=torch.float64) for shape in shapes]
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def loss(w1, b1, w2, b2):
        out = torch.tanh(x @ w1 + b1) @ w2 + b2.unsqueeze(-2)
        return (out - y).square().mean((-2, -1))

    return params, loss


def member_closure(params, loss):
    def closure():
        losses = loss(*params)
        grads = torch.autograd.grad(losses.sum(), params)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        return losses

    return closure


MEMBER_METHODS = {
    **METHODS,
    "Lookbehind-ASAM adaptive": lambda base, rho, alpha, k=3, **o: Lookbehind(
        base, AdaptiveBall(rho), k=k, alpha="adaptive", **o
    ),
}


@pytest.mark.parametrize("base", ["sgd", "momentum wd", "nesterov foreach", "adamw", "rmsprop"])
@pytest.mark.parametrize("method", MEMBER_METHODS)
def test_a_member_is_what_it_would_be_alone(method, base):
    values, loss = stacked()
    together = [nn.Parameter(v.clone()) for v in values]
    make = MEMBER_METHODS[method]
    optimizer = make(make_base(base, together), rho=RHOS, alpha=ALPHAS)
    path = []
    for _ in range(4):
        losses = optimizer.step(member_closure(together, loss))
        assert losses.shape == (E,)
        path.append(([p.detach().clone() for p in together], losses))
    assert not optimizer.rolled_back.any()
    for e in range(E):
        alone = [nn.Parameter(v[e].clone()) for v in values]
        single = make(make_base(base, alone), rho=RHOS[e].item(), alpha=ALPHAS[e].item())
        for weights, losses in path:
            assert (single.step(member_closure(alone, loss)) - losses[e]).abs() <= 1e-12
            assert difference([w[e] for w in weights], alone) <= 1e-12


@pytest.mark.parametrize("base", ["sgd", "momentum", "adamw", "rmsprop"])
@pytest.mark.parametrize("method", MEMBER_METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_member_that_diverges_is_put_back_and_the_others_go_on(method, base, bad):
    """Member 2's loss (and gradient) leaves the finite at its second evaluation in step 1 or 3."""
    values, loss = stacked()
    for failing in (1, 3):
        together = [nn.Parameter(v.clone()) for v in values]
        untouched = [nn.Parameter(v.clone()) for v in values]
        make = MEMBER_METHODS[method]
        optimizer = make(make_base(base, together), rho=RHOS, alpha=ALPHAS)
        reference_run = make(make_base(base, untouched), rho=RHOS, alpha=ALPHAS)
        factors = iter(())

        def diverging(*params):
            factor = torch.ones(E, dtype=torch.float64)
            factor[2] = next(factors, 1.0)  # noqa: B023
            return loss(*params) * factor

        for t in range(1, 5):
            factors = iter((1.0, bad if t == failing else 1.0))
            before = [p.detach().clone() for p in together]
            state = copied_state(optimizer.base)
            optimizer.step(member_closure(together, diverging))
            reference_run.step(member_closure(untouched, loss))
            assert optimizer.rolled_back.tolist() == [False, False, t == failing, False]
            if t == failing:
                assert identical([p[2] for p in together], [p[2] for p in before])
                for p, values_now in optimizer.base.state.items():
                    for name, now in values_now.items():
                        if torch.is_tensor(now) and now.ndim:
                            old = state.get(p, {}).get(name, torch.zeros_like(now))
                            assert torch.equal(now[2], old[2])
        others = [0, 1, 3]
        assert identical([p[others] for p in together], [p[others] for p in untouched])
        assert all(p.isfinite().all() for p in together)


def test_one_member_alone_is_still_a_member():
    w = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    rho = torch.tensor([0.1])
    optimizer = Lookbehind(torch.optim.SGD([w], lr=0.1), Ball(rho), k=2)

    def closure():
        losses = w.square().sum(1) * float("nan")
        (w.grad,) = torch.autograd.grad(losses.sum(), w)
        return losses

    optimizer.step(closure)
    assert optimizer.rolled_back.tolist() == [True]
    assert w.tolist() == [[1.0, 2.0]]


def test_one_loss_for_all_members_is_allowed_and_another_shape_is_not():
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1), torch.full((3,), 0.1))

    def closure(shape):
        def evaluate():
            (w.grad,) = torch.autograd.grad(w.square().sum(), w)
            return torch.ones(shape)

        return evaluate

    optimizer.step(closure(()))
    with pytest.raises(ValueError, match=r"one per member; got shape \(2,\)"):
        optimizer.step(closure((2,)))


def test_rolled_back_tells_nothing_without_members():
    w = nn.Parameter(torch.ones(3, 2))
    optimizer = SAM(torch.optim.SGD([w], lr=0.1), torch.full((3,), 0.1))
    closure = member_closure([w], lambda w: w.square().sum(1))
    optimizer.step(closure)
    assert optimizer.rolled_back.tolist() == [False] * 3
    optimizer.ball = Ball(0.1)
    optimizer.step(closure)
    assert optimizer.rolled_back is None


# --- events, around -----------------------------------------------------------------------------


def recorded(method, k=2, **options):
    problem = mlp()
    events = []

    def observe(event):
        weights = [p.detach().clone() for p in event.params]
        grads = [None if p.grad is None else p.grad.clone() for p in event.params]
        events.append((event, weights, grads))

    base = make_base("sgd", problem.params)
    optimizer = METHODS[method](base, k=k, observers=[observe], **options)
    before = problem.weights
    loss = optimizer.step(problem.closure())
    return problem, events, before, loss


@pytest.mark.parametrize("method", ["Lookbehind", "Lookbehind 2k", "Lookbehind adaptive"])
def test_observers_see_the_path_of_lookbehind(method):
    problem, events, before, loss = recorded(method)
    kinds = [(event.kind, event.i) for event, _, _ in events]
    assert kinds == [
        ("slow", 0),
        ("gradient", 0),
        ("ascent", 1),
        ("gradient", 1),
        ("descent", 1),
        ("ascent", 2),
        ("gradient", 2),
        ("descent", 2),
        ("slow", 1),
    ]
    by = {
        kind: (event, weights, grads)
        for kind, (event, weights, grads) in zip(kinds, events, strict=True)
    }
    assert identical(by["slow", 0][1], before)
    assert by["gradient", 0][0].loss == loss
    for i in range(3):
        event, weights, grads = by["gradient", i]
        expected_loss, expected = problem.gradient()(weights)
        assert event.loss == expected_loss
        assert difference(grads, expected) < 1e-14
    fast = before
    for i in (1, 2):
        assert identical(by["ascent", i][1], by["gradient", i][1])
        fast = [w - 0.05 * g for w, g in zip(fast, by["gradient", i][2], strict=True)]
        assert difference(by["descent", i][1], fast) < 1e-14
    final, weights, _ = by["slow", 1]
    assert identical(weights, problem.weights)
    assert len(final.alpha) == len(before)
    for alpha, w, s, f in zip(final.alpha, weights, before, by["descent", 2][1], strict=True):
        assert difference([w], [s + alpha * (f - s)]) < 1e-14


def test_observers_see_the_path_of_multistep():
    _, events, before, _ = recorded("Multistep last")
    kinds = [(event.kind, event.i) for event, _, _ in events]
    climb = [("ascent", 1), ("gradient", 1), ("ascent", 2), ("gradient", 2)]
    assert kinds == [("slow", 0), ("gradient", 0), *climb, ("descent", 1), ("slow", 1)]
    expected = [w - 0.05 * g for w, g in zip(before, events[5][2], strict=True)]
    assert difference(events[6][1], expected) < 1e-14
    assert identical(events[7][1], events[6][1])


def test_observers_see_the_path_of_lookahead():
    problem, events, before, _ = recorded("Lookahead")
    kinds = [(event.kind, event.i) for event, _, _ in events]
    assert kinds == [("slow", 0), ("descent", 1), ("descent", 2), ("slow", 1)]
    assert identical(events[0][1], before)
    assert identical(events[3][1], problem.weights)
    assert events[3][0].alpha == [0.5] * len(before)


def test_observers_change_nothing():
    problem = mlp()
    seen = []

    def lookbehind(observers):
        return lambda q: Lookbehind(
            make_base("momentum", q.params), Ball(0.1), alpha="adaptive", observers=observers
        )

    watched = trained(problem, lookbehind([seen.append]))
    assert identical(watched, trained(problem, lookbehind([])))
    assert len(seen) == 2 * (3 + 3 * 5)


@pytest.mark.parametrize(
    ("method", "entered"),
    [
        ("SAM", [0, 1]),
        ("Multistep mean", [0, 1, 2, 3]),
        ("Lookbehind", [0, 1, 2, 3]),
        ("Lookbehind 2k", [0, 1, 1, 2, 2, 3]),
    ],
)
def test_around_is_entered_with_the_number_of_ascents(method, entered):
    problem = mlp()
    seen, inside = [], []

    @contextmanager
    def around(i):
        seen.append(i)
        inside.append(i)
        yield
        inside.pop()

    closure = problem.closure()

    def watched():
        assert inside == seen[-1:]
        return closure()

    METHODS[method](make_base("sgd", problem.params), around=around).step(watched)
    assert seen == entered
    assert not inside


def test_around_can_freeze_the_batch_norm_statistics():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    problem = Problem(model, [(x, y)])

    @contextmanager
    def frozen(i):
        model[1].momentum = 0.1 if i == 0 else 0.0
        yield

    expected = 0.1 * model[0](x).mean(0)
    Lookbehind(make_base("sgd", problem.params), Ball(0.5), around=frozen).step(problem.closure())
    assert difference([model[1].running_mean], [expected.detach()]) < 1e-12


# --- precision and layout -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_channels_last_parameters_keep_their_strides(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    plain = Problem(model, [(torch.randn(5, 3, 6, 6).double(), torch.randint(3, (5,)))])
    problem = copy.deepcopy(plain)
    problem.model.to(memory_format=torch.channels_last)
    strides = [p.stride() for p in problem.params]
    assert strides != [p.stride() for p in plain.params]
    optimizers = [METHODS[method](make_base("momentum", q.params)) for q in (plain, problem)]
    for _ in range(3):
        for optimizer, q in zip(optimizers, (plain, problem), strict=True):
            optimizer.step(q.closure())
    assert [p.stride() for p in problem.params] == strides
    assert difference(problem.weights, plain.weights) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_trains(method):
    problem = mlp(dtype=torch.bfloat16)
    problem.loss = lambda out, y: nn.functional.cross_entropy(out.float(), y)
    optimizer = METHODS[method](make_base("momentum", problem.params))
    losses = [optimizer.step(problem.closure()).item() for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.bfloat16 for p in problem.params)


def test_a_member_in_bfloat16_is_what_it_would_be_alone():
    torch.manual_seed(0)
    value = torch.randn(3, 4000, dtype=torch.bfloat16)
    for ball in (Ball, AdaptiveBall):
        rho = torch.tensor([0.1, 0.5, 1.0])
        together = nn.Parameter(value.clone())
        optimizer = Lookbehind(torch.optim.SGD([together], lr=0.1), ball(rho), k=2)
        optimizer.step(member_closure([together], lambda w: w.float().square().sum(-1)))
        for e in range(3):
            alone = nn.Parameter(value[e].clone())
            single = Lookbehind(torch.optim.SGD([alone], lr=0.1), ball(rho[e].item()), k=2)
            single.step(member_closure([alone], lambda w: w.float().square().sum(-1)))
            assert difference([together[e]], [alone]) <= 0.02


# --- what isn't to be moved ---------------------------------------------------------------------


@examples(30)
@given(
    mlps(), st.sampled_from(sorted(METHODS)), ALPHA, st.sampled_from(["sgd", "momentum", "adam"])
)
def test_a_zero_gradient_moves_nothing(problem, method, alpha, base):
    optimizer = METHODS[method](make_base(base, problem.params), alpha=alpha)
    before = problem.weights

    def closure():
        for p in problem.params:
            p.grad = torch.zeros_like(p)
        return torch.zeros(())

    for _ in range(2):
        optimizer.step(closure)
    assert identical(problem.weights, before)


@pytest.mark.parametrize("base", ["momentum wd", "adamw", "adam wd", "rmsprop"])
@pytest.mark.parametrize("method", METHODS)
def test_frozen_and_unused_parameters_are_untouched(method, base):
    """A frozen one even with a stale gradient and weight decay; an unused one has no gradient."""
    problem = mlp()
    problem.params[0].grad = torch.ones_like(problem.params[0])
    problem.params[0].requires_grad_(False)
    unused = nn.Parameter(torch.randn(3, dtype=torch.float64))
    optimizer = METHODS[method](make_base(base, [*problem.params, unused]))
    before = [problem.weights[0], unused.detach().clone()]
    moving = problem.weights[1:]
    inner = problem.closure()

    def closure():
        stale = problem.params[0].grad
        loss = inner()
        problem.params[0].grad = stale
        return loss

    for _ in range(2):
        optimizer.step(closure)
    assert identical([problem.params[0], unused], before)
    assert all((a != b).any() for a, b in zip(problem.weights[1:], moving, strict=True))


@examples(10)
@given(mlps())
def test_a_parameter_frozen_or_freed_later_counts_from_then_on(problem):
    assume(len(problem.params) > 2)
    optimizer = Lookbehind(make_base("momentum wd", problem.params), AdaptiveBall(0.1), k=2)
    optimizer.step(problem.closure())
    problem.params[0].requires_grad_(False)
    before = problem.weights
    optimizer.step(problem.closure())
    assert identical(problem.weights[:1], before[:1])
    problem.params[0].requires_grad_(True)
    optimizer.step(problem.closure())
    assert not identical(problem.weights[:1], before[:1])
