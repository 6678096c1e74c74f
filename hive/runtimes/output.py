"""Output of a program in files of limited size. The shim writes it; `record` reads it. Stdlib only."""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH105

import os

OUTPUT_FILE_BYTES = 4 * 1024 * 1024
"""An agent's output has at most two files of this size."""

TAIL_BYTES = 4096
"""Kept in memory; `end_cause` searches it for the kernel's error texts."""


class Output:
    """The program's output in two files of limited size. A full disk loses lines but does not stop the program."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.tail = b""
        """The newest output."""
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        try:
            if self._size + len(data) > OUTPUT_FILE_BYTES:
                full = self._fd
                os.replace(self._path, f"{self._path}.1")
                self._open()
                os.close(full)
            self._size += os.write(self._fd, data)
        except OSError:
            return
