"""A real journal on a real folder, for tests of actors."""

import concurrent.futures
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import blinker
import pykka

from hive.actors.journal import Journal
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.journal_messages import Decided, Submission, Submit
from hive.clock import Clock, SystemClock, TimeMs
from hive.deciders.base import Command
from hive.deciders.roster import Spawn
from hive.events import AnyEvent
from hive.events.base import By, actor
from hive.events.codec import Codec
from hive.events.log import LogReader, Row, verify
from hive.projections.hive import digest, fold
from hive.projections.table import Recorded

from .manual_clock import ManualClock

DEADLINE_S = 30.0
"""Generous; only a defect takes this long."""
STEP_S = 0.002
RESTED_MS = 3_600_000
"""Longer than the journal rests after a failed commit on any machine."""
OPERATOR_BY = By("operator", "mara", uid=1000, way="host")
DAEMON_BY = actor("daemon")

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str) -> Found:
    """Call `look` until it returns a true value, and return that value."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(STEP_S)
    return found


class RealTimers:
    """The journal's clock: manual time, but real timers.

    So `waits_for` of the manual clock shows only the timers of the tested actors.
    """

    def __init__(self, manual: ManualClock):
        self._manual = manual
        self._real = SystemClock()

    def now_ms(self) -> TimeMs:
        return self._manual.now_ms()

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        return self._real.call_at(self._real.now_ms() + at - self.now_ms(), then)


class JournalEnvironment:
    """A journal, its client, its clock and the committed events."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manual = ManualClock()
        self.clock: Clock = self.manual
        self.batches: list[list[AnyEvent]] = []
        self.open()

    def open(self) -> None:
        self.committed = blinker.Signal()
        self.committed.connect(self._on_committed)
        self.journal: pykka.ActorRef[Any] = Journal.start(self.folder, RealTimers(self.manual), self.committed)
        self.client = BlockingJournalClient(self.journal)

    def reopen(self) -> None:
        """Stop the journal and start another on the same files."""
        self.close()
        self.open()

    def close(self) -> None:
        if self.journal.is_alive():
            self.journal.stop()

    def ask(self, command: Command) -> Decided:
        return self.client.ask(command)

    def spawn(self, *names: str) -> None:
        for name in names:
            self.ask(Spawn(by=DAEMON_BY, agent=name))

    def submit(self, *commands: Command | tuple[Command, str]) -> list["concurrent.futures.Future[Decided]"]:
        """Submit all commands in one message. A pair is a command and its idempotency key."""
        submissions = []
        for one in commands:
            command, key = one if isinstance(one, tuple) else (one, None)
            submissions.append(Submission(command, concurrent.futures.Future(), key))
        self.journal.tell(Submit(self.client, submissions))
        return [submission.ticket for submission in submissions]

    def rows(self) -> list[Row]:
        """The log as an outside reader sees it."""
        reader = LogReader(self.folder, daemon_runs=True)
        try:
            return list(reader.rows(1))
        finally:
            reader.close()

    def events(self) -> list[AnyEvent]:
        codec = Codec()
        return [codec.decode(row.type, row.data) for row in self.rows()]

    def types(self) -> list[str]:
        return [row.type for row in self.rows()]

    def check_state_is_the_log(self) -> None:
        """Check the chain, and compare the journal's state with a replay of the log."""
        rows = self.rows()
        assert verify(rows) == (len(rows), None)
        folded, _ = fold(rows, Codec())
        live = self.client.read(lambda hive: [digest(one) for one in hive.projections()])
        assert live == [digest(one) for one in folded.projections()]

    def _on_committed(self, _journal: object, batch: list[Recorded]) -> None:
        self.batches.append([recorded.event for recorded in batch])


class Recorder(pykka.ThreadingActor):
    """Records the messages it receives."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if message == "told":
            return list(self.told)
        if message == "crash":
            raise RuntimeError("a crash that a test asked for")
        self.told.append(message)
        return None


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """Limit file sizes to the current size of the log's WAL, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (folder / "events.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
