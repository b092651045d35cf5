"""The command line: `python -m lookbehind train …` trains one recipe and keeps what it did.

A folder of the run holds history.json, which is up to date after every record, and a checkpoint.
The options are those of a `Recipe`, whose names, values and checks are not stated again here; their
defaults are the official script's (`OFFICIAL`), and some depend on others (`fill_in`).
"""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from lookbehind.optim import METHODS
from lookbehind.scores import History
from lookbehind.train import (
    ALONE,
    MODELS,
    SCHEDULES,
    Alone,
    Ranks,
    Recipe,
    Session,
    Setup,
    choose_hardware,
    journal,
    started_as_one_of_several,
)
from lookbehind.train.data import Dataset

try:
    import click
    from tqdm.auto import tqdm
except ModuleNotFoundError as error:
    sys.exit(f"The command line needs {error.name}: pip install 'lookbehind[notebooks]'")


DATASETS = ("digits", "cifar10", "cifar100")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
OFFICIAL = Recipe(
    dataset="cifar10", model="resnet34", rho=0.05, alpha="adaptive", lr=0.1, batch_size=128,
    schedule="multistep", epochs=200, gradients=None, augment=True,
)  # fmt: skip
DEFAULTS = {"device": "auto", **vars(Setup()), **vars(Session()), **asdict(OFFICIAL)}


def dataset_name(value: str) -> str:
    """A name in any case, or the path of a folder."""
    if value.lower() in DATASETS:
        return value.lower()
    if not Path(value).is_dir():
        raise click.BadParameter(f"{value!r} is neither {', '.join(DATASETS)} nor a folder.")
    return value


def number_or_adaptive(value: str) -> float | str:
    """α as a number in [0, 1], or "adaptive", which the official script calls -1."""
    if value in ("adaptive", "-1"):
        return "adaptive"
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise click.BadParameter(f'{value!r} is not a number in [0, 1] or "adaptive".')
    return number


def fill_in(values: dict[str, Any]) -> Recipe:
    """The recipe of the command line; what was left open (None) depends on the rest."""
    method, adaptive = values["method"], METHODS[values["method"]].adaptive
    defaults: dict[str, Any] = {
        "rho": 0.5 if "ASAM" in method else OFFICIAL.rho,
        "alpha": OFFICIAL.alpha if adaptive else 0.5,
        "augment": values["dataset"] != "digits",
        "epochs": OFFICIAL.epochs if values["gradients"] is None else None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return Recipe(**{**values, **defaults, **given})


def description(recipe: Recipe, dataset: Dataset, facts: dict[str, Any]) -> str:
    """What is going to be done, in a few lines."""
    sizes = ", ".join(f"{count:,} {name}" for name, count in facts["images"].items())
    shape = " x ".join(map(str, (dataset.channels, *dataset.size)))
    noise = f", {100 * recipe.label_noise:g}% of the training labels wrong"
    where = facts["hardware"]["name"]
    if (processes := facts["processes"]) > 1:
        where += f", in {processes} processes"
    budget = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.gradients:,} gradients"
    minibatches = f"{len(recipe.batches(dataset)):,} minibatches of {recipe.batch_size} an epoch"
    lines = (
        f"{recipe}, {recipe.schedule} schedule, seed {recipe.seed}",
        f"{recipe.dataset}: {sizes} images of {shape}, {len(dataset.classes)} classes"
        f"{noise * bool(recipe.label_noise)}{', augmented' * recipe.augment}",
        f"{recipe.model}: {facts['parameters']:,} parameters, on {where}",
        f"{budget}, {minibatches}, {METHODS[recipe.method].cost(recipe.k)} gradients a minibatch",
    )
    return "\n".join(lines)


