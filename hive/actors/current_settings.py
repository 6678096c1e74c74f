"""The settings of a running daemon: the last valid `hive.toml`, read again when it changes. Used by `daemon`."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from hive import settings as host_settings
from hive.errors import BadRequest
from hive.settings import Settings

log = structlog.get_logger()


class CurrentSettings:
    """The last valid `hive.toml`."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._read = self._written()
        self.now = host_settings.load(path)
        self.on_change: Callable[[Settings], None] = lambda _: None
        """Called after the file was read again."""

    def reload(self) -> None:
        """Read the file again if it changed. From any thread: whoever returns finds what the file holds."""
        with self._lock:
            self._reload()

    def _reload(self) -> None:
        if (written := self._written()) == self._read:
            return
        self._read = written
        try:
            self.now = host_settings.taken_over(self.now, host_settings.load(self._path))
        except BadRequest as error:
            log.warning("settings.refused", error=str(error))
        else:
            self.on_change(self.now)

    def _written(self) -> tuple[int, ...]:
        """Differs once the file was written or replaced."""
        if not self._path.exists():
            return ()
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
