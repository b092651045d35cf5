"""Checkpoints: one file, written whole or not at all, read without running code from it."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lookbehind.files import written_whole

FORMAT = "lookbehind checkpoint 1"


class CheckpointError(ValueError):
    """The file is no checkpoint, is damaged, or belongs to another run."""


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors, and plain values in dicts and lists) to `path`, whole or not at all.

    See `lookbehind.files`. Raises OSError where the disk is full or the folder can't be written to;
    the old checkpoint then stays.
    """
    with written_whole(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, its tensors on the CPU.

    Raises FileNotFoundError where there is no file, and CheckpointError where it is truncated or
    altered (the checksums of all its parts are compared), holds anything but tensors and plain
    values, or was written by something else.
    """
    with Path(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
            words = "is not a whole checkpoint: truncated, or a file of another kind"
            raise CheckpointError(f"{path} {words}") from error
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: the checksum of its part {damaged} is wrong")
        file.seek(0)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            words = "holds more than tensors and plain values; it was not loaded"
            raise CheckpointError(f"{path} {words}") from error
        except (RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
            raise CheckpointError(f"{path} was not written by lookbehind: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by lookbehind ({FORMAT!r} is missing)")
    return state
