"""Short runs for the tests of `sweep`, their measures, and each of them alone."""

import json
from dataclasses import asdict
from functools import partial

import pytest
import torch

from lookbehind.study import grid, sweep
from lookbehind.train import Hardware, Recipe

CPU = Hardware(torch.device("cpu"))
SHORT = Recipe(train=40, batch_size=20, gradients=12, validation=20)
FOUR = grid(SHORT, rho=[0.05, 0.1], seed=[0, 1])


def weight_sum(model, dataset):
    return float(sum(p.detach().sum() for p in model.parameters())) + len(dataset.train)


def refuses(model, dataset):
    raise ArithmeticError("no value")


run_here = partial(sweep, hardware=CPU)


def close(rows, others):
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys() and row["recipe"] == other["recipe"]
        for name in row.keys() - {"recipe"}:
            assert row[name] == pytest.approx(other[name], abs=1e-10)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def alone(recipe):
    outcome = recipe.run(hardware=CPU, records=1)
    last = {name: outcome.history.last(name) for name in ("train", "validation", "test")}
    row = {"recipe": asdict(recipe), "gradients": last["train"].gradients}
    row |= {n: {"loss": r.loss, "accuracy": r.accuracy} for n, r in last.items()}
    return row | {"sum": weight_sum(outcome.model, recipe.load())}
