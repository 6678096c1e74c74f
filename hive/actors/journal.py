"""The journal is the only writer of the log. It decides commands, commits them in batches, and then answers."""

import hashlib
import queue
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import blinker
import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.commits import Batch, Commits
from hive.actors.journal_messages import Adopt, Decided, JournalClient, Read, Submission, Submit
from hive.actors.log_writing import LogWriter
from hive.clock import MS_PER_S, Clock, DurationMs, TimeMs
from hive.deciders import decide
from hive.deciders.base import Answered, Command
from hive.errors import BadRequest, HiveError, Unavailable
from hive.events import AnyEvent
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.daemon import CommandKeyed
from hive.events.log import WAL_PAGES, stamp
from hive.projections.fresh import discard_fresh, put_in_place, reading
from hive.projections.hive import Hive
from hive.projections.replay import replay
from hive.projections.store import Store
from hive.projections.table import Recorded

log = structlog.get_logger()

BATCH_MAX = 2_000
"""Events per commit."""
PIPELINED_MIN: Final = 128
"""Commands decided, and commands left, at which the former are committed while the latter are decided. Fewer are not
worth an fsync of their own."""
WRITE_BEHIND_MS: DurationMs = 250
"""How long `projections.db` may lag. A row that changes often is written once; no answer waits for it."""
WRITE_BEHIND_STEPS: Final = 4
"""Write-behind statements between two batches."""
REST_FACTOR: Final = 10
"""Limits the share of write-behind under load: the next one starts after this multiple of the last one's duration."""
ADOPT_STEP_MS: DurationMs = 2
"""Time slice of adopting a rebuild, between two batches."""
ADOPT_EVENTS: Final = 200
"""Events folded between two checks of the clock."""
WRITE_RETRY_MS: DurationMs = 10_000
"""Delay after a failed write-behind, for example on a full disk."""
DIGEST_BYTES: Final = 4
"""Of a keyed command; see `CommandKeyed.digest`."""


class _AdoptNext(msgspec.Struct, frozen=True, gc=False):
    """To itself: continue adopting a rebuild."""

    message: Adopt
    steps: Iterator[Hive | None]


class _Flush(msgspec.Struct, frozen=True, gc=False):
    """To itself: end of a batch. All messages received before this one belong to it."""


class _Committed(msgspec.Struct, frozen=True, gc=False):
    """From the commits' thread: the batch under way ended."""


class _WriteBehind(msgspec.Struct, frozen=True, gc=False):
    """To itself, some time after the first change: update `projections.db`."""


_END: Final = object()
_STORE_ERRORS: Final = (Unavailable, apsw.Error, OSError, msgspec.MsgspecError, ArithmeticError, TypeError, ValueError)
"""Errors of a full disk, a damaged file or an unencodable row. They must not stop the journal."""


