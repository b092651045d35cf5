"""How long trajectories on a toy loss take, on one core: one, 250 at once, and a page of the atlas.

usage: python tests/benchmarks/bench_toy.py [--rounds 15]
"""

import argparse
from functools import partial

import torch
from bench import alternate, goal, medians
from torch.optim import SGD

from lookbehind import Ball, Lookbehind
from lookbehind.explore.toy.atlas import K, Setting, compute_sheet
from lookbehind.toy import LOSSES, descend

STEPS, MEMBERS = 40, 250
LOSS = LOSSES["valley"]
SETTING = Setting(LOSS, LOSS.start, LOSS.lr)


def trajectories(members: int) -> None:
    rho = torch.linspace(0.01, 0.2, members, dtype=torch.float64)
    make = lambda w: Lookbehind(SGD(w, lr=0.05), Ball(rho), k=5, alpha=0.2)  # noqa: E731
    descend(LOSS, [LOSS.start] * members, make, STEPS)


def atlas() -> None:
    for k in K:
        compute_sheet(SETTING, "Lookbehind-SAM", k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    sides = {
        "one": partial(trajectories, 1),
        "many": partial(trajectories, MEMBERS),
        "page": partial(compute_sheet, SETTING, "Lookbehind-SAM", 5),
        "atlas": atlas,
    }
    one, many, page, all_pages = medians(alternate(sides, rounds)).values()
    print(f"a trajectory at a time, {MEMBERS} of them would take {MEMBERS * one:.1f} s")
    print(f"the whole atlas of Lookbehind-SAM (10 x 21 x 13 positions): {1e3 * all_pages:.0f} ms")
    goal("one trajectory, 40 steps of k = 5", 1e3 * one, "<=", 60, " ms")
    goal("250 trajectories in one call", 1e3 * many, "<=", 250, " ms")
    goal("the shown setting of the explorer (a page of the atlas)", 1e3 * page, "<=", 100, " ms")


if __name__ == "__main__":
    main()
