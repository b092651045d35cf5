"""A file from the network: a download that broke off goes on where it was."""

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PIECE = 1 << 16  # bytes
PATIENCE = 60  # seconds without a byte


def download(url: str, path: Path) -> None:
    """Fetch `url` into `path`, with a bar that tells how long it will take.

    What has come stands in `path`.part until all is there: after an interruption, of whatever kind,
    the same call asks the host for the rest (HTTP's Range; a host that can't starts anew).

    Raises OSError or HTTPException where the host can't be reached or ends too early.
    """
    part = path.with_name(f"{path.name}.part")
    have = part.stat().st_size if part.exists() else 0
    asked = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            _keep(answer, part, have if answer.status == 206 else 0)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to send: the file was whole but for its name
            raise
    os.replace(part, path)


def _keep(answer: Any, part: Path, have: int) -> None:
    """Append the answer to the `have` bytes that are there."""
    from tqdm.auto import tqdm

    length = answer.headers["Content-Length"]
    total = have + int(length) if length else None
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem)
    with part.open("ab" if have else "wb") as file, bar:
        while piece := answer.read(PIECE):
            file.write(piece)
            bar.update(len(piece))
        if total and file.tell() < total:
            raise ConnectionError(f"it broke off after {file.tell():,} of {total:,} bytes")
