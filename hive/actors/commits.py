"""Commits the journal's batches. A thread of its own does it while the journal decides the next batch."""

import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from hive.actors.journal_messages import JournalClient, Read
from hive.actors.log_writing import LogWriter
from hive.errors import Unavailable
from hive.projections.table import Recorded


class Batch(msgspec.Struct):
    """What is decided in one commit, and who waits for it."""

    rows: list[tuple[str, str, str, str]] = []
    recorded: list[Recorded] = []
    answers: defaultdict[JournalClient, list[tuple[Any, Any]]] = msgspec.field(
        default_factory=lambda: defaultdict(list)
    )
    reads: list[Read] = []
    found: list[Any] = []
    """The results of the reads, in the state after this batch."""
    failed: Exception | None = None

    def is_empty(self) -> bool:
        return not (self.answers or self.reads)

    def deliver(self) -> None:
        """Answer everybody who waits."""
        for read, found in zip(self.reads, self.found, strict=True):
            self.answers[read.client].append((read.ticket, found))
        for client, tickets in self.answers.items():
            client.deliver(tickets)

    def refuse(self, error: Exception) -> None:
        """Give every command this error instead of its answer."""
        for tickets in self.answers.values():
            tickets[:] = [(ticket, error) for ticket, _ in tickets]


class Commits:
    """At most one batch is under way. Meanwhile nobody else uses the log's connection."""

    def __init__(
        self, writer: LogWriter, committed: Callable[[list[Recorded]], object], batch_ended: Callable[[], object]
    ):
        """Both are called on this thread: `committed` before the answers, `batch_ended` after them or a failure."""
        self._writer = writer
        self._committed = committed
        self._batch_ended = batch_ended
        self._begun: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self.under_way: Batch | None = None
        self._thread = threading.Thread(target=self._run, name="journal-commits", daemon=True)
        self._thread.start()

    def begin(self, batch: Batch) -> None:
        """Commit and answer on the thread."""
        assert self.under_way is None
        self.under_way = batch
        self._begun.put(batch)

    def ended(self, *, wait: bool) -> Batch | None:
        """The batch under way, once it is committed or failed. None: there is none, or it has not ended."""
        if self.under_way is None:
            return None
        try:
            batch = self._ended.get(block=wait)
        except queue.Empty:
            return None
        self.under_way = None
        return batch

    def commit(self, batch: Batch) -> None:
        """Commit and answer on the caller's thread. If the log cannot be written, nobody is answered."""
        assert self.under_way is None
        self._commit(batch)

    def stop(self) -> None:
        self._begun.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._begun.get()) is not None:
            try:
                self._commit(batch)
            except Exception as bug:  # noqa: BLE001  # The journal raises it.
                batch.failed = bug
            self._ended.put(batch)
            self._batch_ended()

    def _commit(self, batch: Batch) -> None:
        if batch.rows:
            try:
                self._writer.append(batch.rows)
            except Unavailable as error:
                batch.failed = error
                return
            self._committed(batch.recorded)
        batch.deliver()
