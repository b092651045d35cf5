"""What networks know of each task while one task comes after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from lookbehind.explore.maps.sheet import Sheet, module


class TaskMatrices(Sheet):
    """Accuracy matrices R of methods, side by side: R[i, j] on task j after task i was learned.

    `rows` are those of a study: mappings with a `name`, a `sequence`, a `memory` in images, and the
    `accuracy`, R of each seed, (seeds, T, T). Two menus choose the traits `sequence` and `memory`,
    `learned` is how many tasks have been, all at first. In a cell stands the mean over the seeds;
    in words, ± their sample standard deviation, the average accuracy and forgetting of
    `lookbehind.study.lifelong`, both of the tasks learned so far.

    Raises ValueError where a shape doesn't fit, or a sequence and a memory have no row.
    """

    _esm = module("tasks.js")
    title = "Accuracy while tasks arrive"

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    sequence = traitlets.Unicode().tag(sync=True)
    memory = traitlets.Int().tag(sync=True)
    learned = traitlets.Int().tag(sync=True)

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = ("name", "sequence", "memory", "accuracy")
        kept = [{name: row[name] for name in names} for row in rows]
        if not kept:
            raise ValueError("rows must hold a row at least, got none")
        shapes: dict[tuple[str, int], set[tuple[int, ...]]] = {}
        for row in kept:
            place = row["sequence"], row["memory"]
            shapes.setdefault(place, set()).add(np.shape(row["accuracy"])[1:])
        pairs = {(sequence, memory) for sequence, _ in shapes for _, memory in shapes}
        for place in sorted(pairs):
            found = shapes.get(place, set())
            if len(found) != 1 or not all(len(s) == 2 and s[0] == s[1] > 0 for s in found):
                raise ValueError(f"rows must hold (seeds, T, T) for {place}, got {found}")
        first = kept[0]
        learned = len(first["accuracy"][0])
        super().__init__(
            rows=kept, sequence=first["sequence"], memory=first["memory"], learned=learned
        )

    def shown(self) -> dict[str, Any]:
        """The mean R of each method, NaN below the tasks learned so far."""
        means = {}
        for row in self.rows:
            if (row["sequence"], row["memory"]) == (self.sequence, self.memory):
                means[row["name"]] = R = np.mean(row["accuracy"], 0)
                R[self.learned :] = np.nan
        return means

    def _figure(self, figure: Any) -> str:
        from lookbehind.explore.shared import pictures

        found = self.shown()
        for ax, (name, R) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
            numbers = [str(task + 1) for task in range(len(R))]
            pictures.matrix(R, numbers, numbers, ax).set(title=name, xlabel="accuracy on task")
        figure.axes[0].set_ylabel("after task")
        last = self.learned - 1
        some = (f"{name} {R[last, : last + 1].mean():.0%}" for name, R in found.items())
        told = f"{self.sequence}, {self.memory} images remembered"
        return f"{told}: after task {last + 1}, on the tasks learned so far, {', '.join(some)}."
