"""A step that fails leaves the buffers as they were; float16 scales its loss by itself."""

import copy
import math
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training import FAMILY, Spoiled, X, Y, same, stop_after

from lookbehind import SAM, Ball, Lookbehind
from lookbehind.study import Ensemble, member_cross_entropy
from lookbehind.train import Session, Setup, constant, fit, read_checkpoint
from lookbehind.train.passes import LossScale

X32 = X.float()
DATA = list(zip(X32.split(20), Y.split(20), strict=True))
ONCE = {"epochs": 1, "splits": {}}
HALF = Setup(autocast=torch.float16)
PIXELS = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 1, 2), nn.BatchNorm2d(1))
ROWS = torch.utils.data.TensorDataset(X32[:21], Y[:21])


def model_and(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    return model, FAMILY[name][0](torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def fitted(name, **options):
    """A model after an epoch, or as long as `options` say; its history."""
    model, optimizer = model_and(name)
    return model, fit(model, optimizer, DATA, **ONCE | options)


@pytest.mark.parametrize("statistics", ["slow", "every"])
@pytest.mark.parametrize("name", [name for name in FAMILY if name != "SGD"])
@pytest.mark.parametrize("bad", [0, 1], ids=["at the first gradient", "at the second"])
def test_a_step_that_fails_leaves_statistics_as_they_were(name, statistics, bad):
    model, optimizer = model_and(name)
    fit(model, optimizer, DATA, **ONCE)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError):
        fit(model, optimizer, DATA, **ONCE, loss=Spoiled(bad), setup=Setup(statistics=statistics))
    assert same(model.state_dict(), before)
    fit(model, optimizer, DATA, **ONCE)  # and it can go on
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_buffers_go_back_after_ctrl_c():
    model, history = fitted("SGD", loss=Mock(side_effect=KeyboardInterrupt))
    assert history.stopped and same(model.state_dict(), model_and("SGD")[0].state_dict())


def test_a_member_that_is_put_back_keeps_its_statistics():
    models = [nn.Sequential(nn.Flatten(), model_and("SGD")[0]) for _ in range(3)]
    ensemble, factors = Ensemble(models).train(), torch.tensor([1.0, math.inf, 1.0])
    base = torch.optim.SGD(ensemble.parameters(), lr=0.1)
    before = copy.deepcopy(dict(ensemble.named_buffers()))
    optimizer = Lookbehind(base, Ball(torch.full((3,), 0.05)), k=2)
    batches = [(X32[:20].view(20, 4, 1, 1), Y[:20])]
    fit(ensemble, optimizer, batches, **ONCE, loss=lambda *of: member_cross_entropy(*of) * factors)
    for name, buffer in ensemble.named_buffers():
        moved = [not torch.equal(a, b) for a, b in zip(buffer, before[name], strict=True)]
        assert moved == [True, False, True], name


def steep(logits, labels, most=3000.0):
    """A loss whose gradient overflows where it was multiplied by more than `most`."""
    loss = cross_entropy(logits, labels)
    loss.register_hook(lambda slope: torch.where(slope > most, math.inf, slope))
    return loss


@pytest.mark.parametrize("name", FAMILY)
def test_float16_trains_as_float32_and_lowers_the_scale_where_gradients_overflow(name, monkeypatch):
    scales, options = [], {"epochs": 4, "splits": {"all": [(X32, Y)]}, "schedule": constant}
    session = Session(callbacks=[lambda run: scales.append(run.scale.factor)])
    model, half = fitted(name, loss=steep, setup=HALF, session=session, **options)
    assert set(scales) == {2048.0}  # from 65536, in the first step
    expected = fitted(name, **options)[1].last("all")
    assert half.last("all").loss == pytest.approx(expected.loss, rel=0.02)
    assert half.last("all").gradients == expected.gradients + 5  # five were in vain
    monkeypatch.setattr("lookbehind.train.loop.LossScale", partial(LossScale, 2048.0))
    lower, _ = fitted(name, loss=steep, setup=HALF, **options)
    assert same(model.state_dict(), lower.state_dict())  # what overflowed left no trace


@pytest.mark.parametrize("size", [1e-7, 1e4])
def test_real_gradients_overflow_and_underflow_in_float16(size):
    """No fake: 70 000 is beyond float16, and so is 1e-9 below it."""
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1 / size), 0.01)
    fit(model, optimizer, DATA, **ONCE, loss=Spoiled(factor=size), setup=HALF)
    assert (model.weight - before).abs().min() > 1e-4
    assert model.weight.isfinite().all()


@pytest.mark.parametrize("name", ["SGD", "Lookbehind"])
def test_a_gradient_that_overflows_at_any_scale_ends_the_run_and_so_does_a_bad_loss(name):
    for most in (0.0, 0.5):
        model, optimizer = model_and(name)
        with pytest.raises(FloatingPointError, match="gradient is not finite in float16 at a loss"):
            fit(model, optimizer, DATA, **ONCE, loss=partial(steep, most=most), setup=HALF)
        assert same(model.state_dict(), model_and(name)[0].state_dict())
    loss = Spoiled(factor=math.nan)
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        fitted(name, loss=loss, setup=HALF)
    assert loss.calls == 1  # it is no matter of scale


def test_the_scale_grows_after_good_steps_and_is_kept(tmp_path):
    scale = LossScale(1024.0, 1998)
    for expected in [(1024.0, 1999), (2048.0, 0), (2048.0, 1)]:
        scale.count()
        assert (scale.factor, scale.good) == expected
    assert scale.lower() and (scale.factor, scale.good) == (1024.0, 0)
    path, seen = tmp_path / "run.pt", []
    note = lambda run: seen.append((run.minibatches, run.scale.good))  # noqa: E731
    for stop in (stop_after(3), bool):
        session = Session(path, resume=True, callbacks=[note], stop=stop)
        fitted("SAM", epochs=2, loss=steep, setup=HALF, session=session)
    assert seen == [(n, n) for n in range(1, 7)]
    assert read_checkpoint(path)["scale"] == [2048.0, 6]


def test_an_ensemble_in_float16_is_refused():
    ensemble = Ensemble([model_and("SGD")[0]])
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"autocast must be .* for an ensemble"):
        fit(ensemble, optimizer, DATA, **ONCE, setup=HALF)


def normalizing(layer):
    model = nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.LazyLinear(3))
    model(X32)
    return model, torch.optim.SGD(model.parameters())


@pytest.mark.parametrize("kind", ["list", "loader", "shuffled"])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), PIXELS], ids=["rows", "pixels"])
def test_a_last_minibatch_of_one_is_named_before_the_first_step(layer, kind):
    model, optimizer = normalizing(layer)
    loader = partial(torch.utils.data.DataLoader, ROWS, 20, shuffle=kind == "shuffled")
    batches = list(loader()) if kind == "list" else loader()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match="batches must not end with a minibatch of one example"):
        fit(model, optimizer, batches, **ONCE)
    assert same(model.state_dict(), before) and torch.equal(torch.get_rng_state(), random)
    fit(model, optimizer, loader(drop_last=True), **ONCE)


def test_a_last_minibatch_of_one_that_can_be_normalized_is_taken():
    layer = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1))
    history = fit(*normalizing(layer), list(torch.utils.data.DataLoader(ROWS, 20)), **ONCE)
    assert not history.stopped
