"""Records the end of the log outside the log: in an anchor file and in the system journal. Reveals truncation."""

from collections.abc import Callable
from typing import Literal

import pykka
import structlog

from hive.actors import mail
from hive.audit import anchors
from hive.audit.reading import translating_sqlite_errors
from hive.audit.system_journal import SystemJournal
from hive.clock import Clock, DurationMs, TimeMs
from hive.errors import HiveError
from hive.events.base import Seq
from hive.events.log import GENESIS, Head, LogReader
from hive.paths import Paths

log = structlog.get_logger()

FILE_EVERY_MS: DurationMs = 10_000
"""Between two lines of the anchor file, while the log grows. A truncation of newer events is not detected."""
JOURNAL_EVERY_MS: DurationMs = 60_000
"""Between two entries of the system journal."""


class Anchoring(pykka.ThreadingActor):
    """Reads the log's end periodically over its own connection, so that no commit waits for it.

    A crash loses nothing: the next actor records the end that it finds.
    """

    use_daemon_thread = True

    def __init__(self, anchors: "Anchors", clock: Clock):
        super().__init__()
        self._anchors = anchors
        self._clock = clock
        self._cancel: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        self.on_receive("look")

    def on_receive(self, _message: Literal["look"]) -> None:
        self._anchors.note()
        due = self._clock.now_ms() + FILE_EVERY_MS
        self._cancel = self._clock.call_at(due, lambda: mail.tell(self.actor_ref, "look"))

    def on_stop(self) -> None:
        self._cancel()


class Anchors:
    """The recorded anchors of one log. Owned by the actor while it runs; the daemon records the last one."""

    def __init__(self, paths: Paths, clock: Clock, journal: SystemJournal):
        self._paths = paths
        self._clock = clock
        self._journal = journal
        self._in_file: Seq = 0
        self._in_journal: Seq = 0
        self._journal_due_ms: TimeMs = 0
        self._has_failed = False

    def note(self, *, last: bool = False) -> None:
        """Record the end if it is new. An error is logged once and retried at the next interval.

        `last`: the log is closed; there is no next interval.
        """
        try:
            first, head = self._ends(daemon_runs=not last)
            self._to_journal(first, head, last=last)
            if head.seq > self._in_file:
                anchors.add(self._paths.anchors, head, self._clock.now_ms())
                self._in_file = head.seq
            self._has_failed = False
        except (OSError, HiveError) as error:
            if not self._has_failed:
                log.warning("anchoring.failed", error=str(error))
            self._has_failed = True

    def _to_journal(self, first: bytes, head: Head, *, last: bool) -> None:
        now = self._clock.now_ms()
        if head.seq > self._in_journal and (last or now >= self._journal_due_ms):
            self._journal_due_ms = now + JOURNAL_EVERY_MS
            if self._journal.note(self._paths.state, first, head):
                self._in_journal = head.seq

    def _ends(self, *, daemon_runs: bool) -> tuple[bytes, Head]:
        """The hash of the first event, and the head."""
        with translating_sqlite_errors(self._paths.events):
            reader = LogReader(self._paths.state, daemon_runs=daemon_runs)
            try:
                return reader.hash_at(1) or GENESIS, reader.head()
            finally:
                reader.close()
