"""Other losses and minibatches than images: a regression, a language model."""

import math
from collections import UserDict, namedtuple
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from measuring import complete, with_weights
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from lookbehind import Ball, Lookbehind, measure
from lookbehind.scores import examples
from lookbehind.train import Ranks, Session, evaluate, fit

V = 7  # words


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


class Language(nn.Module):
    """A small causal language model that returns a dictionary, as many do."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(V, 6)
        self.mix = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, V)

    def forward(self, input_ids, attention_mask):
        x, ahead = self.words(input_ids), torch.ones(2 * input_ids.shape[1:]).triu(1).bool()
        hidden = attention_mask == 0
        return {"logits": self.out(self.mix(x, x, x, attn_mask=ahead, key_padding_mask=hidden)[0])}


def next_word(model, minibatch):
    logits = model(**minibatch)["logits"]
    return cross_entropy(logits[:, :-1].flatten(0, 1), minibatch["input_ids"][:, 1:].flatten())


def language():
    torch.manual_seed(0)
    words = torch.arange(9)[:, None] * torch.tensor([1, 2, 3, 4, 5]) % V
    tokens = [{"input_ids": w, "attention_mask": torch.ones_like(w)} for w in words.split(4)]
    return Language().double(), tokens, {"batch_loss": next_word}


def regression():
    torch.manual_seed(0)
    x = torch.randn(9, 3, dtype=torch.float64)
    y = torch.stack([x.sum(1), x[:, 0] * x[:, 1]], 1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    return model, list(zip(x.split(4), y.split(4), strict=True)), {"loss": mse_loss}


both = pytest.mark.parametrize("problem", [language, regression])


@torch.no_grad()
def mean_loss(model, data, losses):
    """The independent oracle: a loop over minibatches, of 4, 4 and 1 examples."""
    loss = losses.get("batch_loss", lambda model, pair: mse_loss(model(pair[0]), pair[1]))
    return float(sum(loss(model, one) * n for one, n in zip(data, (4, 4, 1), strict=True))) / 9


@both
@pytest.mark.parametrize("sam", [False, True])
def test_fit_trains_and_scores(problem, sam, tmp_path):
    model, data, losses = problem()
    optimizer = Lookbehind(sgd(model), Ball(0.01), k=2) if sam else sgd(model)
    start, session = mean_loss(model, data, losses), Session(tmp_path / "run.pt", progress=True)
    history = fit(model, optimizer, data, epochs=5, splits={"all": data}, session=session, **losses)
    assert history.of("all")[0].loss == pytest.approx(start, rel=1e-12)
    assert history.last("all").loss == pytest.approx(mean_loss(model, data, losses), rel=1e-12)
    assert history.last("all").loss < 0.9 * start
    assert all(math.isnan(record.accuracy) for record in history.records)
    assert history.best("all", by="all").loss == min(record.loss for record in history.records)


@both
def test_landscapes_and_noise(problem, tmp_path):
    model, data, losses = problem()
    w, start = measure.weights_of(model), mean_loss(model, data, losses)
    d, e = (measure.unit(measure.gaussian_direction(model, seed=seed)) for seed in (1, 2))
    found = measure.line(model, data, d, points=3, **losses)
    assert np.load(found.save(tmp_path / "line"))["loss"].tolist() == found.loss.tolist()
    wide = measure.plane(model, data, d, e, points=3, **losses)
    assert found.start.loss == pytest.approx(start, rel=1e-12)
    assert complete(wide) and wide.images == 9 and math.isnan(wide.start.accuracy)
    noisy = measure.weight_noise(model, data, [0.0, 0.1], draws=2, **losses)
    assert noisy.losses[0] == pytest.approx([start, start], rel=1e-12)
    there = mean_loss(with_weights(model, measure.moved(w, (1.0, d))), data, losses)
    assert found.loss[2] == wide.loss[1, 2] == pytest.approx(there, rel=1e-12)
    assert all(map(math.isnan, [*found.accuracy, *noisy.accuracies.flat]))


@both
def test_sharpness_and_curvature_are_of_this_loss(problem):
    model, data, losses = problem()
    objective, start = measure.Objective(model, data, **losses), mean_loss(model, data, losses)
    w, slope = objective.weights, objective.gradient()[1]
    top = measure.hessian_eigenpairs(model, data, **losses)
    (value,), (v,) = top.values, top.vectors
    up, down = (objective.gradient(measure.moved(w, (h, v)))[1] for h in (1e-5, -1e-5))
    for n, d in v.items():
        expected = (up[n] - down[n]) / 2e-5
        torch.testing.assert_close(value * d, expected, rtol=0, atol=1e-6 * value)
    few = {"draws": 2, **losses}
    sizes, by = [t.numel() for t in w.values()], torch.Generator().manual_seed(0)
    signs = (2 * torch.randint(2, (sum(sizes),), generator=by) - 1).split(sizes)
    probe = {n: some.view_as(w[n]).to(w[n]) for n, some in zip(w, signs, strict=True)}
    first = measure.hessian_trace(model, data, **few).values[0]
    assert first == pytest.approx(measure.dot(probe, objective.curvature(probe)), rel=1e-9)
    noisy = measure.weight_noise(model, data, [0.1], relative=False, **few)
    mean = measure.average_rise(model, data, 0.1, **few)
    assert mean.values == pytest.approx(noisy.losses[0] - start, rel=1e-9)
    rise = measure.worst_rise(model, data, Ball(0.05), **losses)
    worst = measure.moved(w, (0.05 / math.sqrt(measure.dot(slope, slope)), slope))
    there = mean_loss(with_weights(model, worst), data, losses)
    assert rise == pytest.approx(there - start, rel=1e-9) and rise > 0


Pair = namedtuple("Pair", ["inputs", "targets"])


@pytest.mark.parametrize(
    ("minibatch", "count"),
    [
        ((torch.zeros(5, 2), torch.zeros(5)), 5),
        ({"name": "a", "x": [torch.zeros(3), torch.zeros(4)]}, 3),
        (UserDict(x=torch.zeros(2, 7)), 2),
        (Pair({"a": torch.zeros(6)}, None), 6),
        ([None, ((torch.zeros(1),),)], 1),
    ],
)
def test_examples_are_counted_in_the_first_tensor(minibatch, count):
    assert examples(minibatch) == count
    loss = Mock(side_effect=lambda model, got: model.weight.sum())
    objective = measure.Objective(nn.Linear(1, 1), [minibatch], batch_loss=loss)
    assert objective.images == count
    objective.score()
    kind = dict if isinstance(minibatch, UserDict) else type(minibatch)
    assert isinstance(loss.call_args.args[1], kind)


@pytest.mark.parametrize("minibatch", [{}, (None, "a"), [torch.zeros(())]])
def test_a_minibatch_without_examples_is_named(minibatch):
    with pytest.raises(ValueError, match="must hold a tensor of examples"):
        measure.Objective(nn.Linear(1, 1), [minibatch])


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(6, dtype=torch.int64)
UNFIT = {  # outputs, targets, a loss for them
    "float targets (B, 1)": (1, torch.rand(6, 1), mse_loss),
    "float targets (B,)": (3, torch.rand(6), lambda out, y: mse_loss(out[:, 0], y)),
    "probabilities": (3, torch.rand(6, 3).softmax(1), cross_entropy),
    "labels (B, 1)": (3, LABELS[:, None], lambda out, y: cross_entropy(out, y[:, 0])),
    "labels of bytes": (3, LABELS.byte(), lambda out, y: cross_entropy(out, y.long())),
    "one class": (1, LABELS, lambda out, y: out.square().mean()),
    "none": (2, None, lambda out, y: out.square().mean()),
}
CALLS = {
    "objective": lambda model, data, **o: measure.Objective(model, data, **o).loss(),
    "evaluate": evaluate,
    "fit": lambda model, data, **o: fit(model, sgd(model), data, epochs=1, splits={}, **o),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", UNFIT)
def test_what_the_default_loss_does_not_fit_is_refused_and_works_with_its_own(name, call):
    outputs, targets, loss = UNFIT[name]
    model = nn.Linear(4, outputs)
    with pytest.raises(ValueError, match=r"default loss, cross-entropy, needs .* Give loss= or"):
        CALLS[call](model, [(X, targets)])
    CALLS[call](model, [(X, targets)], loss=loss)
    CALLS[call](model, [(X, targets)], batch_loss=lambda model, both: loss(model(both[0]), both[1]))


@pytest.mark.parametrize("call", ["objective", "evaluate"])
@pytest.mark.parametrize("label", [-100, -1, 3])
def test_labels_of_no_class_are_named(label, call):
    labels = torch.tensor([0, 1, 2, 0, 1, label])
    with pytest.raises(ValueError, match=rf"labels from {min(label, 0)} to {max(label, 2)}"):
        CALLS[call](nn.Linear(4, 3), [(X, labels)])


@pytest.mark.parametrize("call", CALLS)
def test_wrong_losses_are_named(call):
    model, data = nn.Linear(4, 3), [(X, LABELS)]
    with pytest.raises(TypeError, match="loss must be a function, got 'mse'"):
        CALLS[call](model, data, loss="mse")
    with pytest.raises(ValueError, match="only one of loss and batch_loss"):
        CALLS[call](model, data, loss=mse_loss, batch_loss=next_word)
    with pytest.raises(ValueError, match=r"\(inputs, targets\) without batch_loss=; got dict"):
        CALLS[call](model, [{"x": X, "y": X}])
    if call != "fit":
        with pytest.raises(ValueError, match=r"mean of a minibatch, a tensor \(\), got \(6, 3\)"):
            CALLS[call](model, data, loss=lambda out, y: out)


def test_accuracy_is_counted_with_any_loss_that_has_labels():
    model, labels = nn.Linear(4, 3), torch.arange(6) % 3
    plain = evaluate(model, [(X, labels)])
    smooth = evaluate(model, [(X, labels)], loss=partial(cross_entropy, label_smoothing=0.5))
    assert smooth.accuracy == plain.accuracy and smooth.loss != plain.loss
    dense = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (3, 2)))  # a label a pixel
    pixels = evaluate(dense, [(X, torch.arange(12).view(6, 2) % 3)], loss=cross_entropy)
    assert math.isnan(pixels.accuracy)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_processes_share_a_minibatch_of_any_structure(count):
    rows = torch.arange(count)
    seen = []
    for rank in range(3):
        ranks = object.__new__(Ranks)  # as one of three, without the others
        ranks.rank, ranks.world = rank, 3
        mine, own = ranks.share({"x": rows, "y": [rows[:, None] + 10, "a"]})
        assert mine["y"][1] == "a" and torch.equal(mine["y"][0][:, 0], mine["x"] + 10)
        assert len(mine["x"]) == max(own, 1)
        seen += mine["x"][:own]
    assert seen == rows.tolist()
    with pytest.raises(ValueError, match=r"B = 2 as first dimension, got \(3,\)"):
        ranks.share((torch.zeros(2, 3), torch.zeros(3)))
