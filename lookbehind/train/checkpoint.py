"""Checkpoints: one file, written whole or not at all, read without running code from it."""

import hashlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lookbehind.files import written_whole
from lookbehind.scores import changed

FORMAT = "lookbehind checkpoint 1"


class CheckpointError(ValueError):
    """The file is no checkpoint, is damaged, or belongs to another run."""


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, and plain values in dicts and lists), and a fingerprint of all that.

    Raises OSError where the disk is full or the folder can't be written to; the old checkpoint then
    stays.
    """
    with written_whole(path) as file:
        torch.save({"format": FORMAT, "fingerprint": _fingerprint(state), **state}, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, its tensors on the CPU.

    Raises FileNotFoundError where there is no file, and CheckpointError where it is truncated or
    altered, holds anything but tensors and plain values, or was written by something else.
    """
    with Path(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            file.seek(0)
            state = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            words = "is not a whole checkpoint: truncated, or a file of another kind"
            raise CheckpointError(f"{path} {words}") from error
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path} holds more than tensors and plain values") from error
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} was not written by lookbehind: {error}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its part {damaged} is wrong")
    if not isinstance(state, dict) or state.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path} was not written by lookbehind ({FORMAT!r} is missing)")
    if state.pop("fingerprint", None) != _fingerprint(state):
        raise CheckpointError(f"{path} was altered after it was written")
    return state


def check_fits(path: str | Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless both are states of runs of one plan, and one network."""
    if missing := sorted(ours.keys() - theirs.keys() - {"scale"}):  # only a float16 run has one
        raise CheckpointError(f"{path} is no checkpoint of a run: it lacks {missing}")
    plans = [{**plan, **plan["config"], "config": None} for plan in (theirs["plan"], ours["plan"])]
    for name, found, here in _differences(*plans):
        words = f"{name} = {found!r}, this one has {name} = {here!r}"
        raise CheckpointError(f"{path} is of a run with {words}")
    shapes = [{n: tuple(w.shape) for n, w in each["model"].items()} for each in (theirs, ours)]
    for name, found, here in _differences(*shapes):
        raise CheckpointError(f"{path} holds another model: {name} has shape {found}, here {here}")


def _differences(theirs: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    for name in {**ours, **theirs}:
        if theirs.get(name) != ours.get(name):
            yield name, theirs.get(name), ours.get(name)


def _fingerprint(state: Mapping[str, Any]) -> str:
    """Of tensors by their bytes, of the rest by its words."""
    words = changed(state, lambda t: _sha256(t.cpu().flatten().view(torch.uint8).numpy()))
    return _sha256(repr(words).encode())


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
