"""Stored studies: runs longer than a notebook may take, from the files in notebooks/results."""

from typing import Any

Row = dict[str, Any]  # a run: "name", settings, "seed", and "records", the rows of its History


def chosen_runs(study: dict[str, Any], name: str) -> list[Row]:
    """The runs of one method at the radius that every seed has, in the order of the seeds.

    Other radii were tried at the first seed only, for the validation images to choose one.
    """
    runs = [run for run in study["runs"] if run["name"] == name]
    if not runs:
        names = list(dict.fromkeys(run["name"] for run in study["runs"]))
        raise ValueError(f"name must be one of {names}, got {name!r}")
    chosen = {run["rho"] for run in runs if run["seed"] != study["seeds"][0]}
    return [run for run in runs if run["rho"] in chosen]


def values(run: Row, split: str, value: str = "accuracy") -> list[float]:
    """One value of a split's records, from the start of the run to its end."""
    return [record[value] for record in run["records"] if record["split"] == split]
