"""Runs that train as one ensemble."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lookbehind.study.axes import essence
from lookbehind.study.ensemble import (
    EVALUATION_IMAGES,
    Ensemble,
    MemberBatches,
    evaluate_members,
    member_cross_entropy,
    scale_lr,
)
from lookbehind.study.rows import Row
from lookbehind.train import (
    SCHEDULES,
    Hardware,
    Recipe,
    Run,
    Session,
    Setup,
    choose_hardware,
    evaluation_batches,
    fit,
    keep_freed_memory,
)
from lookbehind.train.data import Batches, Dataset

Measure = Callable[[nn.Module, Dataset], float]


# Bytes that the networks of one ensemble may take on a CPU; of a GPU, half of what is free.
MEMORY = 2**30


# Blocks of runs, and who trains them


@dataclass(frozen=True)
class _Task:
    """What a worker needs besides the recipes."""

    measures: Mapping[str, Measure]
    root: str | Path | None
    hardware: Hardware | None
    dtype: torch.dtype


def _blocks(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    """Runs that train as one, in blocks of nearly one size, at most `most`."""
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(_shared(recipe), []).append(recipe)
    return [block for group in groups.values() for block in _cut(group, most)]


def _shared(recipe: Recipe) -> Recipe:
    """What the members of an ensemble have in common."""
    alpha = recipe.alpha if recipe.alpha == "adaptive" else 0.5
    return essence(replace(recipe, seed=0, rho=0.0, lr=0.0, alpha=alpha))


def _cut(recipes: list[Recipe], most: int) -> list[list[Recipe]]:
    count = math.ceil(len(recipes) / most)
    return [recipes[i * len(recipes) // count : (i + 1) * len(recipes) // count]
            for i in range(count)]  # fmt: skip


def _failed(recipe: Recipe, error: Exception) -> Row:
    return {"recipe": asdict(recipe), "error": f"{type(error).__name__}: {error}"}


# One block


def _train(recipes: list[Recipe], task: _Task) -> list[Row]:
    """A row for each of the recipes, which may train as one."""
    hardware = task.hardware or choose_hardware()
    datasets, rows = dict[int, Dataset](), dict[Recipe, Row]()
    for recipe in recipes:
        if recipe.seed not in datasets and recipe not in rows:
            try:
                datasets[recipe.seed] = recipe.load(task.root, hardware.device)
            except Exception as error:
                rows |= {r: _failed(r, error) for r in recipes if r.seed == recipe.seed}
    good = [recipe for recipe in recipes if recipe not in rows]
    most = _room(good[0], datasets[good[0].seed], hardware.device) if good else 1
    for some in _cut(good, most):
        rows |= _train_ensemble(some, datasets, task, hardware)
    return [rows[recipe] for recipe in recipes]


def _room(recipe: Recipe, dataset: Dataset, device: torch.device) -> int:
    """How many networks fit in memory together, by what one takes for a minibatch."""
    model, values = recipe.make_model(dataset).to(device), 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal values
        values += 2 * output.numel()  # with its gradient

    for module in model.modules():
        module.register_forward_hook(count)
    images, _ = next(iter(recipe.batches(dataset)))
    with torch.no_grad():
        model(images)
    # Gradient, momentum, slow and fast weights, what the optimizer keeps to undo a step, …
    values += images.numel() + 10 * sum(p.numel() for p in model.parameters())
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY
    return max(1, free // (values * images.element_size()))


def _train_ensemble(
    recipes: list[Recipe], datasets: Mapping[int, Dataset], task: _Task, hardware: Hardware
) -> dict[Recipe, Row]:
    seeds = list(dict.fromkeys(recipe.seed for recipe in recipes))
    gather = partial(MemberBatches, of=[seeds.index(recipe.seed) for recipe in recipes])
    firsts = [replace(recipes[0], seed=seed) for seed in seeds]
    models = {first.seed: first.make_model(datasets[first.seed]) for first in firsts}
    ensemble = Ensemble([models[recipe.seed] for recipe in recipes]).to(hardware.device)
    batches = gather([first.batches(datasets[first.seed]) for first in firsts])
    gradients, failures = _fit(ensemble, recipes, batches, hardware)
    splits = [_small(evaluation_batches(datasets[seed]), len(recipes)) for seed in seeds]
    scores = {
        name: _scores(ensemble, gather([of[name] for of in splits]), hardware, len(part.split))
        for name, part in splits[0].items()
    }
    rows = {}
    for e, recipe in enumerate(recipes):
        row = {"gradients": gradients, **{name: some[e] for name, some in scores.items()}}
        try:
            _check_finite(failures[e], row, splits[0])
            network = ensemble.member(e).eval()
            found = {n: m(network, datasets[recipe.seed]) for n, m in task.measures.items()}
            rows[recipe] = {"recipe": asdict(recipe), **row, **found}
        except Exception as error:
            rows[recipe] = _failed(recipe, error)
    return rows


def _fit(
    ensemble: Ensemble, recipes: list[Recipe], batches: MemberBatches, hardware: Hardware
) -> tuple[int, list[int]]:
    """Train; the gradients taken, and after how many each member failed (0: it didn't)."""
    recipe, taken = recipes[0], 0
    failures = torch.zeros(len(recipes), dtype=torch.int64, device=hardware.device)

    def watch(run: Run) -> None:
        nonlocal taken
        taken = run.gradients
        failed = getattr(run.optimizer, "rolled_back", None)
        if failed is not None:
            failures.masked_fill_(failed & (failures == 0), taken)

    if hardware.device.type == "cpu":
        keep_freed_memory()
    history = fit(
        ensemble,
        _optimizer(ensemble, recipes, hardware.device),
        batches,
        epochs=recipe.epochs,
        gradients=recipe.gradients,
        splits={},
        schedule=SCHEDULES[recipe.schedule],
        loss=partial(member_cross_entropy, label_smoothing=recipe.label_smoothing),
        callbacks=[watch],
        setup=Setup(autocast=hardware.autocast),
        session=Session(stop=lambda: bool(failures.all())),
    )
    if history.stopped and not failures.all():
        raise KeyboardInterrupt
    return taken, failures.tolist()


def _optimizer(ensemble: Ensemble, recipes: list[Recipe], device: torch.device) -> Any:
    """The optimizer of the recipe whose ρ and α are tensors, one value a member; lr, too."""

    def each(name: str) -> Tensor:
        values = [getattr(recipe, name) for recipe in recipes]
        return torch.tensor(values, dtype=torch.get_default_dtype(), device=device)

    essences, most = [essence(recipe) for recipe in recipes], max(r.lr for r in recipes)
    settings: dict[str, Any] = {"rho": each("rho"), "lr": most}
    if essences[0].alpha != "adaptive":
        recipes = essences
        settings["alpha"] = each("alpha")
    optimizer = replace(recipes[0], **settings).make_optimizer(ensemble)
    if any(recipe.lr != most for recipe in recipes):
        scale_lr(getattr(optimizer, "base", optimizer), each("lr") / most)
    return optimizer


def _small(splits: Mapping[str, Batches], members: int) -> dict[str, Batches]:
    """In minibatches that stay small where each of the members gets its own."""
    size = max(1, EVALUATION_IMAGES // members)
    return {name: part.split.batches(min(size, part.size)) for name, part in splits.items()}


def _scores(
    ensemble: Ensemble, batches: MemberBatches, hardware: Hardware, count: int
) -> list[dict[str, float]]:
    """The loss and accuracy of each member on so many images."""
    kind = hardware.device.type
    with torch.autocast(kind, hardware.autocast) if hardware.autocast else nullcontext():
        scores = evaluate_members(ensemble, batches)
    pairs = zip(scores.loss.tolist(), scores.accuracy.tolist(), strict=True)
    return [{"loss": loss, "accuracy": round(share * count) / count} for loss, share in pairs]


def _check_finite(failure: int, row: Row, splits: Iterable[str]) -> None:
    if failure:
        raise FloatingPointError(
            f"the loss or its gradient is not finite after {failure} gradients"
        )
    for name in splits:
        if not math.isfinite(row[name]["loss"]):
            raise FloatingPointError(f"the loss on {name} is not finite at the end of training")
