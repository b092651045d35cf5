"""The command line: `python -m lookbehind train …` trains one recipe and keeps what it did.

The options are the fields of a `Recipe`, which checks their values, and a few more; the defaults
are the official script's, and some depend on others (`fill_in`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lookbehind.optim import METHODS
from lookbehind.train import CHOICES, Alone, Hardware, Recipe, Setup, choose_hardware, join, journal

try:
    import click
    from tqdm.auto import tqdm
except ModuleNotFoundError as error:
    sys.exit(f"The command line needs {error.name}: pip install 'lookbehind[notebooks]'")

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
OFFICIAL = Recipe(
    dataset="cifar10", model="resnet34", rho=0.05, alpha="adaptive", lr=0.1, batch_size=128,
    schedule="multistep", epochs=200, gradients=None, augment=True,
)  # fmt: skip
MOST = {int: torch.iinfo(torch.int64).max, float: torch.finfo(torch.float32).max}
DEFAULTS = {"device": "auto", **vars(Setup()), **asdict(OFFICIAL)}
NAMES = {**CHOICES, "dataset": ("digits", "cifar10", "cifar100")}  # or the path of a folder
ADAPTIVE = [name for name, method in METHODS.items() if method.adaptive]


def plain(name: str) -> str:
    """A name without case, hyphens and underscores, as the official script spells some."""
    return name.replace("-", "").replace("_", "").casefold()


def fill_in(values: dict[str, Any]) -> Recipe:
    """The recipe of the command line; what was left open (None) depends on the rest."""
    for name, value in values.items():
        if type(value) in MOST and value > (most := MOST[type(value)]):
            raise ValueError(f"{name} must be at most {most}, got {value}")
    for name, known in NAMES.items():
        spelled = {plain(each): each for each in known}
        values[name] = spelled.get(plain(values[name]), values[name])
    method = values["method"]
    defaults: dict[str, Any] = {
        "rho": 0.5 if "ASAM" in method else OFFICIAL.rho,
        "alpha": OFFICIAL.alpha if method in ADAPTIVE else 0.5,
        "augment": values["dataset"] != "digits",
        "epochs": OFFICIAL.epochs if values["gradients"] is None else None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return Recipe(**{**values, **defaults, **given})


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


def alpha(value: str) -> float | str:
    """A number, or "adaptive", which the official script calls -1."""
    with suppress(ValueError):
        return "adaptive" if float(value) == -1 else float(value)
    return value


def option(name: str, kind: Any, help: str, shown: str | bool = True) -> click.Option:
    """An option of a type; its default may be None, which means what is shown."""
    field, flag = name.split()[0].partition("/")[0].strip("-").replace("-", "_"), kind is bool
    default = DEFAULTS.get(field, False if flag else None) if shown is True else None
    return click.Option(
        name.split(), type=kind, default=default, help=help, is_flag=flag, show_default=shown
    )


FOLDER, FASTEST = click.Path(file_okay=False, path_type=Path), "on where it is faster"
OPTIONS: dict[str, list[click.Option]] = {
    "Data": [
        option("--dataset", str, "digits, cifar10, cifar100, or a folder with train/ and test/."),
        option("--root", FOLDER, "Where CIFAR is kept.", "LOOKBEHIND_DATA, or the user's cache"),
        option("--train", int, "Training images.", "all; 500 digits"),
        option("--validation", int, "Held-out images.", "0; 300 digits"),
        option("--test", int, "Test images.", "all"),
        option("--label-noise", float, "Share of wrong training labels, in [0, 1]."),
        option("--augment/--no-augment", bool, "Random crops and flips.", "on, digits off"),
        option("--batch-size", int, "Images a minibatch."),
    ],
    "Model and method": [
        option("--model", str, f"{', '.join(CHOICES['model'])}."),
        option("--method --minimizer", str, f"{', '.join(METHODS)}."),
        option("--rho", float, "Radius of one ascent.", "0.05; 0.5 for ASAM kinds"),
        option("--eta", float, "Of ASAM kinds, added to |w|; official script: 0."),
        option("--k", int, "Inner steps."),
        option("--alpha", alpha, "Interpolation, 0 to 1 or adaptive.", "adaptive; Lookahead 0.5"),
        option("--gradient", str, "Of Multistep-SAM: last, mean."),
    ],
    "Training": [
        option("--lr", float, "Learning rate at the start."),
        option("--momentum", float, "Momentum of SGD, in [0, 1]."),
        option("--weight-decay", float, "Weight decay of SGD."),
        option("--label-smoothing --smoothing", float, "Smoothing of training labels, in [0, 1]."),
        option("--schedule", str, "cosine, constant, or multistep: lr x 0.1 at "
               "1/4, 1/2 and 3/4 of the run (epochs 50, 100, 150 of 200)."),
        option("--epochs", int, "Length of the run.", "200"),
        option("--gradients", int, "Length of the run in gradients, instead."),
        option("--seed", int, "Of splits, wrong labels, weights, minibatches."),
    ],
    "Hardware": [
        option("--device", str, "auto, cuda, cuda:1, mps, cpu."),
        option("--bf16/--no-bf16", bool, "Mixed precision.", FASTEST),
        option("--channels-last/--no-channels-last", bool, "Images as N, H, W, C.", FASTEST),
        option("--compile", bool, "Use torch.compile."),
        option("--statistics", str, "Gradients that update BatchNorm: "
               "slow (at the slow weights), every (as the official script)."),
        option("--perturbation", str, "Of several processes: global, or local."),
    ],
    "Output": [
        option("--out", FOLDER, "Folder of its history and checkpoint.", "runs/ and the settings"),
        option("--resume", bool, "Go on from the checkpoint in --out."),
        option("--quiet", bool, "Print the result only."),
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
                formatter.write_dl([r for each in options if (r := each.get_help_record(ctx))])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": plain}
)
def cli() -> None:
    """Lookbehind-SAM: k steps back, one step forward."""


@cli.command(cls=GroupedCommand, params=[*chain(*OPTIONS.values())], epilog=EXAMPLES)
def train(
    root: Path | None, out: Path | None, resume: bool, quiet: bool, device: str, **values: Any
) -> None:
    """Train a network, and keep its history and a checkpoint.

    The defaults are those of the official script, example_cifar.py of Lookbehind-SAM; rho, k and
    alpha those of its README. Ctrl-C stops after the step under way, for --resume to go on.
    """
    form = {name: values.pop(name) for name in ("bf16", "channels_last", "compile")}
    gradient: Any = {name: plain(values.pop(name)) for name in ("statistics", "perturbation")}
    with in_words(click.UsageError, TypeError, ValueError, RuntimeError):
        Setup(**gradient)
        recipe, (ranks, device) = fill_in(values), join(device)
        hardware = choose_hardware(device, **form)
    folder = out or Path("runs", journal.folder_name(recipe))
    code = keep(recipe, folder, ranks, hardware, gradient, root, resume, quiet or not ranks.main)
    ranks.leave()
    sys.exit(code)


@in_words(click.ClickException, ValueError, OSError, RuntimeError)
def keep(
    recipe: Recipe, folder: Path, ranks: Alone, hardware: Hardware, gradient: dict[str, Any],
    root: Path | None, resume: bool, silent: bool,
) -> int:  # fmt: skip
    """Train, with history and checkpoint in the folder; returns the exit code."""
    ranks.once(lambda: journal.claim(folder, resume))
    dataset = recipe.load(root, hardware.device)
    facts = journal.facts_of(recipe, hardware, dataset) | gradient | {"processes": ranks.world}
    say: Callable[[str], None] = (lambda _: None) if silent else tqdm.write
    say(journal.description(recipe, dataset, facts))
    log = journal.Journal(folder, facts, say)
    try:
        history = recipe.run(
            hardware=hardware, dataset=dataset, ranks=ranks, callbacks=[log] if ranks.main else [],
            checkpoint=folder / journal.CHECKPOINT, resume=resume,
            progress=not silent and sys.stderr.isatty(), **gradient,
        ).history  # fmt: skip
    except FloatingPointError as error:
        words = log.divergence(str(error))
        ranks.once(lambda: click.echo(f"Error: {words}", err=True))
        return 1
    ranks.once(lambda: click.echo(log.end(history)))
    return INTERRUPTED if history.stopped else 0


def main() -> None:
    """The command `lookbehind`, and `python -m lookbehind`."""
    for stream in (sys.stdout, sys.stderr):
        # ρ on any terminal, and a line at once, for a log that is looked at while it grows
        stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    cli()


if __name__ == "__main__":
    main()
