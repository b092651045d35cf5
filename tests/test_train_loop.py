"""`fit`: one loop for the whole family, equal budgets, stops, scores, BatchNorm's statistics."""

import contextlib
import copy
import functools
import inspect
import math
import os
import signal
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training import FAMILY, MINIBATCHES, SPLITS, Spoiled, X, Y, model_and, stop_after, weights

from lookbehind import SAM, Ball, Lookahead, Lookbehind
from lookbehind.scores import History, Record
from lookbehind.train import SCHEDULES, Session, Setup, constant, cosine, fit, grouped
from lookbehind.train.passes import evaluate, frozen_statistics


@pytest.mark.parametrize("name", FAMILY)
def test_the_loop_is_the_plain_loop(name):
    """The independent oracle: the loop that a user would write for this optimizer."""
    ours, optimizer = model_and(name)
    fit(ours, optimizer, MINIBATCHES, gradients=24, splits={}, schedule=constant)
    plain, optimizer = model_and(name)

    def closure(images, labels):
        optimizer.zero_grad()
        loss = cross_entropy(plain(images), labels)
        loss.backward()
        return loss

    drawn = [functools.partial(closure, *minibatch) for minibatch in 4 * MINIBATCHES]
    for step in range(24 // FAMILY[name][1]):
        lookahead = isinstance(optimizer, Lookahead)
        optimizer.step(drawn[3 * step : 3 * step + 3] if lookahead else drawn[step])
    assert torch.equal(weights(ours), weights(plain))


def test_fit_has_at_most_twelve_parameters():
    assert len(inspect.signature(fit).parameters) <= 12


@pytest.mark.parametrize("name", FAMILY)
def test_the_budget_counts_gradients_and_the_last_step_is_finished(name):
    (model, optimizer), a_step, calls, seen = model_and(name), FAMILY[name][1], [], []
    model.register_forward_pre_hook(lambda *_: calls.append(model.training))
    watch = Session(callbacks=[lambda run: seen.append(run.gradients)])
    options = {"gradients": 23, "splits": SPLITS, "records": 2, "session": watch}
    history = fit(model, optimizer, MINIBATCHES, **options)
    assert seen == list(range(a_step, 23 + a_step, a_step)) and sum(calls) == seen[-1]
    assert [r.gradients for r in history.of("train")] == [0, 12, seen[-1]]


def test_a_budget_in_epochs_counts_minibatches_and_announces_and_records_every_epoch():
    class Announced(list):
        def set_epoch(self, epoch):
            epochs.append(epoch)

    epochs, seen = [], []
    watch = Session(callbacks=[lambda run: seen.append((run.epoch, run.images, run.minibatches))])
    data = Announced(MINIBATCHES)
    history = fit(*model_and("Lookbehind"), data, epochs=3, splits=SPLITS, session=watch)
    assert epochs == [0, 1, 2] and not history.stopped
    assert seen == [(pytest.approx(n / 6), 10 * n, n) for n in range(1, 19)]
    found = [(r.epoch, r.gradients) for r in history.of("train")]
    assert found == [(0, 0), (1, 24), (2, 48), (3, 72)]


def test_the_schedule_scales_the_first_lr_by_the_share_of_the_budget():
    rates = []
    session = Session(callbacks=[lambda run: rates.append(run.optimizer.param_groups[0]["lr"])])
    fit(*model_and("SAM", lr=0.1), MINIBATCHES, gradients=8, splits={}, session=session)
    expected = [0.1 * (1 + math.cos(math.pi * p)) / 2 for p in (0, 1 / 4, 1 / 2, 3 / 4)]
    assert rates == pytest.approx(expected)
    assert (cosine(0), cosine(1), constant(0.3)) == (1, 0, 1)


def test_multistep_is_the_official_scripts_schedule():
    base = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    official = torch.optim.lr_scheduler.MultiStepLR(base, milestones=[50, 100, 150], gamma=0.1)
    for epoch in range(200):
        factor = SCHEDULES["multistep"](epoch / 200)
        assert 0.1 * factor == pytest.approx(base.param_groups[0]["lr"])
        base.step()
        official.step()


def interrupted_run(presses):
    """The weights after each step of a run with Ctrl-C in the fourth."""
    model, optimizer = model_and("Lookbehind")
    kept, plain = [], Spoiled(math.inf)

    def interrupting(logits, labels):
        if plain.calls == 4 * 3 + 1:  # a step takes 4 gradients
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
        return plain(logits, labels)

    watch = Session(callbacks=[lambda run: kept.append(weights(model))])
    options = {"gradients": 400, "splits": SPLITS, "loss": interrupting, "session": watch}
    history = fit(model, optimizer, MINIBATCHES, **options)
    assert history.stopped and torch.equal(weights(model), kept[-1])
    return kept


def test_ctrl_c_and_a_stop_finish_the_step_under_way():
    before = signal.getsignal(signal.SIGINT)
    kept = interrupted_run(presses=1)
    assert len(kept) == 4 and signal.getsignal(signal.SIGINT) == before
    model, optimizer = model_and("Lookbehind")
    session = Session(stop=stop_after(4))
    history = fit(model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, session=session)
    assert history.stopped and history.last("train").gradients == 0
    assert torch.equal(weights(model), kept[-1])


def test_a_second_ctrl_c_ends_at_once_with_the_weights_of_the_last_whole_step():
    assert len(interrupted_run(presses=2)) == 3


class EndsEarly(list):
    __iter__ = lambda self: iter([])  # noqa: E731


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "batches must have a length ≥ 1"),
        (iter(MINIBATCHES), "batches must have a length ≥ 1"),
        (EndsEarly(MINIBATCHES), "batches must give 6 minibatches, .* ended after 0"),
    ],
)
def test_empty_data_is_an_error_not_an_endless_loop(batches, words):
    with pytest.raises(ValueError, match=words):
        fit(*model_and("SGD"), batches, gradients=100, splits={})
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        evaluate(model_and("SGD")[0], [])


