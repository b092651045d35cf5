"""Short runs for the tests of `sweep`, their measures, and each of them alone."""

import json
from dataclasses import asdict
from functools import partial

import torch

from lookbehind.study import grid, sweep
from lookbehind.train import Hardware, Recipe

CPU = Hardware(torch.device("cpu"))
SHORT = Recipe(train=40, batch_size=20, gradients=12, validation=20)
FOUR = grid(SHORT, rho=[0.05, 0.1], seed=[0, 1])


def weight_sum(model, dataset):
    return float(sum(p.detach().sum() for p in model.parameters())) + len(dataset.train)


run_here = partial(sweep, hardware=CPU)


def close(rows, others):
    assert [row["recipe"] for row in rows] == [row["recipe"] for row in others]
    numbers = ([{**row, "recipe": 0} for row in some] for some in (rows, others))
    torch.testing.assert_close(*numbers, rtol=0, atol=1e-10)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def alone(recipe):
    outcome = recipe.run(hardware=CPU, records=1)
    last = {name: outcome.history.last(name) for name in ("train", "validation", "test")}
    row = {n: {"loss": r.loss, "accuracy": r.accuracy} for n, r in last.items()}
    row |= {"recipe": asdict(recipe), "gradients": last["train"].gradients}
    return row | {"sum": weight_sum(outcome.model, recipe.load())}
