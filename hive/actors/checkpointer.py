"""Checkpoints the log's WAL on its own thread, so that no commit waits for it."""

import contextlib
from pathlib import Path
from typing import Literal

import apsw
import pykka

from hive.events.log import checkpoint
from hive.reserve import Reserve


class Checkpointer(pykka.ThreadingActor):
    """A crash loses nothing: the WAL grows until the next actor is told to checkpoint."""

    use_daemon_thread = True

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder
        self._reserve = Reserve(folder)
        self._db: apsw.Connection

    def on_start(self) -> None:
        self._db = checkpoint(self._folder)

    def on_receive(self, message: Literal["wal_is_long"]) -> None:
        if self._reserve.is_whole():  # A checkpoint would use up the room that is left for new events.
            with contextlib.suppress(apsw.FullError, apsw.IOError):  # The WAL grows until there is room.
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def on_stop(self) -> None:
        self._db.close()
