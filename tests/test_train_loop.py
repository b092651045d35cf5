"""`fit`: one loop for the whole family, equal budgets, stops, wrong arguments."""

import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from training import FAMILY, MINIBATCHES, SPLITS, X, Y, family, model_and, weights

from lookbehind import Ball, Lookahead
from lookbehind.train import (  # fmt: skip
    MultiStep,
    Run,
    Session,
    constant,
    cosine,
    evaluate,
    fit,
    grouped,
)


@family
def test_training_lowers_the_loss(name: str) -> None:
    model, optimizer = model_and(name)
    history = fit(model, optimizer, MINIBATCHES, gradients=240, splits=SPLITS)
    assert history.last("train").loss < 0.7 * history.of("train")[0].loss
    assert not history.stopped


@family
def test_the_loop_is_the_plain_loop(name: str) -> None:
    """The independent oracle: the loop that a user would write for this optimizer."""
    ours, optimizer = model_and(name)
    fit(ours, optimizer, MINIBATCHES, gradients=24, splits={}, schedule=constant)
    plain, optimizer = model_and(name)

    def closure_of(minibatch: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
        def closure() -> Tensor:
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
def test_the_budget_counts_gradients(name: str) -> None:
    model, optimizer = model_and(name)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(model.training))
    seen: list[int] = []
    history = fit(
        model, optimizer, MINIBATCHES, gradients=24, splits=SPLITS, records=2,
        callbacks=[lambda run: seen.append(run.gradients)],
    )  # fmt: skip
    a_step = FAMILY[name][1]
    assert sum(calls) == 24
    assert seen == list(range(a_step, 25, a_step))
    assert [r.gradients for r in history.of("train")] == [0, 12, 24]


def test_the_last_step_is_finished() -> None:
    history = fit(*model_and("Lookbehind"), MINIBATCHES, gradients=5, splits=SPLITS)
    assert history.last("train").gradients == 8


def test_the_schedule_scales_the_first_lr_by_the_share_of_the_budget() -> None:
    model, optimizer = model_and("SAM", lr=0.1)
    rates: list[float] = []
    callback = lambda *_: rates.append(optimizer.param_groups[0]["lr"])  # noqa: E731
    fit(model, optimizer, MINIBATCHES, gradients=8, splits={}, callbacks=[callback])
    assert rates == pytest.approx(
        [0.1 * (1 + math.cos(math.pi * p)) / 2 for p in (0, 1 / 4, 1 / 2, 3 / 4)]
    )
    assert (cosine(0), cosine(1), constant(0.3)) == (1, 0, 1)


def test_settings_may_be_changed_by_a_callback_for_the_next_step() -> None:
    model, optimizer = model_and("Lookbehind")
    seen: list[int] = []

    def callback(run: Run) -> None:
        seen.append(run.gradients)
        optimizer.k, optimizer.ball, optimizer.alpha = 1, Ball(0.01), 0.2
        optimizer.param_groups[0]["initial_lr"] = 0.05

    fit(
        model,
        optimizer,
        MINIBATCHES,
        gradients=10,
        splits={},
        schedule=constant,
        callbacks=[callback],
    )
    assert seen == [4, 6, 8, 10]
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_stop_ends_after_the_current_step_and_keeps_history_and_weights() -> None:
    model, optimizer = model_and("Lookbehind")
    start = weights(model)
    seen: list[int] = []
    history = fit(
        model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS,
        callbacks=[lambda run: seen.append(run.gradients)],
        session=Session(stop=lambda: len(seen) == 10),
    )  # fmt: skip
    assert history.stopped
    assert seen[-1] == 40
    assert history.last("train").gradients == 40
    assert not torch.equal(weights(model), start)


def test_ctrl_c_finishes_the_step_under_way() -> None:
    model, optimizer = model_and("Lookbehind")
    kept: list[Tensor] = []

    def interrupting(logits: Tensor, labels: Tensor) -> Tensor:
        if len(kept) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            kept.append(logits)  # once only
        return cross_entropy(logits, labels)

    before = signal.getsignal(signal.SIGINT)
    history = fit(
        model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, loss=interrupting,
        callbacks=[lambda run: kept.append(weights(model))],
    )  # fmt: skip
    assert history.stopped
    assert len(kept) == 5
    other, optimizer = model_and("Lookbehind")
    seen: list[int] = []
    fit(
        other, optimizer, MINIBATCHES, gradients=400, splits={},
        callbacks=[lambda run: seen.append(run.gradients)],
        session=Session(stop=lambda: len(seen) == 4),
    )  # fmt: skip
    assert torch.equal(weights(model), weights(other))
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_ctrl_c_ends_at_once_with_the_weights_of_the_last_whole_step() -> None:
    model, optimizer = model_and("Lookbehind")
    kept: list[Tensor] = []

    def breaking(logits: Tensor, labels: Tensor) -> Tensor:
        if len(kept) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, labels)

    history = fit(
        model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, loss=breaking,
        callbacks=[lambda run: kept.append(weights(model))],
    )  # fmt: skip
    assert history.stopped
    assert torch.equal(weights(model), kept[-1])


