"""Checkpoints: whole or not at all, read without running code, continued bit for bit."""

import math
import multiprocessing
import pickle
import random
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lookbehind import ASAM, SAM, Ball, Lookahead, Lookbehind, MultistepSAM
from lookbehind.scores import History
from lookbehind.train import (
    CheckpointError,
    MultiStep,
    Session,
    fit,
    grouped,
    read_checkpoint,
    save_checkpoint,
)  # fmt: skip

EPOCHS = 6
FAMILY: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "SGD": lambda base: base,
    "SAM": lambda base: SAM(base, 0.05),
    "ASAM": lambda base: ASAM(base, 0.5),
    "Multistep": lambda base: MultistepSAM(base, Ball(0.05), k=3),
    "Lookbehind": lambda base: Lookbehind(base, Ball(0.05), k=3, alpha="adaptive"),
    "Lookahead": lambda base: Lookahead(SAM(base, 0.05), k=4),
}
BASES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "Adam": partial(torch.optim.Adam, lr=0.01),
}


def problem(method: str = "Lookbehind", base: str = "SGD") -> tuple[nn.Module, Any, DataLoader]:
    """A network with BatchNorm and dropout, and batches that torch's global generator shuffles."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 4), torch.randint(3, (60,))
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3)]
    model = nn.Sequential(*layers)
    optimizer = FAMILY[method](BASES[base](model.parameters()))
    return model, optimizer, DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True)


def trained(path: Path | None, method: str = "Lookbehind", base: str = "SGD", **options: Any):
    model, optimizer, loader = problem(method, base)
    options = {"epochs": EPOCHS, "splits": {"all": [loader.dataset.tensors]}} | options
    history = fit(model, optimizer, loader, **grouped(checkpoint=path, **options))
    return model.state_dict(), optimizer.state_dict(), history


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


class StopAfter:
    """Asks for a stop once, after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", FAMILY)
def test_a_stopped_run_goes_on_bit_for_bit(method: str, base: str, tmp_path: Path) -> None:
    *expected, history = trained(None, method, base)
    path = tmp_path / "new folder" / "run.pt"
    for steps in (0, 3, 5, 3):  # within an epoch and across its end
        *_, part = trained(path, method, base, resume=True, stop=StopAfter(steps))
        assert part.stopped
    torch.manual_seed(99)
    *found, whole = trained(path, method, base, resume=True)
    assert_same(found, expected)
    assert whole == history
    assert [*tmp_path.rglob("*")] == [path.parent, path]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    *first, history = trained(path)
    *again, other = trained(path, resume=True, callbacks=[lambda run: pytest.fail("a step")])
    assert_same(again, first)
    assert other == history


def test_settings_moved_during_the_run_are_continued(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"

    def move(run: Any) -> None:
        if run.minibatches == 5:
            run.optimizer.k, run.optimizer.ball, run.optimizer.alpha = 2, Ball(0.01), 0.7
            run.optimizer.param_groups[0]["initial_lr"] = 0.02

    *expected, _ = trained(None, callbacks=[move])
    trained(path, callbacks=[move], stop=StopAfter(10))
    model, optimizer, loader = problem()
    fit(
        model, optimizer, loader, epochs=EPOCHS, session=Session(path, resume=True),
        splits={"all": [loader.dataset.tensors]},
    )  # fmt: skip
    assert (optimizer.k, optimizer.ball, optimizer.alpha) == (2, Ball(0.01), 0.7)
    assert_same([model.state_dict(), optimizer.state_dict()], expected)


def killed_run(path: Path, epochs: int, nap: float) -> None:
    """What the process below runs until it is killed; the naps let a kill come anywhere."""
    torch.set_num_threads(1)
    trained(path, epochs=epochs, resume=True, callbacks=[lambda run: time.sleep(nap)])


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that has imported this file already and forks a process for each run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # torch loads that late
    return context


def epoch_of(path: Path) -> int:
    return read_checkpoint(path)["position"][0] if path.exists() else 0


def wait_for_a_new_file(path: Path, old: int | None) -> None:
    deadline = time.monotonic() + 60
    while inode(path) == old and time.monotonic() < deadline:
        time.sleep(0.001)


def inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def test_ten_kills_lose_nothing_but_the_epoch_under_way(processes: Any, tmp_path: Path) -> None:
    path, epochs, nap = tmp_path / "run.pt", 40, 0.001
    moments = random.Random(0)
    for _ in range(10):
        before, old = epoch_of(path), inode(path)
        process = processes.Process(target=killed_run, args=(path, epochs, nap))
        process.start()
        wait_for_a_new_file(path, old)
        time.sleep(moments.uniform(0, 0.04))
        seen = epoch_of(path)
        process.kill()
        process.join()
        assert process.exitcode == -9, "the run ended: it is too short to be killed 10 times"
        assert epoch_of(path) >= seen > before
    *found, history = trained(path, epochs=epochs, resume=True)
    *expected, whole = trained(None, epochs=epochs)
    assert_same(found, expected)
    assert history == whole


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"n": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"n": 2})
    assert read_checkpoint(path)["n"] == 1
    assert [*tmp_path.iterdir()] == [path]


