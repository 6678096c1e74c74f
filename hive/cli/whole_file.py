"""A file that appears whole or not at all. For commands that write what somebody keeps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MODE = 0o600
"""A log holds everybody's messages."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write beside the file and put it in its place at the end of the block; an error leaves what was there.

    A pipe or a device is written to as it is. Raises OSError.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
