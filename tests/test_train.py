"""`train`: one loop for the whole family, equal budgets, scores at the slow weights."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lookbehind import ASAM, SAM, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.train import History, Record, constant, cosine, evaluate, fit

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
        callbacks=[lambda gradients, records: seen.append(gradients)],
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

    def callback(gradients: int, records: list[Record]) -> None:
        seen.append(gradients)
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
        callbacks=[lambda gradients, records: seen.append(gradients)],
        stop=lambda: len(seen) == 10,
    )  # fmt: skip
    assert history.stopped
    assert seen[-1] == 40
    assert history.last("train").gradients == 40
    assert not torch.equal(weights(model), start)


def test_ctrl_c_keeps_history_and_the_weights_of_the_last_whole_step() -> None:
    model, optimizer = model_and("Lookbehind")
    kept: list[Tensor] = []

    def breaking(logits: Tensor, labels: Tensor) -> Tensor:
        if len(kept) == 3 and torch.is_grad_enabled():
            raise KeyboardInterrupt
        return cross_entropy(logits, labels)

    history = fit(
        model, optimizer, MINIBATCHES, gradients=400, splits=SPLITS, loss=breaking,
        callbacks=[lambda *_: kept.append(weights(model))],
    )  # fmt: skip
    assert history.stopped
    assert len(history.of("train")) == 1
    assert torch.equal(weights(model), kept[-1])


def test_the_same_run_twice_gives_the_same_history() -> None:
    runs = [fit(*model_and("Lookbehind"), MINIBATCHES, gradients=80, splits=SPLITS) for _ in "ab"]
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="the loss on train is not finite after"):
        fit(*model_and("SGD", lr=math.inf), MINIBATCHES, gradients=100, splits=SPLITS)


def test_empty_data_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(ValueError, match="batches must give a minibatch"):
        fit(*model_and("SGD"), iter(MINIBATCHES), gradients=100, splits={})
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
        return Record(gradients, split, 1.0, accuracy)

    history = History(
        (
            record(0, "validation", 0.1), record(0, "test", 0.15),
            record(5, "validation", 0.8), record(5, "test", 0.7),
            record(9, "validation", 0.8), record(9, "test", 0.9),
        )
    )  # fmt: skip
    assert history.best("test", by="validation") == record(5, "test", 0.7)
    assert history.last("test").accuracy == 0.9
    assert history.rows()[1] == {"gradients": 0, "split": "test", "loss": 1.0, "accuracy": 0.15}
    with pytest.raises(ValueError, match=r"split must be one of \['validation', 'test'\]"):
        history.of("train")


def test_batches_may_be_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=20)
    history = fit(*model_and("SGD"), loader, gradients=9, splits={"train": loader})
    assert history.last("train").gradients == 9
