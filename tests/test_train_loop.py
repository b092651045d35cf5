"""`fit`: one loop for the whole family, equal budgets, stops, wrong arguments."""

import math
import os
import signal
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from training import FAMILY, MINIBATCHES, SPLITS, family, model_and, stop_after, weights

from lookbehind import Lookahead
from lookbehind.train import SCHEDULES, Session, constant, cosine, evaluate, fit, grouped


@family
def test_the_loop_is_the_plain_loop(name):
    """The independent oracle: the loop that a user would write for this optimizer."""
    ours, optimizer = model_and(name)
    fit(ours, optimizer, MINIBATCHES, gradients=24, splits={}, schedule=constant)
    plain, optimizer = model_and(name)

    def closure_of(minibatch):
        def closure():
            optimizer.zero_grad()
            loss = cross_entropy(plain(minibatch[0]), minibatch[1])
            loss.backward()
            return loss

        return closure

    drawn = [closure_of(MINIBATCHES[i % 6]) for i in range(24)]
    for step in range(24 // FAMILY[name][1]):
        lookahead = isinstance(optimizer, Lookahead)
        optimizer.step(drawn[3 * step : 3 * step + 3] if lookahead else drawn[step])
    assert torch.equal(weights(ours), weights(plain))


@family
def test_the_budget_counts_gradients_and_the_last_step_is_finished(name):
    model, optimizer = model_and(name)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(model.training))
    seen = []
    history = fit(
        model, optimizer, MINIBATCHES, gradients=23, splits=SPLITS, records=2,
        callbacks=[lambda run: seen.append(run.gradients)],
    )  # fmt: skip
    a_step = FAMILY[name][1]
    assert seen == list(range(a_step, 23 + a_step, a_step)) and sum(calls) == seen[-1]
    assert [r.gradients for r in history.of("train")] == [0, 12, seen[-1]]


def test_a_budget_in_epochs_counts_minibatches_and_announces_and_records_every_epoch():
    class Announced(list[Any]):
        def set_epoch(self, epoch):
            epochs.append(epoch)

    epochs = []
    seen = []
    history = fit(
        *model_and("Lookbehind"), Announced(MINIBATCHES), epochs=3, splits=SPLITS,
        callbacks=[lambda run: seen.append((run.epoch, run.images, run.minibatches))],
    )  # fmt: skip
    assert epochs == [0, 1, 2] and not history.stopped
    assert seen == [(pytest.approx(n / 6), 10 * n, n) for n in range(1, 19)]
    found = [(r.epoch, r.gradients) for r in history.of("train")]
    assert found == [(0, 0), (1, 24), (2, 48), (3, 72)]


def test_the_schedule_scales_the_first_lr_by_the_share_of_the_budget():
    model, optimizer = model_and("SAM", lr=0.1)
    rates = []
    callback = lambda *_: rates.append(optimizer.param_groups[0]["lr"])  # noqa: E731
    fit(model, optimizer, MINIBATCHES, gradients=8, splits={}, callbacks=[callback])
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
    """The history of a run with Ctrl-C in the fourth step, and the weights after each."""
    model, optimizer = model_and("Lookbehind")
    kept = []
    calls = []

    def interrupting(logits, labels):
        calls.append(None)
        if len(calls) == 4 * 3 + 2:  # a step takes 4 gradients
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, labels)

    history = fit(
        model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, loss=interrupting,
        callbacks=[lambda run: kept.append(weights(model))],
    )  # fmt: skip
    assert history.stopped and torch.equal(weights(model), kept[-1])
    return history, kept


def test_ctrl_c_and_a_stop_finish_the_step_under_way():
    before = signal.getsignal(signal.SIGINT)
    _, kept = interrupted_run(presses=1)
    assert len(kept) == 4 and signal.getsignal(signal.SIGINT) == before
    model, optimizer = model_and("Lookbehind")
    session = Session(stop=stop_after(4))
    history = fit(model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, session=session)
    assert history.stopped and history.last("train").gradients == 0
    assert torch.equal(weights(model), kept[-1])


def test_a_second_ctrl_c_ends_at_once_with_the_weights_of_the_last_whole_step():
    assert len(interrupted_run(presses=2)[1]) == 3


class EndsEarly:
    def __len__(self):
        return 5

    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "batches must have a length ≥ 1"),
        (iter(MINIBATCHES), "batches must have a length ≥ 1"),
        (EndsEarly(), "batches must give 5 minibatches, .* ended after 0"),
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
        (
            {"epochs": 1, "perturbation": "own"},
            'perturbation must be "global" or "local", got .own',
        ),
        ({"epochs": 1, "autocast": torch.float64}, "autocast must be torch.bfloat16 or .* or None"),
        ({"epochs": 1, "resume": True}, "checkpoint must name the file"),
    ],
)
def test_wrong_arguments_are_named(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        fit(*model_and("SGD"), MINIBATCHES, splits={}, **grouped(**wrong))
