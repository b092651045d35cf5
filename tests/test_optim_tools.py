"""A `torch.optim.Optimizer`, whatever the base, schedule, tensors and tools; the recipes."""

import copy
import pickle
import re
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import numpy as np
import problems
import pytest
import torch
from problems import METHODS, around_mlp, difference, identical, make_base, mlp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as schedulers
from torch.optim import optimizer as everywhere
from torch.utils.data import DataLoader, TensorDataset

from lookbehind import SAM, AdaptiveBall, Ball, Lookbehind

RECIPES = (Path(__file__).parents[1] / ".github" / "RECIPES.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"## (.*?)\n.*?```python\n(.*?)```", RECIPES, re.DOTALL))
SCHEDULES = {
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=8),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LambdaLR(o, lambda t: t / 3), schedulers.ExponentialLR(o, 0.5)], [3]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", ["Lookbehind adaptive", "Lookahead"])
def test_a_scheduler_wraps_an_optimizer_or_its_base_alike(method, schedule):
    """Learning rates as of the base alone; the weights are the same by either way."""
    copies, paths = [mlp(), mlp(), mlp()], []
    for problem, wraps in zip(copies, ("outer", "base", "plain"), strict=True):
        base = make_base("momentum", problem.params, lr=0.1)
        optimizer = base if wraps == "plain" else METHODS[method](base)
        scheduler = SCHEDULES[schedule](base if wraps == "base" else optimizer)
        paths.append([])
        for loss in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0):
            optimizer.step(problem.closure())
            scheduler.step(*[loss] * (schedule == "ReduceLROnPlateau"))
            paths[-1].append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
    assert paths[0] == paths[1] == paths[2]
    assert len({lr for ((lr, _),) in paths[0]}) > 1
    assert identical(copies[0].weights, copies[1].weights)
    assert all(p.isfinite().all() for p in copies[0].params)


@pytest.mark.parametrize("method", METHODS)
def test_step_hooks_run_once_an_outer_step(method):
    (problem, optimizer), seen = around_mlp(method, "sgd"), []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(("pre", o)))
    optimizer.register_step_post_hook(lambda o, *_: seen.append(("post", o)))
    with (
        everywhere.register_optimizer_step_pre_hook(lambda o, *_: seen.append(("any pre", o))),
        everywhere.register_optimizer_step_post_hook(lambda o, *_: seen.append(("any post", o))),
    ):
        for t in range(2):
            optimizer.step(problem.closure())
            own = [name for name, by in seen if by is not optimizer.base]
            assert own == ["any pre", "pre", "post", "any post"] * (t + 1)


@pytest.mark.parametrize("method", METHODS)
def test_groups_state_and_defaults_are_the_bases_and_a_person_reads_what_it_is(method):
    problem = mlp()
    base = make_base("momentum", problem.params[:2], lr=0.07)
    optimizer = METHODS[method](base)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.defaults is base.defaults
    optimizer.step(problem.closure())
    late = problem.params[2:]
    before = [p.detach().clone() for p in late]
    optimizer.add_param_group({"params": late, "lr": 0.01})
    optimizer.step(problem.closure())
    assert optimizer.param_groups is base.param_groups and len(base.param_groups) == 2
    assert optimizer.state is base.state and set(base.state) == set(problem.params)
    assert difference(late, before) > 0
    told = repr(optimizer)
    assert told.startswith(f"{type(optimizer).__name__}(") and "k=" in told
    assert "rho=0.1" in told and "SGD (" in told and "lr: 0.07" in told and "tensor(" not in told


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("method", METHODS)
def test_a_copy_goes_on_as_the_optimizer_does(method, way):
    """Beside a scheduler and hooks, which stay with the optimizer that they were given to."""
    (problem, optimizer), hooked = around_mlp(method, "adamw"), []
    schedulers.StepLR(optimizer, 1)
    optimizer.register_step_post_hook(lambda *_: hooked.append(1))
    optimizer.step(problem.closure())
    again, twin = way((problem, optimizer))
    for o, p in ((optimizer, problem), (twin, again)):
        o.step(p.closure())
    assert identical(problem.weights, again.weights) and len(hooked) == 2
    assert repr(twin) == repr(optimizer)


def test_hooks_of_a_state_dict_run():
    problem, seen = mlp(), []
    optimizer = SAM(make_base("momentum", problem.params))
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("save"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "mine": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append(state["mine"]))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["save", 1, "loaded"]


