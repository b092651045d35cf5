"""The README's dozen lines of Optuna over `sweep`, run as they stand there."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from lookbehind.study import sweeps
from lookbehind.train import Recipe

optuna = pytest.importorskip("optuna")

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_finds_a_setting_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    (code,) = [block for block in BLOCKS if "import optuna" in block]
    assert len(code.splitlines()) <= 14
    monkeypatch.chdir(tmp_path)
    short = partial(Recipe, train=40, batch_size=20, gradients=12)
    monkeypatch.setattr("lookbehind.train.Recipe", short)
    names = {}
    exec(code, names)
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    best = max(rows, key=lambda row: row["validation"]["accuracy"])
    printed = capsys.readouterr().out
    assert printed == f"{ {'rho': best['recipe']['rho']} }\n"
    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "train_block", lambda *_: pytest.fail("trained again"))
        exec(code, names)
    assert capsys.readouterr().out == printed