class Journal(pykka.ThreadingActor):
    """Decides, folds, and has the events committed and answered.

    While one batch is committed, it decides the next one on top of it. It survives a failed write: it answers both
    with the error, reloads the state from the disk and refuses what comes in the next moment. If the reload fails, the
    daemon ends, and the next one starts from the log.
    """

    use_daemon_thread = True

    def __init__(
        self, folder: Path, clock: Clock, committed: blinker.Signal, wal_is_long: Callable[[], None] = lambda: None
    ):
        """Open and load on the caller's thread, so that the caller gets the error of a damaged log.

        `committed` is sent after each commit, on one thread at a time, with batch=list[Recorded]. Receivers only tell.

        Raises:
            CorruptState, Unavailable: the log cannot be used.
        """
        super().__init__()
        self._clock = clock
        self._codec = Codec()
        self._folder = folder
        self._writer = LogWriter(folder, clock)
        self._log = self._writer.log
        self._log.on_wal_growth(lambda pages: wal_is_long() if pages >= WAL_PAGES else None)
        self._store = Store(folder)
        discard_fresh(folder)
        self._hive = Hive()
        self._writing: Generator[None, None, None] | None = None
        self._writing_took_ms = 0.0
        self._written_seq: Seq = 0
        self._write_is_due = False
        self.refolded = self._store.load(self._hive, self._log, self._codec)
        self._write_rows()
        self._last_ms: TimeMs = 0
        self._batch = Batch()
        self._flush_is_due = False
        self._commits = Commits(
            self._writer,
            lambda batch: committed.send(self, batch=batch),
            lambda: mail.tell(self.actor_ref, _Committed()),
        )

    @staticmethod
    def _create_actor_inbox() -> Any:
        return queue.SimpleQueue()  # 27 times faster to put into than pykka's own.

    def on_receive(self, message: Submit | Read | Adopt | _AdoptNext | _Flush | _Committed | _WriteBehind) -> None:
        match message:
            case Submit(client, submissions):
                self._take(client, submissions)
                self._flush_soon()
            case Read():
                self._batch.reads.append(message)
                self._flush_soon()
            case Adopt():
                self._adopt_next(message, self._adopting())
            case _AdoptNext() if self._flush_is_due:
                mail.tell(self.actor_ref, message)  # A commit waits for at most one slice.
            case _AdoptNext(adopt, steps):
                self._adopt_next(adopt, steps)
            case _Flush():
                self._flush_is_due = False
                self._flush()
            case _Committed():
                self._end_commit(wait=False)
                if not self._flush_is_due:
                    self._flush()
            case _WriteBehind():
                self._write_behind()

    def on_stop(self) -> None:
        self._settle()
        self._commits.stop()
        self._write_rows()
        self._store.close()
        self._log.close()

    def _flush_soon(self) -> None:
        if len(self._batch.rows) >= BATCH_MAX:
            self._end_commit(wait=True)
            self._flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self.actor_ref.tell(_Flush())

    def _take(self, client: JournalClient, submissions: list[Submission]) -> None:
        """Decide at one time: most of a message's commands came in the same millisecond."""
        now = self._last_ms = max(self._clock.now_ms(), self._last_ms)
        at = stamp(now)
        last_split = len(submissions) - PIPELINED_MIN
        for nth, submission in enumerate(submissions):
            if PIPELINED_MIN <= nth <= last_split and self._commits.under_way is None:
                self._begin_commit()
            try:
                self._writer.refuse_resting()
                outcome = self._decided(submission, now, at)
            except HiveError as refusal:
                outcome = refusal
            except Exception as bug:  # A bug in one rule must not stop the journal.
                log.exception("journal.rule_failed", command=type(submission.command).__name__)
                outcome = bug
            self._batch.answers[client].append((submission.ticket, outcome))

    def _decided(self, submission: Submission, now: TimeMs, at: str) -> Any:
        command, key = submission.command, submission.key
        by = str(command.by)
        full_key, digest = "", None
        if key is not None:
            full_key, digest = f"{by} {key}", _digest(command)
            if (known := self._hive.ids.keys.get(full_key)) is not None:
                if known.digest not in (None, digest):
                    raise BadRequest(f"The key {key!r} was used for another request. Use a new key for each request.")
                return self._repeat(known.first_seq, known.count)
        decision = decide(command, self._hive, now)
        events, answer = decision if isinstance(decision, Answered) else (decision, None)
        first = self._hive.seq + 1 if events else self._hive.seq
        is_refused = isinstance(answer, HiveError)
        if key is None or is_refused or not events:  # A refused command may be retried.
            self._append(events, at, by)
        else:
            keyed = CommandKeyed(key=full_key, first_seq=first, count=len(events), digest=digest)
            self._append([*events, keyed], at, by)
        return answer if is_refused else Decided(tuple(events), first, answer)

    def _append(self, events: list[AnyEvent], at: str, by: str) -> None:
        """Append all events of a decision or none."""
        rows, recorded, hive, encode = self._batch.rows, self._batch.recorded, self._hive, self._codec.encode
        before = len(rows)
        try:
            for event in events:
                one = Recorded(hive.seq + 1, at, by, event)
                rows.append((at, type(event).__name__, encode(event), by))
                recorded.append(one)
                hive.evolve(one)
        except Exception:
            del rows[before:], recorded[before:]
            self._settle()
            self._reload()
            raise

    def _repeat(self, first: Seq, count: int) -> Decided:
        under_way = self._commits.under_way
        recent = [*(under_way.recorded if under_way else ()), *self._batch.recorded]
        if recent and first >= recent[0].seq:  # The answer waits for the same commits.
            start = first - recent[0].seq
            return Decided(tuple(one.event for one in recent[start : start + count]), first)
        self._end_commit(wait=True)
        rows = self._log.rows(first, first + count - 1)
        return Decided(tuple(self._codec.decode(row.type, row.data) for row in rows), first)

    def _flush(self) -> None:
        """Commit the batch. If another one is under way, this one grows until that one ends."""
        if self._commits.under_way is not None or self._batch.is_empty():
            return
        if sum(map(len, self._batch.answers.values())) >= PIPELINED_MIN or not self.actor_inbox.empty():
            self._begin_commit()
        else:
            self._commit_here()

    def _settle(self) -> None:
        """Commit and answer everything that is decided."""
        self._end_commit(wait=True)
        if not self._batch.is_empty():
            self._commit_here()

    def _begin_commit(self) -> None:
        self._commits.begin(self._taken_batch())

    def _commit_here(self) -> None:
        """Without the other thread: it takes longer to wake than a small batch to commit."""
        batch = self._taken_batch()
        self._commits.commit(batch)
        self._after_commit(batch)

    def _taken_batch(self) -> Batch:
        """The batch, with the results of its reads: their callers see no later state."""
        batch, self._batch = self._batch, Batch()
        batch.found = [self._read(read.query) for read in batch.reads]
        return batch

    def _end_commit(self, *, wait: bool) -> None:
        if (batch := self._commits.ended(wait=wait)) is not None:
            self._after_commit(batch)

    def _after_commit(self, batch: Batch) -> None:
        if batch.failed is None:
            if batch.rows:
                self._write_later()
            return
        if not isinstance(batch.failed, Unavailable):
            raise batch.failed
        log.error("journal.commit_failed", events=len(batch.rows), error=str(batch.failed))
        on_top, self._batch = self._batch, Batch()
        self._writer.rest(batch.failed, self._reload)
        for one in (batch, on_top):
            one.refuse(batch.failed)
            one.found = [self._read(read.query) for read in one.reads]
            one.deliver()

    def _adopt_next(self, adopt: Adopt, steps: Iterator[Hive | None]) -> None:
        """Adopt for one time slice. Waiting commands are decided before the next slice."""
        self._end_commit(wait=True)
        pause_s = time.perf_counter() + ADOPT_STEP_MS / MS_PER_S
        hive = None
        while hive is None:
            if time.perf_counter() >= pause_s:
                mail.tell(self.actor_ref, _AdoptNext(adopt, steps))
                return
            try:
                hive = next(steps)
            except (HiveError, *_STORE_ERRORS) as error:
                adopt.client.deliver([(adopt.ticket, _unusable(error))])
                return
        adopt.client.deliver([(adopt.ticket, self._switch_to(hive))])

    def _adopting(self) -> Iterator[Hive | None]:
        """Load the fresh file into a second state and fold newer events. Yields None per step, then the state."""
        hive = Hive()
        for _ in reading(self._folder, hive, self._log):
            yield None
        while hive.seq < self._log.head.seq:
            until = min(hive.seq + ADOPT_EVENTS, self._log.head.seq)
            replay(hive, self._log.pages(hive.seq + 1, until), self._codec)
            yield None
        yield hive

    def _switch_to(self, hive: Hive) -> Seq | Unavailable:
        """Replace state and file in one step. Sends no signal."""
        self._settle()
        replay(hive, self._log.pages(hive.seq + 1), self._codec)
        self._stop_writing()
        self._store.close()
        try:
            put_in_place(self._folder)
        except OSError as error:
            self._store = Store(self._folder)
            self._reload()
            return _unusable(error)
        self._store = Store(self._folder)
        self._log.forget_segments()
        self._hive = hive
        self._write_later()
        return hive.seq

    def _read(self, query: Callable[[Hive], Any]) -> Any:
        try:
            return query(self._hive)
        except Exception as error:  # noqa: BLE001  # The caller gets the error of its query.
            return error

    def _write_later(self) -> None:
        if not self._write_is_due:
            self._write_is_due = True
            due = self._clock.now_ms() + max(WRITE_BEHIND_MS, int(REST_FACTOR * self._writing_took_ms))
            self._clock.call_at(due, lambda: mail.tell(self.actor_ref, _WriteBehind()))

    def _write_behind(self) -> None:
        """Run a few write-behind steps, then let waiting commands go first."""
        began_s = time.perf_counter()
        if self._writing is None:
            if not self._writer.has_room():
                self._write_is_due, self._writing_took_ms = False, WRITE_RETRY_MS / REST_FACTOR
                self._write_later()
                return
            self._settle()  # Write only committed state.
            self._writing = self._store.writing(self._hive, self._log.head.hash)
            self._writing_took_ms, self._written_seq = 0.0, self._hive.seq
        try:
            has_more = all(next(self._writing, _END) is not _END for _ in range(WRITE_BEHIND_STEPS))
        except _STORE_ERRORS as error:  # The rows stay dirty and are written later.
            log.warning("journal.write_behind_failed", error=str(error))
            has_more, self._written_seq, self._writing_took_ms = False, 0, WRITE_RETRY_MS / REST_FACTOR
        self._writing_took_ms += (time.perf_counter() - began_s) * MS_PER_S
        if has_more:
            mail.tell(self.actor_ref, _WriteBehind())
            return
        self._writing, self._write_is_due = None, False
        if self._written_seq < self._hive.seq:
            self._write_later()

    def _write_rows(self) -> None:
        """Write all dirty rows now, if there is room."""
        self._stop_writing()
        if not self._writer.has_room():
            return
        try:
            self._store.write(self._hive, self._log.head.hash)
        except _STORE_ERRORS as error:
            log.warning("journal.write_behind_failed", error=str(error))

    def _stop_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.close()

    def _reload(self) -> None:
        self._stop_writing()
        hive = Hive()
        self._store.load(hive, self._log, self._codec)
        self._hive = hive
        self._write_rows()


def _digest(command: Command) -> str:
    """A short hash of a command without its caller. Default values do not count, so a later version gives the same."""
    fields = {field.name: field.default for field in msgspec.structs.fields(command)}
    given = {
        name: value for name, default in fields.items() if name != "by" and (value := getattr(command, name)) != default
    }
    content = msgspec.json.encode([type(command).__name__, given], order="sorted")
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def _unusable(error: Exception) -> Unavailable:
    log.warning("journal.adopt_failed", error=str(error))
    return Unavailable(f"The rebuild cannot be used: {error} The projections are unchanged.")
