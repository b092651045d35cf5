"""Blocks of runs: which train as one ensemble, how many fit in memory, and their rows."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lookbehind.optim import METHODS, make_method, param_groups
from lookbehind.study.ensemble import (
    Ensemble,
    MemberBatches,
    evaluate_members,
    member_cross_entropy,
    scale_lr,
)
from lookbehind.train import Hardware, Recipe, evaluation_batches, fit, grouped, keep_freed_memory
from lookbehind.train.data import Dataset

Row = dict[str, Any]  # {"recipe": {all settings}, what was measured}
Measure = Callable[[nn.Module, Dataset], Any]  # gives what JSON can hold, mostly a number
MEMORY = 2**30  # bytes that an ensemble may take on a CPU; of a GPU, half of what is free
EVALUATION_IMAGES = 2**14  # of all members together, evaluated at once


@dataclass(frozen=True)
class Job:
    """What is asked of every run: measures at its end, so many scores on its way, and where."""

    measures: Mapping[str, Measure]
    records: int
    hardware: Hardware


def essence(recipe: Recipe) -> Recipe:
    """The recipe with the settings that its method doesn't have at their defaults: two recipes are
    the same run where these are equal."""
    every = {axis for method in METHODS.values() for axis in method.axes}
    unused = every - {*METHODS[recipe.method].axes}
    return replace(recipe, **{name: getattr(Recipe, name) for name in unused})


def blocks(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    """Runs that train as one, in blocks of nearly one size, at most `most`."""
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        alpha = recipe.alpha if recipe.alpha == "adaptive" else 0.5
        shared = essence(replace(recipe, seed=0, rho=0.0, lr=0.0, alpha=alpha))
        groups.setdefault(shared, []).append(recipe)
    return [block for group in groups.values() for block in cut(group, most)]


def cut(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    """The recipes in parts of nearly one size, at most `most`."""
    count = math.ceil(len(recipes) / most)
    ends = [(i + 1) * len(recipes) // count for i in range(count)]
    return [recipes[i:j] for i, j in pairwise([0, *ends])]


def train_block(recipes: list[Recipe], job: Job) -> list[Row]:
    """A row for each of the recipes, which may train as one."""
    if job.hardware.device.type == "cpu":
        keep_freed_memory()
    datasets, rows = dict[int, Dataset](), list[Row]()
    for seed, first in {recipe.seed: recipe for recipe in recipes}.items():
        try:
            datasets[seed] = first.load(device=job.hardware.device)
        except Exception as error:
            rows += [_failed(recipe, error) for recipe in recipes if recipe.seed == seed]
    good = [recipe for recipe in recipes if recipe.seed in datasets]
    return rows + (_rows(good, datasets, job) if good else [])


def _rows(recipes: list[Recipe], datasets: Mapping[int, Dataset], job: Job) -> list[Row]:
    """As one ensemble, or in parts: what fits in memory; halves of one that fails, until the guilty
    runs are alone."""
    try:
        parts = cut(recipes, _room(recipes[0], datasets[recipes[0].seed], job.hardware.device))
        if len(parts) == 1:
            return _train_ensemble(recipes, datasets, job)
    except Exception as error:
        if len(recipes) == 1:
            return [_failed(recipes[0], error)]
        parts = cut(recipes, math.ceil(len(recipes) / 2))
    return [row for part in parts for row in _rows(part, datasets, job)]


def _failed(recipe: Recipe, error: BaseException) -> Row:
    return {"recipe": asdict(recipe), "error": f"{type(error).__name__}: {error}"}


def _room(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    """How many networks fit in memory together, by what one takes for a minibatch."""
    model, outputs = recipe.make_model(dataset).to(device), list[int]()
    for module in model.modules():
        module.register_forward_hook(lambda *of: outputs.append(of[-1].numel()))
    images, _ = next(iter(recipe.batches(dataset)))
    with torch.no_grad():
        model(images)
    # Outputs with their gradients; gradient, momentum, slow and fast weights, an undone step's, …
    values = images.numel() + 2 * sum(outputs) + 10 * sum(p.numel() for p in model.parameters())
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
    return max(1, free // (values * images.element_size()))


def _train_ensemble(recipes: list[Recipe], datasets: Mapping[int, Dataset], job: Job) -> list[Row]:
    firsts = {recipe.seed: recipe for recipe in reversed(recipes)}
    gather = partial(MemberBatches, of=[[*firsts].index(recipe.seed) for recipe in recipes])
    models = {seed: first.make_model(datasets[seed]) for seed, first in firsts.items()}
    ensemble = Ensemble([models[recipe.seed] for recipe in recipes]).to(job.hardware.device)
    batches = gather([first.batches(datasets[seed]) for seed, first in firsts.items()])
    scored = [datasets[seed] for seed in firsts]
    score = partial(_scores, ensemble, scored, gather, job.hardware.autocast)
    failures, seen = _fit(ensemble, recipes, batches, score, job)
    rows = list[Row]()
    for e, recipe in enumerate(recipes):
        points = [some[e] for some in seen]
        row = {"recipe": asdict(recipe), **points[-1]} if points else {}
        try:
            _check_finite(failures[e], points)
            network = ensemble.member(e).eval()
            for name, measure in job.measures.items():
                row[name] = _as_json(name, measure(network, datasets[recipe.seed]))
            rows.append(row | ({"records": points} if job.records else {}))
        except Exception as error:
            rows.append(_failed(recipe, error))
    return rows


def _fit(
    ensemble: Ensemble, recipes: list[Recipe], batches: MemberBatches,
    score: Callable[[], list[Row]], job: Job,
) -> tuple[list[int], list[list[Row]]]:  # fmt: skip
    """Train; after how many gradients each member failed (0: it didn't), and what each scored on
    the way, the last time at the end."""
    recipe, records, seen = recipes[0], max(1, job.records), dict[int, list[Row]]()
    failures = torch.zeros(len(recipes), dtype=torch.int64, device=job.hardware.device)

    def watch(run: Any) -> None:
        if (undone := getattr(run.optimizer, "rolled_back", None)) is not None:
            failures.masked_fill_(undone & (failures == 0), run.gradients)
        due = run.spent * records // run.budget
        if due and due not in seen:
            seen[due] = [{"gradients": run.gradients, **row} for row in score()]

    watched = {"callbacks": [watch], "stop": lambda: bool(failures.all())}
    options = grouped(autocast=job.hardware.autocast, **watched, **recipe.plan())
    optimizer = _optimizer(ensemble, recipes, job.hardware.device)
    loss = partial(member_cross_entropy, label_smoothing=recipe.label_smoothing)
    history = fit(ensemble, optimizer, batches, splits={}, loss=loss, **options)
    if history.stopped and not failures.all():
        raise KeyboardInterrupt
    return failures.tolist(), [*seen.values()]


def _optimizer(ensemble: Ensemble, recipes: list[Recipe], device: torch.device) -> Any:
    """The method of the recipes; ρ, lr and a number α of each member are its own."""

    def each(name: str) -> Tensor:
        values = [getattr(recipe, name) for recipe in recipes]
        return torch.tensor(values, dtype=torch.get_default_dtype(), device=device)

    recipes = [essence(recipe) for recipe in recipes]
    one, lr = recipes[0], max(recipe.lr for recipe in recipes)
    base = SGD(param_groups(ensemble), lr=lr, momentum=one.momentum, weight_decay=one.weight_decay)
    if any(recipe.lr != lr for recipe in recipes):
        scale_lr(base, each("lr") / lr)
    alpha = one.alpha if one.alpha == "adaptive" else each("alpha")
    options: Any = {"k": one.k, "eta": one.eta, "gradient": one.gradient}
    return make_method(one.method, base, rho=each("rho"), alpha=alpha, **options)


def _scores(ensemble: Ensemble, datasets: list[Dataset], gather: Any, autocast: Any) -> list[Row]:
    """What each member scores on every split, in minibatches that stay small."""
    splits = [evaluation_batches(dataset) for dataset in datasets]
    size = max(1, EVALUATION_IMAGES // ensemble.members)
    rows: list[Row] = [{} for _ in range(ensemble.members)]
    for name, first in splits[0].items():
        batches = gather([of[name].split.batches(min(size, of[name].size)) for of in splits])
        scores = evaluate_members(ensemble, batches, autocast=autocast)
        each, count = (scores.loss.tolist(), scores.accuracy.tolist()), len(first.split)
        for row, loss, share in zip(rows, *each, strict=True):
            row[name] = {"loss": loss, "accuracy": round(share * count) / count}
    return rows


def _as_json(name: str, value: Any) -> Any:
    """What a measure gave, as it is read again from the file: tensors and arrays become lists."""

    def listed(part: Any) -> Any:
        if not hasattr(part, "tolist"):
            raise TypeError(f"the measure {name!r} must give what JSON can hold, got {part!r}")
        return part.tolist()

    return json.loads(json.dumps(value, default=listed))


def _check_finite(failure: int, points: list[Row]) -> None:
    if failure:
        raise FloatingPointError(f"the loss or gradient is not finite after {failure} gradients")
    for name, score in points[-1].items():
        if name != "gradients" and not math.isfinite(score["loss"]):
            raise FloatingPointError(f"the loss on {name} is not finite at the end of training")
