"""`studies`: which runs of a stored study count, and what they hold."""

import json
from pathlib import Path

import pytest

from lookbehind.explore.shared import chosen_runs, values

PATH = Path(__file__).parents[1] / "notebooks" / "results" / "cifar10.json"
STUDY = json.loads(PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", dict.fromkeys(run["name"] for run in STUDY["runs"]))
def test_the_chosen_radius_was_the_best_on_the_validation_images_of_the_first_seed(
    name: str,
) -> None:
    runs = chosen_runs(STUDY, name)
    assert [run["seed"] for run in runs] == STUDY["seeds"]
    first = [run for run in STUDY["runs"] if run["name"] == name and run["seed"] == 0]
    assert values(runs[0], "validation")[-1] == max(values(r, "validation")[-1] for r in first)


def test_values_are_those_of_one_split_in_order() -> None:
    run = {
        "records": [
            {"split": "train", "loss": 2.0, "accuracy": 0.1},
            {"split": "test", "loss": 2.1, "accuracy": 0.2},
            {"split": "train", "loss": 1.0, "accuracy": 0.6},
        ]
    }
    assert values(run, "train") == [0.1, 0.6]
    assert values(run, "train", "loss") == [2.0, 1.0]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"name must be one of .*'SGD'.* got 'Adam'"):
        chosen_runs(STUDY, "Adam")
