"""One training run from one frozen description: dataset, network, method and its settings."""

import math
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from lookbehind.checks import check_bounded, plain, whole
from lookbehind.optim import METHODS, make_method, param_groups
from lookbehind.scores import History
from lookbehind.train.data import Dataset, load
from lookbehind.train.hardware import Hardware, choose_hardware, keep_freed_memory
from lookbehind.train.loop import SCHEDULES, check_budget, fit
from lookbehind.train.models import MODELS, make_model
from lookbehind.train.run import grouped

SYMBOLS = {"k": "k", "rho": "ρ", "alpha": "α", "lr": "lr"}
EVALUATION_BATCH = 1000
# What a recipe's values may be: one of these names, a number from 0 to this, an int from this.
CHOICES: dict[str, Collection[str]] = {
    "model": MODELS, "method": METHODS, "schedule": SCHEDULES, "gradient": ("last", "mean"),
}  # fmt: skip
MOST = dict.fromkeys(("rho", "eta", "lr", "weight_decay"), math.inf)
MOST |= dict.fromkeys(("momentum", "label_smoothing", "label_noise"), 1)
LEAST = {"k": 1, "batch_size": 1, "train": 1, "test": 1, "validation": 0, "seed": 0}


@dataclass(frozen=True)
class Outcome:
    """What a run left: the network at its slow weights, and the scores on the way."""

    recipe: "Recipe"
    model: nn.Module
    history: History


@dataclass(frozen=True)
class Recipe:
    """A run, all of it: the same `Outcome` each time that it is run on the same machine.

    `dataset`, the numbers of images and `label_noise` are those of `lookbehind.train.data.load`
    (None: the dataset's default). `augment` crops and flips. Digits take neither `augment` (a
    mirrored digit is none) nor `test` (that split is what is left). `model` is one of `MODELS`,
    `method` of `lookbehind.optim.METHODS`. `k`, `rho`, `eta`, `alpha` (a number in [0, 1] or
    "adaptive") and `gradient` ("last" or "mean", of Multistep-SAM) are the method's, where it has
    them; `lr`, `momentum` and `weight_decay` those of its base, SGD. The budget is `epochs` or
    `gradients`. `seed` decides the split, wrong labels, first weights and minibatches.

    Raises TypeError or ValueError, before any data is loaded, for a value that is wrong whatever
    the dataset.
    """

    dataset: str = "digits"
    model: str = "mlp"
    method: str = "Lookbehind-SAM"
    k: int = 2
    rho: float = 0.2
    eta: float = 0.01
    alpha: float | str = 0.5
    gradient: str = "last"
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 50
    label_smoothing: float = 0.0
    schedule: str = "cosine"
    epochs: int | None = None
    gradients: int | None = 1200
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    label_noise: float = 0.0
    augment: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            value = os.fspath(value) if isinstance(value, os.PathLike) else plain(value)
            object.__setattr__(self, name, value)
        for name, kind in {"dataset": str, "augment": bool}.items():
            if type(value := getattr(self, name)) is not kind:
                raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
        for name, allowed in CHOICES.items():
            if type(value := getattr(self, name)) is not str or value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name, most in MOST.items():
            check_bounded(name, getattr(self, name), most, also="")
        for name, least in LEAST.items():
            if (value := getattr(self, name)) is not None or name in ("k", "batch_size", "seed"):
                whole(name, value, least)
        self._check_together()

    def _check_together(self) -> None:
        """Values that are wrong only beside another."""
        check_budget(self.epochs, self.gradients)
        method = METHODS[self.method]
        allowed = (method.adaptive and self.alpha == "adaptive") or "alpha" not in method.axes
        if not (isinstance(self.alpha, str) and allowed):
            check_bounded("alpha", self.alpha, 1, ' or "adaptive"' if method.adaptive else "")
        for name, value in {"test": None, "augment": False}.items():
            if self.dataset == "digits" and (got := getattr(self, name)) != value:
                raise ValueError(f"{name} must be {value} for the dataset digits, got {got!r}")

    def __str__(self) -> str:
        axes = (*METHODS[self.method].axes, "lr")
        values = {symbol: getattr(self, name) for name, symbol in SYMBOLS.items() if name in axes}
        used = (f"{s} {v if isinstance(v, str) else format(v, 'g')}" for s, v in values.items())
        return f"{self.method}: {', '.join(used)}"

    def load(self, root: str | Path | None = None, device: str | torch.device = "cpu") -> Dataset:
        """The dataset, on `device`; `root` as in `lookbehind.train.data`."""
        names = ("train", "validation", "test", "label_noise", "seed")
        options = {name: value for name in names if (value := getattr(self, name)) is not None}
        return load(self.dataset, root, device=device, **options)

    def make_model(self, dataset: Dataset) -> nn.Module:
        """A fresh network for the images of `dataset`; torch's global generators are left alone."""
        with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
            torch.default_generator.manual_seed(self.seed)
            shape: dict[str, Any] = {"channels": dataset.channels, "size": dataset.size}
            return make_model(self.model, classes=len(dataset.classes), **shape)

    def make_optimizer(self, model: nn.Module) -> Any:
        """The method around SGD on `param_groups(model)`."""
        settings = {n: getattr(self, n) for n in ("rho", "k", "alpha", "eta", "gradient")}
        base = {n: getattr(self, n) for n in ("lr", "momentum", "weight_decay")}
        return make_method(self.method, SGD(param_groups(model), **base), **settings)

    def run(
        self, root: str | Path | None = None, hardware: Hardware | None = None,
        dataset: Dataset | None = None, **options: Any,
    ) -> Outcome:  # fmt: skip
        """Train, and score every split.

        `options` are those of `fit`, of its `Setup` and of its `Session`, each by its own name.
        `dataset`: what `load` gives, where it is at hand. The training split is scored on as many
        of its images as the test split has. On a CPU the process keeps freed memory from then on.
        """
        hardware = hardware or choose_hardware()
        dataset = self.load(root, hardware.device) if dataset is None else dataset
        model = hardware.place(self.make_model(dataset))
        if hardware.device.type == "cpu":
            keep_freed_memory()
        options = {"config": asdict(self), "autocast": hardware.autocast, **options}
        optimizer, batches = self.make_optimizer(model), self.batches(dataset)
        given = grouped(splits=evaluation_batches(dataset), **self.plan(), **options)
        loss = partial(cross_entropy, label_smoothing=self.label_smoothing)
        return Outcome(self, model, fit(model, optimizer, batches, loss=loss, **given))

    def plan(self) -> dict[str, Any]:
        """The budget and the schedule, as `fit` takes them."""
        schedule = SCHEDULES[self.schedule]
        return {"epochs": self.epochs, "gradients": self.gradients, "schedule": schedule}

    def batches(self, dataset: Dataset) -> Any:
        """The training minibatches: shuffled, and augmented where the recipe says so."""
        crop = max(1, min(dataset.size) // 8) if self.augment else 0
        return dataset.train.batches(self.batch_size, self.seed, crop=crop, flip=self.augment)


def evaluation_batches(dataset: Dataset) -> dict[str, Any]:
    """Every split of `dataset` in order, the training split cut to the size of the test split."""
    parts = {**dataset.splits, "train": dataset.train.take(slice(len(dataset.test)))}
    return {name: part.batches(EVALUATION_BATCH) for name, part in parts.items()}
