"""An inotify descriptor for files that policies depend on. The daemon adds folders, the broker reads it.

The broker has no access to these folders, but the kernel queues a change before the call that made it returns. So a
request that follows the change can find it, without a question to the daemon for each request.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
CHANGES: Final = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
"""Not IN_MODIFY: a file that is still being written is not read, and the log in this folder is written all the time."""


class FileWatch:
    """One inotify instance. Without one, a change holds from the next policy that is sent for another reason."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            log.warning("broker.no_file_events", error=os.strerror(ctypes.get_errno()))

    def fileno(self) -> int:
        return int(self._fd)

    @property
    def works(self) -> bool:
        return self.fileno() >= 0

    def add(self, folders: Iterable[Path]) -> None:
        """Watch folders. One that is watched already stays so; one that does not exist is left out."""
        for folder in folders:
            if self.works and folder.is_dir():
                self._libc.inotify_add_watch(self._fd, os.fsencode(folder), CHANGES)

    def close(self) -> None:
        if self.works:
            os.close(self._fd)
            self._fd = -1
