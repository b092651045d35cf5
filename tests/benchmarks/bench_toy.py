"""How long trajectories on a toy loss take, on one core: one, and 250 at once.

usage: python tests/benchmarks/bench_toy.py [--rounds 15]
"""

from functools import partial

import torch
from bench import alternate, goal, medians, run
from torch.optim import SGD

from lookbehind import Ball, Lookbehind
from lookbehind.toy import LOSSES, descend

STEPS, MEMBERS = 40, 250
LOSS = LOSSES["valley"]


def trajectories(members: int) -> None:
    rho = torch.linspace(0.01, 0.2, members, dtype=torch.float64)
    make = lambda w: Lookbehind(SGD(w, lr=0.05), Ball(rho), k=5, alpha=0.2)  # noqa: E731
    descend(LOSS, [LOSS.start] * members, make, STEPS)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    sides = {"one": partial(trajectories, 1), "many": partial(trajectories, MEMBERS)}
    one, many = medians(alternate(sides, rounds)).values()
    print(f"a trajectory at a time, {MEMBERS} of them would take {MEMBERS * one:.1f} s")
    goal("one trajectory, 40 steps of k = 5", 1e3 * one, "<=", 60, " ms")
    goal("250 trajectories in one call", 1e3 * many, "<=", 250, " ms")


if __name__ == "__main__":
    run(main, __doc__, rounds=15)