def claim(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds a run which is not to be resumed."""
    files = journal.held(folder)
    if files and not resume:
        raise click.ClickException(
            f"{folder} already holds a run ({' and '.join(files)}). "
            "Add --resume to go on with it, or name another folder with --out."
        )
    if resume and journal.CHECKPOINT not in files:
        click.echo(f"There is no checkpoint in {folder}: the run starts anew.", err=True)
        if files:
            (folder / journal.HISTORY).replace(folder / f"{journal.HISTORY}.old")


@contextmanager
def in_words(kind: type[click.ClickException], *errors: type[Exception]) -> Iterator[None]:
    """These errors as one line instead of a traceback, and Ctrl-C as shells have it."""
    try:
        yield
    except errors as error:
        raise kind(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)


def join(device: str) -> Alone:
    """The processes that train together, where a launcher has started several."""
    if not started_as_one_of_several():
        return ALONE
    if device not in ("auto", "cuda", "cpu"):
        raise ValueError(f"device of several processes must be auto, cuda or cpu, got {device!r}")
    return Ranks(cpu=device == "cpu")


def follow(log: journal.Journal, run: Callable[[], History], ranks: Alone) -> None:
    """`run`, and what the main process says of it; exits where it was stopped or diverged."""
    try:
        history = run()
    except FloatingPointError as error:
        reason, code = str(error), 1
        ranks.once(lambda: tell_divergence(log, reason))
    else:
        code = INTERRUPTED if history.stopped else 0
        ranks.once(lambda: tell(log, history))
    ranks.leave()
    if code:
        sys.exit(code)


def tell_divergence(log: journal.Journal, reason: str) -> None:
    kept = ""
    if log.run is not None:
        log.write("diverged", log.run.records)
        kept = f" The scores so far are in {log.folder / journal.HISTORY}."
    click.ClickException(f"{reason}. Try a lower --lr or --rho.{kept}").show()


def tell(log: journal.Journal, history: History) -> None:
    """What the run came to: scores, files, how to go on."""
    result = log.write("stopped" if history.stopped else "finished", history.records)
    click.echo(f"{result['state'].capitalize()} after {log.elapsed}:")
    for name, last in result["last"].items():
        click.echo(f"  {name:<10}  loss {last['loss']:.4f}  accuracy {last['accuracy']:.2%}")
    if best := result["best_by_validation"].get("test"):
        words = f"Best by validation, at epoch {best['epoch']:g}"
        click.echo(f"{words}: test loss {best['loss']:.4f}, accuracy {best['accuracy']:.2%}")
    click.echo(f"In {log.folder}: {' and '.join(journal.held(log.folder))}")
    if history.stopped:
        click.echo("Go on with the same command and --resume.")


def print_beside_bar(line: str) -> None:
    """At once, for a log that is looked at while it grows; a progress bar makes room."""
    with tqdm.external_write_mode():
        click.echo(line)


def option(name: str, kind: Any, help: str, shown: str | bool = True) -> click.Option:
    """An option with its default of `DEFAULTS`; or None, and `shown` says what is meant by it."""
    field = name.split()[0].partition("/")[0].strip("-").replace("-", "_")
    default, flag = DEFAULTS.get(field) if shown is True else None, kind is FLAG
    return click.Option(
        name.split(), type=bool if flag else kind, default=False if flag else default, help=help,
        is_flag=True if flag else None, show_default=shown, metavar=METAVARS.get(type(kind)),
    )  # fmt: skip


def names(allowed: Iterable[str]) -> "click.Choice[str]":
    return click.Choice(list(allowed), case_sensitive=False)


METAVARS: dict[type, str] = {
    click.IntRange: "N",
    click.FloatRange: "X",
    click.Choice: "NAME",
    FunctionType: "VALUE",
}
COUNT, COUNT_OR_0 = click.IntRange(1), click.IntRange(0)
SHARE, POSITIVE = click.FloatRange(0, 1), click.FloatRange(0)
COUNT.name, COUNT_OR_0.name = "int ≥ 1", "int ≥ 0"  # for "'x' is not a valid …"
SHARE.name, POSITIVE.name = "number in [0, 1]", "number ≥ 0"
FLAG, FOLDER = "flag", click.Path(file_okay=False, path_type=Path)
FASTEST = "on where it is faster"

OPTIONS: dict[str, list[click.Option]] = {
    "Data": [
        option("--dataset", dataset_name,
               "digits, cifar10, cifar100, or a folder with train/ and test/."),
        option("--root", FOLDER, "Where CIFAR is kept.", "LOOKBEHIND_DATA, or the user's cache"),
        option("--train", COUNT, "Training images.", "all; 500 digits"),
        option("--validation", COUNT_OR_0, "Held-out images.", "0; 300 digits"),
        option("--test", COUNT, "Test images.", "all"),
        option("--label-noise", SHARE, "Share of wrong training labels."),
        option("--augment/--no-augment", bool, "Random crops and flips.", "on, digits off"),
        option("--batch-size", COUNT, "Images a minibatch."),
    ],
    "Model and method": [
        option("--model", names(MODELS), f"{', '.join(MODELS)}."),
        option("--method --minimizer", names(METHODS), f"{', '.join(METHODS)}."),
        option("--rho", POSITIVE, "Radius of one ascent.", "0.05; 0.5 for ASAM kinds"),
        option("--eta", POSITIVE, "Of ASAM kinds, added to |w|; official script: 0."),
        option("--k", COUNT, "Inner steps."),
        option("--alpha", number_or_adaptive, "Interpolation, in [0, 1] or adaptive.",
               "adaptive; Lookahead-SAM 0.5"),
        option("--gradient", names(("last", "mean")), "Of Multistep-SAM: last, mean."),
    ],
    "Training": [
        option("--lr", POSITIVE, "Learning rate at the start."),
        option("--momentum", SHARE, "Momentum of SGD."),
        option("--weight-decay", POSITIVE, "Weight decay of SGD."),
        option("--label-smoothing", SHARE, "Smoothing of the training labels."),
        option("--schedule", names(SCHEDULES), "cosine, constant, or multistep: lr x 0.1 at "
               "1/4, 1/2 and 3/4 of the run (epochs 50, 100, 150 of 200)."),
        option("--epochs", COUNT, "Length of the run.", "200"),
        option("--gradients", COUNT, "Length of the run in gradients, instead."),
        option("--seed", COUNT_OR_0, "Of splits, wrong labels, weights, minibatches."),
    ],
    "Hardware": [
        option("--device", str, "auto, cuda, cuda:1, mps, cpu."),
        option("--bf16/--no-bf16", bool, "Mixed precision.", FASTEST),
        option("--channels-last/--no-channels-last", bool, "Images as N, H, W, C.", FASTEST),
        option("--compile", FLAG, "Use torch.compile."),
        option("--statistics", names(("slow", "every")), "Gradients that update BatchNorm: "
               "slow (at the slow weights), every (as the official script)."),
        option("--perturbation", names(("global", "local")),
               "Of several processes: global, or local to each."),
    ],
    "Output": [
        option("--out", FOLDER, f"Folder of {journal.HISTORY} and {journal.CHECKPOINT}.",
               "runs/ and the settings"),
        option("--resume", FLAG, "Go on from the checkpoint in --out."),
        option("--quiet", FLAG, "Print the result only."),
    ],
}  # fmt: skip
EXAMPLES = """\
\b
Examples: digits on a CPU in seconds, then what the paper trains:
  python -m lookbehind train --dataset digits --model mlp --lr 0.03 \\
      --batch-size 50 --epochs 40 --label-noise 0.4 --rho 0.2
  python -m lookbehind train --rho 0.05 --k 2 --alpha adaptive
On 2 GPUs:
  torchrun --nproc-per-node 2 -m lookbehind train --rho 0.05 --k 2
"""


class GroupedCommand(click.Command):
    """A command whose help lists its options under the titles of `OPTIONS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in OPTIONS.items():
            with formatter.section(title):
                records = (each.get_help_record(ctx) for each in options)
                formatter.write_dl([record for record in records if record])


def train(
    root: Path | None, out: Path | None, resume: bool, quiet: bool, device: str, **values: Any
) -> None:
    """Train a network, and keep its history and a checkpoint.

    The defaults are those of the official script, example_cifar.py of Lookbehind-SAM; rho, k and
    alpha those of its README. Ctrl-C stops after the step under way, for --resume to go on.
    """
    form, gradient = (
        {name: values.pop(name) for name in some}
        for some in (("bf16", "channels_last", "compile"), ("statistics", "perturbation"))
    )
    with in_words(click.UsageError, TypeError, ValueError):
        recipe, ranks = fill_in(values), join(device)
        if isinstance(ranks, Ranks):
            device = ranks.device.type  # its own of them is the current one
        hardware = choose_hardware(device, **form)
    folder = out or Path("runs", journal.folder_name(recipe))
    silent = quiet or not ranks.main
    say: Callable[[str], None] = (lambda _: None) if silent else print_beside_bar
    with in_words(click.ClickException, ValueError, OSError):
        ranks.once(lambda: claim(folder, resume))
        dataset = recipe.load(root, hardware.device)
        facts = journal.facts_of(recipe, hardware, dataset) | gradient | {"processes": ranks.world}
        ranks.once(lambda: folder.mkdir(parents=True, exist_ok=True))
        say(description(recipe, dataset, facts))
        log = journal.Journal(folder, facts, say)
        run = partial(
            recipe.run, hardware=hardware, dataset=dataset, ranks=ranks, **gradient,
            callbacks=[log] if ranks.main else [], checkpoint=folder / journal.CHECKPOINT,
            resume=resume, progress=not silent and sys.stderr.isatty(),
        )  # fmt: skip
        follow(log, lambda: run().history, ranks)


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),  # as the official script's
    }
)
def cli() -> None:
    """Lookbehind-SAM: k steps back, one step forward."""


params: list[click.Parameter] = [each for options in OPTIONS.values() for each in options]
cli.add_command(
    GroupedCommand("train", callback=train, params=params, epilog=EXAMPLES, help=train.__doc__)
)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # ρ on any terminal
    cli(prog_name="python -m lookbehind")