def test_the_same_run_twice_gives_the_same_history() -> None:
    runs = [fit(*model_and("Lookbehind"), MINIBATCHES, gradients=80, splits=SPLITS) for _ in "ab"]
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="the loss on train is not finite after"):
        fit(*model_and("SGD", lr=math.inf), MINIBATCHES, gradients=100, splits=SPLITS)


class EndsEarly:
    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Any:
        return iter([])


def test_empty_data_is_an_error_not_an_endless_loop() -> None:
    for empty in ([], iter(MINIBATCHES)):
        with pytest.raises(ValueError, match="batches must have a length ≥ 1"):
            fit(*model_and("SGD"), empty, gradients=100, splits={})
    with pytest.raises(ValueError, match=r"batches must give 5 minibatches, .* ended after 0"):
        fit(*model_and("SGD"), EndsEarly(), gradients=100, splits={})
    with pytest.raises(ValueError, match="batches must hold at least one image"):
        evaluate(model_and("SGD")[0], [])


@pytest.mark.parametrize("name", ["gradients", "records"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError)])
def test_wrong_counts_are_named(name: str, value: object, error: type[Exception]) -> None:
    arguments = {"gradients": 10} | {name: value}
    with pytest.raises(error, match=f"{name} must be"):
        fit(*model_and("SGD"), MINIBATCHES, splits={}, **arguments)


def test_batches_may_be_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=20)
    history = fit(*model_and("SGD"), loader, gradients=9, splits={"train": loader})
    assert history.last("train").gradients == 9


def test_a_budget_in_epochs_counts_minibatches_and_records_every_epoch() -> None:
    model, optimizer = model_and("Lookbehind")
    seen: list[tuple[float, int, int]] = []
    history = fit(
        model, optimizer, MINIBATCHES, epochs=3, splits=SPLITS,
        callbacks=[lambda run: seen.append((run.epoch, run.images, run.minibatches))],
    )  # fmt: skip
    assert seen == [(pytest.approx(n / 6), 10 * n, n) for n in range(1, 19)]
    assert [r.epoch for r in history.of("train")] == [0, 1, 2, 3]
    assert [r.gradients for r in history.of("train")] == [0, 24, 48, 72]


def test_every_epoch_is_announced_to_who_wants_to_know() -> None:
    class Announced(list[Any]):
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

    epochs: list[int] = []
    fit(*model_and("SAM"), Announced(MINIBATCHES), epochs=3, splits={})
    assert epochs == [0, 1, 2]


def test_multistep_is_the_official_scripts_schedule() -> None:
    parameter = [torch.zeros(1, requires_grad=True)]
    base = torch.optim.SGD(parameter, lr=0.1)
    official = torch.optim.lr_scheduler.MultiStepLR(base, milestones=[50, 100, 150], gamma=0.1)
    for epoch in range(200):
        assert 0.1 * MultiStep()(epoch / 200) == pytest.approx(base.param_groups[0]["lr"])
        base.step()
        official.step()


def test_the_bar_counts_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    fit(
        *model_and("Lookbehind"),
        MINIBATCHES,
        gradients=10,
        splits=SPLITS,
        session=Session(progress=True),
    )
    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "train=" in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 2, "gradients": 5}, "exactly one of epochs and gradients .* epochs=2"),
        ({}, "exactly one of epochs and gradients"),
        ({"epochs": 0}, "epochs must be an int ≥ 1, got 0"),
        ({"epochs": 1, "statistics": "fast"}, "statistics must be .* got 'fast'"),
        ({"epochs": 1, "autocast": torch.float64}, "autocast must be torch.bfloat16, .* or None"),
        ({"epochs": 1, "resume": True}, "checkpoint must name the file"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(*model_and("SGD"), MINIBATCHES, splits={}, **grouped(**wrong))
