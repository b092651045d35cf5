"""The finished runs of the training lab as a table, to read and to save."""

import csv
import io
from html import escape
from typing import Any
from urllib.parse import quote

from lookbehind.explore.lab.training import Training
from lookbehind.optim import METHODS

CELL = "padding: 2px 6px; text-align: left; line-height: 1.5"


def row(training: Training) -> dict[str, Any]:
    """A run in the table; None for what its method doesn't have or what wasn't measured."""
    recipe = training.now
    axes = METHODS[recipe.method].sliders
    settings = {n: getattr(recipe, n) if n in axes else None for n in ("k", "rho", "alpha")}
    last = {record.split: record.accuracy for record in training.records}
    return {
        "method": recipe.method,
        **settings,
        "lr": recipe.lr,
        "model": recipe.model,
        "dataset": recipe.dataset,
        "epochs": round(training.epoch, 2),
        "seed": recipe.seed,
        "test accuracy": last.get("test"),
        "training accuracy": last.get("train"),
        "sharpness": training.sharpness[-1][1] if training.sharpness else None,
        "seconds": round(training.seconds, 1),
        "status": training.status + (", moved" if training.moved else ""),
    }


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The table as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_html(rows: list[dict[str, Any]]) -> str:
    """The finished runs, and a link that saves them; nothing where there are none."""
    if not rows:
        return ""
    link = "data:text/csv;charset=utf-8," + quote(as_csv(rows))
    heads = "".join(f"<th style='{CELL}'>{escape(name)}</th>" for name in rows[0])
    lines = (
        "".join(f"<td style='{CELL}'>{_cell(value)}</td>" for value in r.values()) for r in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<div style='overflow-x: auto'><table style='border-collapse: collapse; font-size: 12px'>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<a class='jupyter-button widget-button' style='width: auto; display: inline-block' "
        f"href='{escape(link)}' download='lookbehind-runs.csv'>Download CSV</a>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
