"""A real journal on a real folder, for the actors that are tried on it."""

import concurrent.futures
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import blinker
import pykka

from hive.actors.journal import Decided, Journal, Submission, Submit
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock, SystemClock, TimeMs
from hive.deciders.base import Command
from hive.deciders.roster import Spawn
from hive.events import AnyEvent
from hive.events.base import By, actor
from hive.events.codec import Codec
from hive.events.log import LogReader, Row, verify
from hive.projections.hive import digest, fold
from hive.projections.table import Recorded

from .hand_clock import HandClock

DEADLINE_S = 30.0
"""Far more than anything here takes; only a defect waits for it."""
STEP_S = 0.002
OPERATOR_BY = By("operator", "mara", uid=1000, way="host")
DAEMON_BY = actor("daemon")

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str) -> Found:
    """What `look` returns once it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(STEP_S)
    return found


class OwnTimers:
    """The journal's clock: the time is the one moved by hand, what it waits for by itself comes in real time.

    So `waits_for` of the hand-driven clock says what the actors that are tried wait for, and nothing else.
    """

    def __init__(self, hand: HandClock):
        self._hand = hand
        self._real = SystemClock()

    def now_ms(self) -> TimeMs:
        return self._hand.now_ms()

    def call_at(self, at: TimeMs, then: Callable[[], object]) -> Callable[[], None]:
        return self._real.call_at(self._real.now_ms() + at - self.now_ms(), then)


class Stage:
    """One journal, its client, its clock, and what was committed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hand = HandClock()
        self.clock: Clock = self.hand
        self.batches: list[list[AnyEvent]] = []
        self.open()

    def open(self) -> None:
        self.committed = blinker.Signal()
        self.committed.connect(self._on_committed)
        self.journal: pykka.ActorRef[Any] = Journal.start(self.folder, OwnTimers(self.hand), self.committed)
        self.client = BlockingJournalClient(self.journal)

    def reopen(self) -> None:
        """A clean stop and another journal over the same files."""
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
        """All at once, as one mail to the journal; a pair has an idempotency key."""
        submissions = []
        for one in commands:
            command, key = one if isinstance(one, tuple) else (one, None)
            submissions.append(Submission(command, concurrent.futures.Future(), key))
        self.journal.tell(Submit(self.client, submissions))
        return [submission.ticket for submission in submissions]

    def rows(self) -> list[Row]:
        """The log as a reader outside the daemon finds it."""
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
        """The chain holds, and the state decided on is the fold of what is on the disk."""
        rows = self.rows()
        assert verify(rows) == (len(rows), None)
        folded, _ = fold(rows, Codec())
        live = self.client.read(lambda hive: [digest(one) for one in hive.projections()])
        assert live == [digest(one) for one in folded.projections()]

    def _on_committed(self, _journal: object, batch: list[Recorded]) -> None:
        self.batches.append([recorded.event for recorded in batch])


class Recorder(pykka.ThreadingActor):
    """Keeps what it is told."""

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
