"""Writes the journal's batches to the log, and what it does where the disk refuses them."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import structlog

from hive.clock import MS_PER_S, Clock, DurationMs, TimeMs
from hive.errors import Unavailable
from hive.events.log import EventLog
from hive.projections.store import FILE_NAME, discard
from hive.reserve import Reserve

log = structlog.get_logger()

REFUSE_MS: DurationMs = 1_000
"""After a failed commit, commands are refused so long without a try: each failure loads the whole state again."""
REFUSE_FACTOR: Final = 10
"""Or this multiple of what that took."""
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class LogWriter:
    """Appends to the log, on a full disk in the room that the reserve releases.

    Everything but `append` is called on the journal's thread only.
    """

    def __init__(self, folder: Path, clock: Clock):
        """Open the log.

        Raises:
            CorruptState, Unavailable: the log cannot be used.
        """
        self._clock = clock
        self._reserve = Reserve(folder)
        self.log = self._opened(folder)
        self._reserve.fill()
        self._refusal: Unavailable | None = None
        self._until_ms: TimeMs = 0

    def append(self, rows: list[tuple[str, str, str, str]]) -> None:
        """Chain and commit (at, type, data, by) rows.

        Raises:
            Unavailable: the disk refused, and the reserve is used up; nothing was appended.
        """
        while True:
            try:
                self.log.append(rows)
            except Unavailable:
                if not self._reserve.release(sum(len(data) for _, _, data, _ in rows)):
                    raise
                log.warning("journal.uses_the_reserve", events=len(rows))
            else:
                return

    def rest(self, error: Unavailable, reload: Callable[[], None]) -> None:
        """Load the state again after a failed commit, and refuse the commands of the next moment without a try."""
        began_s = time.perf_counter()
        reload()
        took_ms = (time.perf_counter() - began_s) * MS_PER_S
        self._refusal = error
        self._until_ms = self._clock.now_ms() + max(REFUSE_MS, int(REFUSE_FACTOR * took_ms))

    def refuse_resting(self) -> None:
        """Raises Unavailable: a commit failed a moment ago."""
        if self._refusal is not None:
            if self._clock.now_ms() < self._until_ms:
                raise self._refusal
            self._refusal = None

    def has_room(self) -> bool:
        """Whether the reserve is whole. Without it only the log is written, because nothing else has its content."""
        return self._reserve.is_whole()

    def _opened(self, folder: Path) -> EventLog:
        """SQLite needs a little room to open a log, from the reserve or from the projections."""
        while True:
            try:
                return EventLog(folder)
            except (apsw.FullError, apsw.IOError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in NO_ROOM:
                    raise
                if not self._reserve.release(0) and not _discards_projections(folder):
                    raise Unavailable(
                        f"The log in {folder} cannot be opened: {error}. Free disk space or check the disk, then start"
                        " the daemon again."
                    ) from error


def _discards_projections(folder: Path) -> bool:
    """False: there are none. The log has everything that is in them."""
    path = folder / FILE_NAME
    if not path.exists():
        return False
    log.warning("journal.no_room_to_open", discarded=FILE_NAME)
    discard(path)
    return True
