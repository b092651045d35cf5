"""Scores at the slow weights, histories, and BatchNorm's statistics during `fit`."""

import contextlib
import copy
import functools
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training import MINIBATCHES, SPLITS, X, Y, model_and, weights

from lookbehind import SAM, Ball, Lookbehind
from lookbehind.scores import History, Record
from lookbehind.train import Setup, evaluate, fit, frozen_statistics  # fmt: skip


def test_evaluate_weighs_every_image_alike_and_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).double()
    before = copy.deepcopy(model.state_dict())
    uneven = [(X[:50], Y[:50]), (X[50:], Y[50:])]
    score = evaluate(model, uneven)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    logits = model.eval()(X).detach()
    assert score.loss == pytest.approx(float(cross_entropy(logits, Y)), abs=1e-12)
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == Y).double().mean()))
    assert evaluate(model, uneven) == score
    assert not model.training
    with pytest.raises(RuntimeError):
        evaluate(model.train(), [(X[:, :3], Y)])
    assert model.training


def test_history_early_stopping_and_rows():
    def record(gradients, split, accuracy):
        return Record(gradients / 10, gradients, split, 1.0, accuracy)

    history = History(
        (
            record(0, "validation", 0.1), record(0, "test", 0.15),
            record(5, "validation", 0.8), record(5, "test", 0.7),
            record(9, "validation", 0.8), record(9, "test", 0.9),
        )
    )  # fmt: skip
    assert history.best("test", by="validation") == record(5, "test", 0.7)
    assert history.last("test").accuracy == 0.9
    with pytest.raises(ValueError, match=r"split must be one of \['validation', 'test'\]"):
        history.of("train")


def normed():
    torch.manual_seed(0)
    layers = {"first": nn.Linear(4, 6), "norm": nn.BatchNorm1d(6), "tanh": nn.Tanh()}
    model = nn.Sequential(OrderedDict(layers, last=nn.Linear(6, 3))).double()
    return model, Lookbehind(torch.optim.SGD(model.parameters(), lr=0.1), Ball(0.1), k=2)


@pytest.mark.parametrize(("statistics", "updates"), [("slow", 1), ("every", 3)])
def test_running_statistics_are_those_at_the_slow_weights(statistics, updates):
    model, optimizer = normed()
    inputs = []
    model.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    fit(model, optimizer, MINIBATCHES[:1], epochs=1, splits={}, setup=Setup(statistics=statistics))
    expected = torch.zeros(6, dtype=torch.float64)
    for features in inputs[:updates]:
        expected = 0.9 * expected + 0.1 * features.mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected, rtol=0, atol=1e-15)
    assert model.norm.num_batches_tracked == updates
    assert len(inputs) == 3


def test_where_the_statistics_go_does_not_change_the_weights():
    ends = []
    for statistics in ("slow", "every"):
        model, optimizer = normed()
        fit(model, optimizer, MINIBATCHES, epochs=2, splits={}, setup=Setup(statistics=statistics))
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_frozen_statistics_serve_an_optimizers_around():
    model, _ = normed()
    statistics = lambda i: frozen_statistics(model) if i else contextlib.nullcontext()  # noqa: E731
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = Lookbehind(base, Ball(0.1), k=2, around=statistics)
    fit(model, optimizer, MINIBATCHES, epochs=1, splits={}, setup=Setup(statistics="every"))
    other, optimizer = normed()
    fit(other, optimizer, MINIBATCHES, epochs=1, splits={})
    assert torch.equal(model.norm.running_var, other.norm.running_var)
    assert model.norm.track_running_stats
    with pytest.raises(KeyError), frozen_statistics(model):
        raise KeyError
    assert model.norm.track_running_stats


def test_scores_are_at_the_slow_weights_and_know_no_label_smoothing():
    model, optimizer = model_and("Lookbehind")
    smooth = functools.partial(cross_entropy, label_smoothing=0.3)
    history = fit(model, optimizer, MINIBATCHES, epochs=2, splits=SPLITS, loss=smooth)
    last, score = history.last("train"), evaluate(model, SPLITS["train"])
    assert (last.loss, last.accuracy) == (score.loss, score.accuracy)
    assert last.loss == pytest.approx(cross_entropy(model(X), Y).item())
    plain, optimizer = model_and("Lookbehind")
    fit(plain, optimizer, MINIBATCHES, epochs=2, splits=SPLITS)
    assert not torch.equal(weights(plain), weights(model))


def test_bf16_on_a_cpu_trains_and_scores_under_autocast():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    kinds = []
    model.register_forward_hook(lambda *args: kinds.append(args[2].dtype))
    data = [(x.float(), y) for x, y in MINIBATCHES]
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1))
    fit(model, optimizer, data, epochs=1, splits={"train": data}, setup=Setup(torch.bfloat16))
    assert set(kinds) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