def test_the_bar_counts_the_budget(capsys):
    session = Session(progress=True)
    fit(*model_and("Lookbehind"), MINIBATCHES, gradients=10, splits=SPLITS, session=session)
    shown = capsys.readouterr().err
    assert "10/10" in shown and "train=" in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 2, "gradients": 5}, "exactly one of epochs and gradients .* epochs=2"),
        ({}, "exactly one of epochs and gradients"),
        ({"epochs": 0}, "epochs must be an int ≥ 1, got 0"),
        ({"gradients": 1.5}, r"gradients must be an int ≥ 1, got 1\.5"),
        ({"gradients": 9, "records": -3}, "records must be an int ≥ 1, got -3"),
        ({"epochs": 1, "statistics": "fast"}, "statistics must be .* got .fast."),
        ({"epochs": 1, "perturbation": "own"}, 'perturbation .* "global" or "local", got .own'),
        ({"epochs": 1, "autocast": torch.float64}, "autocast must be torch.bfloat16 or .* or None"),
        ({"epochs": 1, "resume": True}, "checkpoint must name the file"),
    ],
)
def test_wrong_arguments_are_named(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        fit(*model_and("SGD"), MINIBATCHES, splits={}, **grouped(**wrong))


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


def test_history_and_early_stopping():
    scores = zip(["validation", "test"] * 3, [0.1, 0.15, 0.8, 0.7, 0.8, 0.9], strict=True)
    records = [Record(i // 2, i, name, 1.0, score) for i, (name, score) in enumerate(scores)]
    history = History(tuple(records))
    assert history.best("test", by="validation") == records[3]
    assert history.last("test") == records[5]
    with pytest.raises(ValueError, match=r"split must be one of \['validation', 'test'\]"):
        history.of("train")


def normed(**options):
    torch.manual_seed(0)
    layers = {"first": nn.Linear(4, 6), "norm": nn.BatchNorm1d(6), "tanh": nn.Tanh()}
    model = nn.Sequential(OrderedDict(layers, last=nn.Linear(6, 3))).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, Lookbehind(base, Ball(0.1), k=2, **options)


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


def test_frozen_statistics_serve_an_optimizers_around_and_leave_the_weights_alone():
    frozen = lambda i: frozen_statistics(runs[2][0]) if i else contextlib.nullcontext()  # noqa: E731
    runs = [normed(), normed(), normed(around=frozen)]
    for run, statistics in zip(runs, ("slow", "every", "every"), strict=True):
        fit(*run, MINIBATCHES, epochs=2, splits={}, setup=Setup(statistics=statistics))
    slow, every, around = (model for model, _ in runs)
    assert torch.equal(weights(every), weights(slow))
    assert torch.equal(around.norm.running_var, slow.norm.running_var)
    assert around.norm.track_running_stats
    with pytest.raises(KeyError), frozen_statistics(around):
        raise KeyError
    assert around.norm.track_running_stats


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