def test_numbers_of_numpy_become_plain():
    problem = mlp()
    base = torch.optim.Adam(problem.params, betas=tuple(np.array([0.9, 0.99])))
    optimizer = Lookbehind(base, AdaptiveBall(np.float64(0.1), np.float64(0.2)), k=2)
    optimizer.alpha = np.float64(0.5)
    scheduler = schedulers.LambdaLR(base, lambda t: np.float64(0.5) ** t)
    base.param_groups[0].update(tags=[np.int64(3)], table=np.eye(2), note={"a": np.float32(1)})
    optimizer.step(problem.closure())
    scheduler.step()
    base.state[problem.params[0]]["own"] = np.float64(2)
    assert {type(v) for v in (optimizer.alpha, optimizer.ball.rho, optimizer.ball.eta)} == {float}
    state = problems.through_disk(optimizer.state_dict())
    assert state["param_groups"][0]["lr"] == 0.0005
    optimizer.load_state_dict(state)
    assert optimizer.state[problem.params[0]]["own"] == 2


def test_around_any_optimizer_of_torch_it_is_the_optimizer_where_it_does_not_climb():
    """With each set of options by which torch itself tests it."""
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_optimizers import optim_db

    apart = (torch.optim.LBFGS, torch.optim.SparseAdam)  # their closure, or gradients, are others
    for info in (info for info in optim_db if info.optim_cls not in apart):
        for given in info.optim_inputs_func(device="cpu"):
            copies = [mlp((4, 5), dtype=torch.float32) for _ in range(2)]
            plain, base = (info.optim_cls([q.params[0]], **given.kwargs) for q in copies)
            lookbehind = Lookbehind(base, Ball(0.0), k=1, alpha=1.0)
            for _ in range(3):
                for optimizer, q in zip((plain, lookbehind), copies, strict=True):
                    optimizer.step(q.closure())
            assert identical(copies[1].weights, copies[0].weights), (info, given)
            copy.deepcopy(lookbehind).load_state_dict(lookbehind.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_to_maximize_a_loss_is_to_minimize_its_negative(method):
    copies = [mlp(), mlp()]
    copies[1].loss = lambda out, y: -cross_entropy(out, y)
    for problem, maximize in zip(copies, (True, False), strict=True):
        made = make_base("adam wd", problem.params)
        made.param_groups[0]["maximize"] = maximize
        optimizer = METHODS[method](made, alpha=0.3)
        for _ in range(3):
            optimizer.step(problem.closure())
    assert difference(copies[0].weights, copies[1].weights) < 1e-12


def embedded(sparse):
    table, head = nn.Embedding(10, 4, sparse=sparse).double(), nn.Linear(4, 3).double()
    x, y = torch.tensor([1, 1, 2, 7]), torch.tensor([0, 1, 2, 0])
    return [*table.parameters(), *head.parameters()], lambda *_: cross_entropy(head(table(x)), y)


def mixed(halves):
    """Double precision beside bfloat16, or beside the same numbers in double precision."""
    one = nn.Linear(4, 5).double()
    other = torch.randn(3, 5).bfloat16()
    other = nn.Parameter(other if halves else other.double())
    x, y = torch.randn(6, 4).double(), torch.randint(3, (6,))
    return [*one.parameters(), other], lambda *_: cross_entropy(one(x).tanh() @ other.double().T, y)


def numbers(complex_):
    w, t = torch.randn(2, 5, dtype=torch.complex128)
    p = nn.Parameter(w if complex_ else torch.view_as_real(w).clone())
    whole = torch.clone if complex_ else torch.view_as_complex
    return [p], lambda p: (whole(p) ** 2 - t).abs().square().sum()


def convolution(last):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    x, y = torch.randn(5, 3, 6, 6).double(), torch.randint(3, (5,))
    return [*model.parameters()], lambda *_: cross_entropy(model(x), y)


@pytest.mark.parametrize(
    ("make", "close"), [(embedded, 1e-12), (mixed, 0.05), (numbers, 1e-12), (convolution, 1e-12)]
)
@pytest.mark.parametrize("method", METHODS)
def test_sparse_mixed_complex_and_strided_tensors_go_as_plain_ones_and_stay_so(method, make, close):
    found, kinds = [], []
    for kind in (True, False):
        torch.manual_seed(0)
        params, loss = make(kind)
        optimizer = METHODS[method](torch.optim.SGD(params, lr=0.02, momentum=0.9))
        kinds.append([(p.dtype, p.stride()) for p in params])
        for _ in range(3):
            optimizer.step(problems.closure_of(params, loss))
        assert [(p.dtype, p.stride()) for p in params] == kinds[-1]
        flat = [torch.view_as_real(p) if p.is_complex() else p for p in params]
        found.append([p.detach().double() for p in flat])
    assert difference(*found) < close
    assert kinds[0] != kinds[1] or make is embedded


def test_tensors_may_lie_on_several_devices():
    """Norms meet on the first one; each perturbation stays beside its parameter."""
    with FakeTensorMode():
        places = ["cuda:0", "cuda:1", "cpu"]
        params, grads = ([torch.empty(3, 2, device=d) for d in places] for _ in range(2))
        for ball in (Ball(0.1), AdaptiveBall(0.1)):
            assert str(ball.norm(params, grads).device) == "cuda:0"
            assert [str(w.device) for w in ball.worst(params, grads)] == places


def four_minibatches():
    return mlp(batches=4, dtype=torch.float32)


def by_hand(problem):
    """The weights after two epochs of the plain loop."""
    optimizer = around(problem.params)
    for batch in [0, 1, 2, 3] * 2:
        optimizer.step(problem.closure(batch))
    return problem.weights


def around(params, lr=0.05):
    return Lookbehind(torch.optim.SGD(params, lr=lr, momentum=0.9), Ball(0.1), k=2)


def data(problem):
    return TensorDataset(*map(torch.cat, zip(*problem.batches, strict=True)))


def accelerated(problem, **options):
    """Two epochs."""
    accelerator = pytest.importorskip("accelerate").Accelerator(cpu=True, **options)
    parts = problem.model, around(problem.params), DataLoader(data(problem), 6)
    model, optimizer, loader = accelerator.prepare(*parts)
    for x, y in chain(loader, loader):
        with accelerator.accumulate(model):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = cross_entropy(model(x), y)
                accelerator.backward(loss)
                return loss

            optimizer.step(closure)


def test_accelerate_trains_as_the_plain_loop_does():
    problem = four_minibatches()
    accelerated(problem)
    assert identical(problem.weights, by_hand(four_minibatches()))


def test_where_accelerate_would_skip_minibatches_it_is_refused(monkeypatch):
    monkeypatch.setattr("accelerate.state.GradientState._shared_state", {})
    problem = four_minibatches()
    before = problem.weights
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps must be 1, got 2.*closure"):
        accelerated(problem, gradient_accumulation_steps=2)
    assert identical(problem.weights, before)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_scaler_that_steps_is_refused_with_the_way_to_do_it(enabled):
    problem = mlp(dtype=torch.float32)
    optimizer, scaler = around(problem.params), torch.amp.GradScaler("cpu", enabled=enabled)
    optimizer.step(problem.closure())
    scaler.scale(torch.ones(()))
    before = problem.weights
    refused = pytest.raises(TypeError, match=r"must be optimizer\.step\(closure\).*unscaled")
    with refused if enabled else nullcontext():
        scaler.step(optimizer, problem.closure())
    assert identical(problem.weights, before) == enabled


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
def test_lightning_trains_as_the_plain_loop_does(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    problem = four_minibatches()

    class Module(lightning.LightningModule):
        def training_step(self, batch, _):
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = around(self.parameters())
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    module = Module()
    module.model = problem.model
    trainer.fit(module, DataLoader(data(problem), 6))
    assert identical(problem.weights, by_hand(four_minibatches()))
    assert list(tmp_path.rglob("*.ckpt"))


def test_skorch_trains_as_the_plain_loop_does():
    skorch = pytest.importorskip("skorch")
    problem = four_minibatches()
    options = {"lr": 0.05, "max_epochs": 2, "batch_size": 6, "train_split": None, "verbose": 0}
    net = skorch.NeuralNet(problem.model, nn.CrossEntropyLoss, optimizer=around, **options)
    net.fit(data(problem), None)
    assert identical([*net.module_.parameters()], by_hand(four_minibatches()))


def test_a_compiled_network_trains_as_the_plain_one_does():
    compiled = four_minibatches()
    compiled.model = torch.compile(compiled.model, backend="eager")  # needs no C++ compiler
    assert difference(by_hand(compiled), by_hand(four_minibatches())) < 1e-5


@pytest.mark.parametrize("name", BLOCKS)
def test_a_recipe_learns(name):
    problem = mlp((4, 8, 3), dtype=torch.float32)
    names = {"torch": torch, "model": problem.model, "device": "cpu", "criterion": cross_entropy}
    names["optimizer"] = SAM(torch.optim.SGD(problem.params, lr=0.1))
    names["loader"] = problem.batches * 40
    before = problem.gradient()(problem.weights)[0]
    exec(BLOCKS[name], names)
    assert problem.gradient()(problem.weights)[0] < 0.95 * before
    if "scale" in names:  # one that overflows is halved until it doesn't, and the weights stay
        names["scale"] = 2.0**120
        weights = problem.weights
        exec(BLOCKS[name].split("\n", 1)[1], {**names, "loader": problem.batches * 5})
        assert identical(problem.weights, weights)
