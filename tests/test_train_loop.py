"""`train`: one loop for the whole family, equal budgets, scores at the slow weights."""

import contextlib
import copy
import functools
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from problems import one_thread  # noqa: F401
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind import ASAM, SAM, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.scores import History, Record
from lookbehind.train import (
    MultiStep,
    Run,
    Session,
    Setup,
    constant,
    cosine,
    evaluate,
    fit,
    frozen_statistics,
    grouped,
)  # fmt: skip

generator = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=generator, dtype=torch.float64)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
MINIBATCHES = list(zip(X.split(10), Y.split(10), strict=True))
SPLITS = {"train": [(X, Y)]}

Make = Callable[[torch.optim.Optimizer], Any]
FAMILY: dict[str, tuple[Make, int]] = {
    "SGD": (lambda base: base, 1),
    "SAM": (lambda base: SAM(base, 0.05), 2),
    "ASAM": (lambda base: ASAM(base, 0.5), 2),
    "Multistep": (lambda base: MultistepSAM(base, Ball(0.05), k=3), 4),
    "Lookbehind": (lambda base: Lookbehind(base, Ball(0.05), k=3), 4),
    "Lookahead": (lambda base: Lookahead(SAM(base, 0.05), k=3), 6),
}
family = pytest.mark.parametrize("name", FAMILY)


def model_and(name: str, lr: float = 0.1, **options: Any) -> tuple[nn.Module, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    base = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **options)
    return model, FAMILY[name][0](base)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


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


def test_scores_are_taken_at_the_slow_weights() -> None:
    model, optimizer = model_and("Lookbehind")
    history = fit(model, optimizer, MINIBATCHES, gradients=40, splits=SPLITS)
    score = evaluate(model, SPLITS["train"])
    last = history.last("train")
    assert (last.loss, last.accuracy) == (score.loss, score.accuracy)


def test_evaluate_weighs_every_image_alike_and_leaves_the_model_as_it_was() -> None:
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


def test_evaluate_puts_the_mode_back_after_an_error() -> None:
    model = nn.Linear(5, 3)
    with pytest.raises(RuntimeError):
        evaluate(model, [(X, Y)])
    assert model.training


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


def test_history_early_stopping_and_rows() -> None:
    def record(gradients: int, split: str, accuracy: float) -> Record:
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
    row = {"epoch": 0.0, "gradients": 0, "split": "test", "loss": 1.0, "accuracy": 0.15}
    assert history.rows()[1] == row
    with pytest.raises(ValueError, match=r"split must be one of \['validation', 'test'\]"):
        history.of("train")


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


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).tanh())


def normed() -> tuple[Normed, Lookbehind]:
    torch.manual_seed(0)
    model = Normed().double()
    return model, Lookbehind(torch.optim.SGD(model.parameters(), lr=0.1), Ball(0.1), k=2)


@pytest.mark.parametrize(("statistics", "updates"), [("slow", 1), ("every", 3)])
def test_running_statistics_are_those_at_the_slow_weights(statistics: str, updates: int) -> None:
    model, optimizer = normed()
    inputs: list[Tensor] = []
    model.norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    fit(model, optimizer, MINIBATCHES[:1], epochs=1, splits={}, setup=Setup(statistics=statistics))
    expected = torch.zeros(6, dtype=torch.float64)
    for features in inputs[:updates]:
        expected = 0.9 * expected + 0.1 * features.mean(0)
    torch.testing.assert_close(model.norm.running_mean, expected, rtol=0, atol=1e-15)
    assert model.norm.num_batches_tracked == updates
    assert len(inputs) == 3


def test_where_the_statistics_go_does_not_change_the_weights() -> None:
    ends = []
    for statistics in ("slow", "every"):
        model, optimizer = normed()
        fit(model, optimizer, MINIBATCHES, epochs=2, splits={}, setup=Setup(statistics=statistics))
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_frozen_statistics_serve_an_optimizers_around() -> None:
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


def test_scores_know_no_label_smoothing() -> None:
    model, optimizer = model_and("SAM")
    smooth = functools.partial(cross_entropy, label_smoothing=0.3)
    history = fit(model, optimizer, MINIBATCHES, epochs=2, splits=SPLITS, loss=smooth)
    assert history.last("train").loss == pytest.approx(evaluate(model, [(X, Y)]).loss)
    assert history.last("train").loss == pytest.approx(cross_entropy(model(X), Y).item())
    plain, optimizer = model_and("SAM")
    fit(plain, optimizer, MINIBATCHES, epochs=2, splits=SPLITS)
    assert not torch.equal(weights(plain), weights(model))


def test_bf16_on_a_cpu_trains_and_scores_under_autocast() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    kinds = []
    model.register_forward_hook(lambda *args: kinds.append(args[2].dtype))
    data = [(x.float(), y) for x, y in MINIBATCHES]
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1))
    fit(model, optimizer, data, epochs=1, splits={"train": data}, setup=Setup(torch.bfloat16))
    assert set(kinds) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


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
        ({"epochs": 1, "autocast": torch.float16}, "autocast must be torch.bfloat16 or None"),
        ({"epochs": 1, "resume": True}, "checkpoint must name the file"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(*model_and("SGD"), MINIBATCHES, splits={}, **grouped(**wrong))
