"""`python -m lookbehind train`: the official script's options, and a run that loses nothing."""

import json
import re
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from click.testing import CliRunner
from images import paint
from training import same

from lookbehind.__main__ import cli, fill_in, main
from lookbehind.optim import METHODS
from lookbehind.train import MODELS, SCHEDULES, Recipe, read_checkpoint
from lookbehind.train.journal import CHECKPOINT, HISTORY

TRAIN = cli.commands["train"]

SMALL = "--dataset digits --model mlp --train 60 --batch-size 20 --epochs 3 --lr 0.03"
RECIPE = Recipe(
    train=60, batch_size=20, epochs=3, gradients=None, lr=0.03, rho=0.05, alpha="adaptive",
    schedule="multistep",
)  # fmt: skip


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*arguments):
    """The outcome of `python -m lookbehind train …`, but in this process."""
    words = ["train", *" ".join(arguments).split()]
    result = CliRunner().invoke(cli, words, prog_name="python -m lookbehind")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback where the user should see one line
    return result


def recipe_of(*arguments):
    """What would be trained."""
    words, group = " ".join(arguments).split(), cli.make_context("", ["train"])
    values = TRAIN.make_context("train", words, parent=group)
    return fill_in({n: v for n, v in values.params.items() if n in asdict(RECIPE)})


def history_in(folder):
    return json.loads(Path(folder, HISTORY).read_text(encoding="utf-8"))


