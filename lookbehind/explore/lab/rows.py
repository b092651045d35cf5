"""A run of the training lab as its page gets it: curves, moves, a row of the table, and words."""

from collections.abc import Sequence
from typing import Any

from lookbehind.explore.lab.training import SHARPNESS_BATCH, SHARPNESS_RADIUS, Training
from lookbehind.explore.shared.page import plain
from lookbehind.measure import weight_noise, worst_rise
from lookbehind.optim import METHODS, Ball

POINTS = 300  # of a curve, at most: a page has no more pixels for it
CLIMB = 10  # ascents for the worst rise of a finished run
NOISE = 0.1  # of each weight tensor's norm
FLATNESS_IMAGES = 500  # of the training split for the rise, of the test split under noise
SOME = 5  # epochs
SYMBOLS = {"rho": "ρ", "alpha": "α"}
FLATNESS = (f"worst rise in {SHARPNESS_RADIUS:g}", f"accuracy, {NOISE:.0%} noise")


def drawn(training: Training) -> dict[str, Any]:
    """All that the page shows of a run, as plain values."""
    curves: dict[str, Any] = {"test": [], "train": [], "sharpness": training.sharpness}
    for r in training.records:
        curves.setdefault(r.split, []).append((r.epoch, r.accuracy, r.loss))
    alpha = training.alpha if training.now.alpha == "adaptive" else {}
    return {
        "key": training.path.stem,
        "words": str(training.now),
        "state": training.state,
        "budget": training.recipe.epochs,
        "share": training.share,
        "images": training.images,
        "curves": {name: _thinned(points) for name, points in curves.items()},
        "ticks": [
            [plain(epoch), f"{SYMBOLS.get(name, name)} {old} → {new}"]
            for epoch, name, old, new, _ in training.ticks
        ],
        "alpha": [[name, plain(value, 4)] for name, value in alpha.items()],
        "row": table_row(training),
    }


def end_text(training: Training) -> str:
    """How a run ended, and where it learned nothing or diverged, what to change."""
    if training.status == "diverged":
        reason = training.error.removeprefix("FloatingPointError: ")
        return f"Diverged at epoch {training.epoch:.1f}, {reason}: {_remedy(training)}."
    if training.error:
        return f"The run ended with an error. {training.error}"
    end = "Done" if training.status == "done" else "Stopped"
    test = [record.accuracy for record in training.records if record.split == "test"]
    score = f": test accuracy {test[-1]:.3f}" if test else ""
    level = chance(training)
    advice = f" This is chance level ({level:.0%}): {_remedy(training)}." if level else ""
    return f"{end} after {training.epoch:.1f} epochs{score}.{advice} {training.now}"


def chance(training: Training) -> float:
    """The test accuracy of the best constant guess, where the run got no further (three standard
    errors) by the end of its budget or in some epochs, else 0."""
    test = [record.accuracy for record in training.records if record.split == "test"]
    if training.dataset is None or not (training.status == "done" or training.epoch >= SOME):
        return 0.0
    labels = training.dataset.test.labels
    level = labels.bincount().max().item() / len(labels)
    error = (level * (1 - level) / len(labels)) ** 0.5
    return level if test[-1] <= level + 3 * error else 0.0


def _remedy(training: Training) -> str:
    recipe, loss = training.now, [r.loss for r in training.records if r.split == "train"]
    climbs = "rho" in METHODS[recipe.method].sliders and recipe.rho > 0
    if training.status != "diverged" and max(loss) < 1.05 * loss[0]:
        return f"train longer, or {'lower ρ' if climbs else 'raise lr'}"
    return "lower ρ or lr" if climbs else "lower lr"


def table_row(training: Training) -> dict[str, Any]:
    """A run in the table; None for what its method doesn't have or what wasn't measured."""
    recipe, lacks = training.now, {"k", "rho", "alpha"} - {*METHODS[training.now.method].sliders}
    names = ("method", "k", "rho", "alpha", "lr", "model", "dataset")
    last = {record.split: record.accuracy for record in training.records}
    words = {
        training.state: True,
        "moved": training.now != training.recipe,
        "at chance level": training.outcome and chance(training),
    }
    return {
        **{name: None if name in lacks else getattr(recipe, name) for name in names},
        "epochs": round(training.epoch, 2),
        "seed": recipe.seed,
        "test accuracy": last.get("test"),
        "training accuracy": last.get("train"),
        "sharpness": plain(training.sharpness[-1][1], 17) if training.sharpness else None,
        **{name: training.flatness.get(name) for name in FLATNESS},
        "seconds": round(training.seconds, 1),
        "status": ", ".join(word for word, holds in words.items() if holds),
    }


def flatness(training: Training) -> dict[str, float]:
    """How far the loss rises near a finished run's network, and what noise on its weights costs."""
    assert training.outcome and training.dataset
    model, splits = training.outcome.model, (training.dataset.train, training.dataset.test)
    near, far = (s.take(slice(FLATNESS_IMAGES)).batches(SHARPNESS_BATCH) for s in splits)
    rise = worst_rise(model, near, Ball(SHARPNESS_RADIUS), steps=CLIMB)
    noisy = weight_noise(model, far, [NOISE], seed=training.recipe.seed + 1)
    return dict(zip(FLATNESS, (rise, float(noisy.mean[0])), strict=True))


def _thinned(points: Sequence[tuple[float, ...]]) -> Any:
    """At most POINTS of them, the last among them, in as few digits as are seen."""
    step = -(-len(points) // POINTS) or 1
    return plain([*points[:-1:step], *points[-1:]])
