"""What every benchmark needs: sides timed in turn, and a line that says if a goal is met."""

import argparse
import operator
import statistics
import time

SIGNS = {"<=": operator.le, ">=": operator.ge}


def option(text, name, default):
    """What `--name` says on the command line; `text` is a benchmark's own docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument(f"--{name}", type=type(default), default=default)
    return getattr(parser.parse_args(), name)


def heap(page):
    """Bytes of a page's JavaScript, once the garbage is gone."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    return session.send("Runtime.getHeapUsage")["usedSize"]


def goal(name, figure, sign, bound, unit=""):
    """Print `NAME: FIGURE (goal <= BOUND) ok`, or `short`. Returns whether the goal is met."""
    met = SIGNS[sign](figure, bound)
    space = " " if unit else ""
    verdict = "ok" if met else "short"
    print(f"{name}: {figure:.4g}{space}{unit} (goal {sign} {bound:.4g}{space}{unit}) {verdict}")
    return met


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