OFFICIAL = Recipe(
    dataset="cifar10", model="resnet34", method="Lookbehind-SAM", k=2, rho=0.05, eta=0.01,
    alpha="adaptive", lr=0.1, momentum=0.9, weight_decay=5e-4, batch_size=128,
    schedule="multistep", epochs=200, gradients=None, augment=True, seed=0,
)  # fmt: skip
ASAM = replace(OFFICIAL, method="Lookbehind-ASAM", rho=0.5)
LINES = {  # every command line of the official README, in its old and its new spelling; defaults
    "--minimizer LookbehindSAM --rho 0.05 --k 2 --alpha -1": OFFICIAL,
    "--minimizer Lookbehind_SAM --rho 0.05 --k 2 --alpha -1": OFFICIAL,
    "--minimizer LookbehindASAM --rho 0.5 --k 2 --alpha -1": ASAM,
    "--minimizer Lookbehind_ASAM --rho 0.5 --k 2 --alpha -1": ASAM,
    "--minimizer LookbehindSAM --rho 0.05 --k 2 --alpha 0.5": replace(OFFICIAL, alpha=0.5),
    "--dataset CIFAR100 --model resnet50": replace(OFFICIAL, dataset="cifar100", model="resnet50"),
    "": OFFICIAL,
    "--method lookbehind-asam": ASAM,
    "--method asam": replace(ASAM, method="ASAM", alpha=0.5),
    "--method lookahead-sam": replace(OFFICIAL, method="Lookahead-SAM", alpha=0.5),
    "--dataset digits": replace(OFFICIAL, dataset="digits", augment=False),
    "--dataset ./Cifar-10": replace(OFFICIAL, dataset="./Cifar-10"),
    "--dataset images/CIFAR10": replace(OFFICIAL, dataset="images/CIFAR10"),
    "--gradients 900": replace(OFFICIAL, epochs=None, gradients=900),
    # every other option of example_cifar.py, spelled as there
    "--lr 0.2 --momentum 0.8 --weight_decay 0.001 --eta 0.0":
        replace(OFFICIAL, lr=0.2, momentum=0.8, weight_decay=0.001, eta=0.0),
    "--batch_size 64 --epochs 100 --k 5": replace(OFFICIAL, batch_size=64, epochs=100, k=5),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_the_command_lines_of_the_official_readme_are_understood(line):
    assert recipe_of(line) == LINES[line]


@pytest.mark.parametrize(("spell", "joint"), [(str.upper, ""), (str.lower, "-"), (str.title, "_")])
def test_names_are_known_however_they_are_spelled(spell, joint):
    def spelled(name):
        return spell(name.replace("-", joint))

    datasets = {name: name.replace("cifar", "cifar-") for name in ("cifar10", "cifar100", "digits")}
    values = {"method": METHODS, "model": MODELS, "schedule": SCHEDULES}
    for field, names in {**values, "dataset": datasets}.items():
        for name in names:
            found = recipe_of(f"--{field}", spelled(datasets.get(name, name)), "--alpha 0.5")
            assert getattr(found, field) == name
    for option in TRAIN.params:
        words = [f"--{spelled(given[2:])}" for given in (*option.opts, *option.secondary_opts)]
        assert not any("No such option" in command(word, "--k x").output for word in words)


def test_the_console_script_is_the_command_line(monkeypatch, capsys):
    settings = Path(main.__code__.co_filename).parents[1] / "pyproject.toml"
    script = '\n[project.scripts]\nlookbehind = "lookbehind.__main__:main"\n'
    assert script in settings.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["/bin/lookbehind", "TRAIN", "--minimizer", "adam"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "train [OPTIONS]" in capsys.readouterr().err


def test_help_fits_80_columns_tells_an_option_for_every_setting_and_gives_commands():
    others = "root out resume quiet statistics perturbation device bf16 channels_last compile"
    assert {option.name for option in TRAIN.params} == {*asdict(RECIPE), *others.split()}
    text = command("--help").output
    assert max(map(len, text.splitlines())) <= 80
    for option in TRAIN.params:
        assert option.opts[0] in text and option.help
        assert option.help[-1] == "." and option.help.count(". ") == 0
        told = option.show_default is not True or option.default is not None
        assert told or option.name == "gradients"
    assert text.count("[default:") > 20
    assert "train" in CliRunner().invoke(cli, ["--help"]).output
    examples = text.partition("Examples")[2].replace("\\\n", " ")
    commands = re.findall(r"python -m lookbehind train (.*)", examples)
    assert [recipe_of(line).dataset for line in commands] == ["digits", "cifar10"]


def test_a_run_is_the_run_of_its_recipe():
    result = command(SMALL)
    assert result.exit_code == 0, result.output
    folder = "runs/digits-mlp-lookbehind-sam-k2-rho0.05-adaptive-lr0.03-seed0"
    written, outcome = history_in(folder), RECIPE.run()
    assert written["recipe"] == asdict(RECIPE)
    assert written["records"] == [asdict(record) for record in outcome.history.records]
    assert same(read_checkpoint(Path(folder, CHECKPOINT))["model"], outcome.model.state_dict())
    summary, history = written["summary"], outcome.history
    assert summary["state"] == "finished"
    assert summary["last"]["test"] == asdict(history.last("test"))
    assert summary["best_by_validation"]["test"] == asdict(history.best("test", "validation"))
    assert written["images"] == {"train": 60, "validation": 300, "test": 1437}
    assert (written["parameters"], written["versions"]["torch"]) == (8970, torch.__version__)
    assert written["hardware"]["device"] == "cpu"
    assert not list(Path(folder).glob("*.part"))


def test_a_run_says_what_it_does():
    lines = command(SMALL, "--label-noise", "0.4").output.splitlines()
    start, records, end = lines[:4], lines[4:8], lines[8:]
    assert "Lookbehind-SAM: k 2, ρ 0.05, α adaptive, lr 0.03" in start[0]
    assert "60 train, 300 validation, 1,437 test" in start[1] and "40% of" in start[1]
    assert "8,970 parameters" in start[2] and "3 gradients a minibatch" in start[3]
    assert [line.split()[1] for line in records] == ["0.00", "1.00", "2.00", "3.00"]
    assert all("train " in line and "validation " in line for line in records)
    assert end[0].startswith("Finished") and end[4].startswith("Best by validation, at epoch")
    assert end[-1].endswith("history.json and checkpoint.pt")


def test_quiet_prints_the_result_only_and_without_validation_no_best():
    output = command(SMALL, "--quiet", "--validation", "0", "--out a").output
    assert [line.split()[0] for line in output.splitlines()] == ["Finished", "train", "test", "In"]
    assert history_in("a")["summary"]["best_by_validation"] == {}


def test_a_folder_that_holds_a_run_is_refused_or_resumed_and_stays_as_it_was():
    command(SMALL, "--out a")
    before = {path: path.read_bytes() for path in Path("a").iterdir()}
    for more in ("", "--resume --lr 0.1"):
        result = command(SMALL, more, "--out a")
        assert result.exit_code == 1
        assert re.search("already holds a run|lr = 0.03, this one has lr = 0.1", result.output)
        assert {path: path.read_bytes() for path in Path("a").iterdir()} == before
    history = history_in("a")
    result = command(SMALL, "--out a --resume")
    assert result.exit_code == 0 and "Finished" in result.output
    assert history_in("a") == history


def test_resume_without_a_checkpoint_starts_anew_aloud_and_keeps_the_old_history():
    Path("a").mkdir()
    Path("a", HISTORY).write_text("old")
    result = command(SMALL, "--out a", "--resume")
    assert result.exit_code == 0 and "no checkpoint in a: the run starts anew" in result.output
    assert Path("a", f"{HISTORY}.old").read_text() == "old"
    assert history_in("a")["records"] == [asdict(r) for r in RECIPE.run().history.records]


def test_what_torch_refuses_is_an_error_in_words(monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    monkeypatch.setattr(Recipe, "run", Mock(side_effect=error))
    result = command(SMALL)
    assert result.exit_code == 1 and result.output.startswith("Error: CUDA out of memory. Tried")


def test_ctrl_c_while_the_data_is_loaded(monkeypatch):
    monkeypatch.setattr(Recipe, "load", Mock(side_effect=KeyboardInterrupt))
    assert command(SMALL).exit_code == 130
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "wild", ["lr 1e18 --method sgd", "lr 3e38", "rho 3e38", "weight-decay 3e38"]
)
def test_divergence_is_told_with_a_hint_and_the_history_is_kept(wild):
    result = command(SMALL, f"--{wild} --out a")
    assert result.exit_code == 1
    assert "not finite" in result.output and "Try a lower --lr or --rho" in result.output
    if wild != "rho 3e38":  # which has no history: it ends within the first step
        written = history_in("a")
        assert written["summary"]["state"] == "diverged"
        assert [record["gradients"] for record in written["records"]] == [0, 0, 0]


def test_a_folder_of_images_is_augmented():
    folder = paint(Path("images"), size=(8, 8))
    result = command(f"--dataset {folder} --model tiny-cnn --epochs 1 --batch-size 6 --out a")
    assert result.exit_code == 0 and "images of 3 x 8 x 8, 2 classes, augmented" in result.output
    assert history_in("a")["recipe"]["augment"] is True
    assert history_in("a")["images"] == {"train": 6, "test": 6}


def test_statistics_and_hardware_reach_the_run():
    small = "--dataset digits --model tiny-cnn --train 60 --epochs 1 --quiet"
    variants = ["", "--statistics every", "--bf16", "--no-channels-last"]
    for i, more in enumerate(variants):
        assert command(small, more, f"--out {i}").exit_code == 0
    runs = [history_in(str(i)) for i in range(len(variants))]
    assert runs[0]["records"] != runs[1]["records"] and runs[1]["statistics"] == "every"
    assert runs[0]["records"] != runs[2]["records"]
    assert runs[2]["hardware"]["autocast"] == "torch.bfloat16"
    assert [run["hardware"]["channels_last"] for run in runs] == [True, True, True, False]


@pytest.mark.parametrize("given", ["", "two", "-1", "0", "1.5", "2"])
def test_wrong_processes_are_an_error_in_words(given, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", given)
    number = "WORLD_SIZE must be an int ≥ 1, as launchers set it, got '"
    device = "device of several processes must be auto, cuda or cpu"
    result = command("--device cuda:1")
    assert result.exit_code == 2 and (device if given == "2" else number) in result.output


BAD = {
    "--lr abc": "'--lr': 'abc' is not a valid float",
    "--lr -1": "lr must be a finite number ≥ 0; got -1.0",
    "--k 1.5": "'--k': '1.5' is not a valid integer",
    "--alpha auto": """alpha must be a finite number in [0, 1] or "adaptive"; got 'auto'""",
    "--model vgg": "model must be one of mlp, tiny-cnn, ",
    "--minimizer adam": "method must be one of SGD, SAM, ",
    "--statistics fast": 'statistics must be "slow" or "every", got \'fast\'',
    "--lr 1e39": "lr must be at most 3.4028234663852886e+38, got 1e+39",
    "--seed 99999999999999999999": "seed must be at most 9223372036854775807, got 99999999999999",
    "--device tpu": "cpu, as this machine has them, got 'tpu'",
    "--mode resnet34": "No such option '--mode'",
    # by what the data are
    "--dataset images": "images/train is missing: put the images into",
    "--dataset cifar": '"cifar10", "cifar100" or a folder that holds train/ and test/, got \'cifar',
    "--dataset digits --train 1797": "train must be an int in [1, 1796], got 1797",
}


@pytest.mark.parametrize("arguments", BAD)
def test_a_wrong_option_is_named_with_what_is_allowed(arguments):
    Path("images").mkdir()
    result = command(arguments)
    assert result.exit_code == (1 if arguments.startswith("--dataset") else 2)
    assert "Error: " in result.output and BAD[arguments] in " ".join(result.output.split())
    assert [*Path().rglob("*")] == [Path("images")]


def test_without_click_the_command_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match=r"needs click: pip install 'lookbehind\[notebooks\]'"):
        runpy.run_path(str(Path(cli.callback.__code__.co_filename)))
