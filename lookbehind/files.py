"""A file written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def written_whole(path: str | Path, shared: bool = False) -> Iterator[BinaryIO]:
    """A file that becomes `path` where the block ends, and leaves nothing where it raises.

    It is written beside `path`, brought to the disk (fsync) and renamed: whenever the process is
    killed, `path` holds the whole old or the whole new file. `shared`: other processes may write it
    at the same time, so each writes a part of its own name. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}{f'.{uuid4().hex}' if shared else ''}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
