"""What every benchmark needs: options, sides timed in turn, and lines that say if goals are met."""

import argparse
import operator
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import lab as lab

SIGNS = {"<=": operator.le, ">=": operator.ge}
GOALS = []


def goal(name, figure, sign, bound, unit=""):
    """For the end: `NAME: FIGURE (goal <= BOUND) ok`, or `short`."""
    space, met = " " if unit else "", SIGNS[sign](figure, bound)
    told = f"{name}: {figure:.4g}{space}{unit} (goal {sign} {bound:.4g}{space}{unit})"
    GOALS.append((f"{told} {'ok' if met else 'short'}", met))


def run(main, text, **defaults):
    """Call `main` with what `--name` says of each default; print the goals, and exit by them.

    `text` is a benchmark's own docstring.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    for name, default in defaults.items():
        kind = {"action": "store_true"} if default is False else {"type": type(default)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, **kind)
    try:
        main(**vars(parser.parse_args()))
    finally:
        print(*(told for told, _ in GOALS), sep="\n")
    sys.exit(not all(met for _, met in GOALS))


def heap(page):
    """Bytes of a page's JavaScript, once the garbage is gone."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    return session.send("Runtime.getHeapUsage")["usedSize"]


def alternate(functions, rounds):
    """Time every function once a round, in turn, so that a busy machine slows all alike.

    `functions`: by name. Returns the seconds by name, one a round. The order turns each round.
    """
    times = {name: [] for name in functions}
    names = list(functions)
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            start = time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - start)
    return times


def medians(times):
    return {name: statistics.median(found) for name, found in times.items()}


def p95(times):
    """The smallest of the times that at least 95 % of them don't exceed."""
    return sorted(times)[-(-95 * len(times) // 100) - 1]


def ratio(times, one, other, by=1.0):
    """The median over the rounds of `one`'s time divided by `by` times `other`'s."""
    pairs = zip(times[one], times[other], strict=True)
    return statistics.median(a / (by * b) for a, b in pairs)
