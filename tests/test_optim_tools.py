"""A few steps inside the tools that people train with, and the recipes, as they stand."""

import re
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import pytest
import torch
from problems import difference, identical, mlp
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lookbehind import SAM, Ball, Lookbehind

RECIPES = (Path(__file__).parents[1] / ".github" / "RECIPES.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"## (.*?)\n.*?```python\n(.*?)```", RECIPES, re.DOTALL))


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
    from accelerate.state import GradientState

    monkeypatch.setattr(GradientState, "_shared_state", {})
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
        def __init__(self):
            super().__init__()
            self.model = problem.model

        def training_step(self, batch, _):
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = around(self.parameters())
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    trainer.fit(Module(), DataLoader(data(problem), 6))
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