def test_every_truncation_and_every_changed_weight_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    weights = torch.randn(200)
    save_checkpoint(path, {"weights": weights})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 53):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"run\.pt is not a whole checkpoint"):
            read_checkpoint(path)
    start = whole.index(weights.numpy().tobytes())
    for position in range(start, start + 800, 41):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match="damaged: the checksum of its part"):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert torch.equal(read_checkpoint(path)["weights"], weights)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code from the file was run",))


def test_foreign_files_are_named_and_run_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="a file of another kind"):
        read_checkpoint(path)
    torch.save({"format": Bomb()}, path)
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        read_checkpoint(path)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match="was not written by lookbehind"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pt"))):
        read_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "SAM"}, "holds another optimizer: .*Lookbehind"),
        ({"epochs": 9}, r"budget = \['minibatches', 54\], this one has budget = "),
        ({"schedule": MultiStep()}, "schedule = 'cosine', this one has schedule = 'MultiStep"),
        ({"config": {"lr": 0.1}}, "lr = None, this one has lr = 0.1"),
    ],
)
def test_another_runs_checkpoint_is_refused_before_anything_is_changed(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    trained(path, stop=StopAfter(12))
    kept = path.read_bytes()
    model, optimizer, loader = problem(change.pop("method", "Lookbehind"))
    before = [model.state_dict(), optimizer.state_dict()]
    options = {"epochs": EPOCHS, "splits": {}} | change
    with pytest.raises(CheckpointError, match=words):
        fit(model, optimizer, loader, **grouped(checkpoint=path, resume=True, **options))
    assert_same([model.state_dict(), optimizer.state_dict()], before)
    assert path.read_bytes() == kept


def test_a_budget_that_ends_within_an_epoch_leaves_its_end(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    budget = {"epochs": None, "gradients": 44}  # 11 of 9 minibatches an epoch
    *first, history = trained(path, **budget)
    *again, other = trained(
        path, resume=True, callbacks=[lambda run: pytest.fail("a step")], **budget
    )
    assert_same(again, first)
    assert other == history


def test_a_record_holds_all_splits_or_none() -> None:
    model, optimizer, loader = problem()
    good = [loader.dataset.tensors]
    bad = [(loader.dataset.tensors[0] * math.nan, loader.dataset.tensors[1])]
    runs: list[Any] = []

    def spoil(run: Any) -> None:
        runs.append(run)
        splits["other"] = bad

    splits = {"one": good, "other": good}
    with pytest.raises(FloatingPointError, match="the loss on other is not finite"):
        fit(model, optimizer, loader, epochs=1, splits=splits, callbacks=[spoil])
    assert [record.split for record in runs[-1].records] == ["one", "other"]


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    trained(path, stop=StopAfter(12))
    model, _, loader = problem()
    model[4] = nn.Linear(8, 5)
    optimizer = FAMILY["Lookbehind"](BASES["SGD"](model.parameters()))
    with pytest.raises(CheckpointError, match=r"4\.weight has shape \(3, 8\), here \(5, 8\)"):
        fit(model, optimizer, loader, epochs=EPOCHS, splits={}, session=Session(path, resume=True))


def test_a_callback_may_save_at_any_step(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"

    def save(run: Any) -> None:
        if run.minibatches == 13:
            run.save(path)

    model, optimizer, loader = problem()
    splits = {"all": [loader.dataset.tensors]}
    fit(model, optimizer, loader, epochs=EPOCHS, splits=splits, callbacks=[save])
    *found, _ = trained(path, resume=True)
    assert_same(found, [model.state_dict(), optimizer.state_dict()])


def test_a_loss_that_diverges_keeps_the_last_epochs_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"

    def diverging(logits: Tensor, labels: Tensor) -> Tensor:
        scale = float("inf") if path.exists() and epoch_of(path) == 2 else 1
        return cross_entropy(logits, labels) * scale

    with pytest.raises(FloatingPointError):
        trained(path, loss=diverging)
    assert epoch_of(path) == 2
    *_, history = trained(path, resume=True)
    assert isinstance(history, History)
    assert history == trained(None)[2]
