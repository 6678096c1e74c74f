"""The full-text index: `search.db`, brought up to date when somebody searches. It holds words, not texts.

It is derived: deleted or damaged, it is made again. Texts are read from the log, so nothing erased there is shown.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw
import msgspec

from hive.audit.reading import Tell, log_reader
from hive.errors import BadRequest
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import GENESIS, LogReader, Row
from hive.paths import Paths
from hive.search.query import Query
from hive.search.texts import KINDS, TYPES, Kind, Searchable, searchable

VERSION: Final = 1
"""Raised when the tables or what is indexed change; the index is then made again."""
PAGE_ROWS: Final = 5_000
"""Events read and committed in one step."""
LIMIT_MAX: Final = 1_000
SNIPPET_CHARS: Final = 200

_SCHEMA: Final = """
    CREATE TABLE position(seq INTEGER NOT NULL, hash BLOB NOT NULL);
    CREATE TABLE texts(seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, sender TEXT NOT NULL, receiver TEXT NOT NULL);
    CREATE VIRTUAL TABLE words USING fts5(
        text, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');
"""


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One event whose text matches."""

    seq: Seq
    at: str
    """RFC 3339 UTC."""
    kind: Kind
    id: int
    """Of the message, question or approval."""
    sender: str = msgspec.field(name="from")
    to: str
    text: str
    """The part of the text around the first match, at most 200 characters, with `…` where it was cut."""


class Index:
    """An index of one hive's log, open and up to date with `reader`. One thread uses it."""

    def __init__(self, db: apsw.Connection, reader: LogReader):
        self._db = db
        self._reader = reader
        self._codec = Codec()

    def find(self, text: str, *, agent: str | None = None, kind: str | None = None, limit: int = 20) -> list[Hit]:
        """The newest events that match, newest first; `agent` said it or was told it.

        Raises:
            BadRequest: there is nothing to search for, an unknown kind, or a limit out of range.
        """
        query = Query.parsed(text)
        if kind is not None and kind not in KINDS:
            raise BadRequest(f"There is no kind {kind!r}; it is one of {', '.join(KINDS)}.")
        if not 1 <= limit <= LIMIT_MAX:
            raise BadRequest(f"The limit is from 1 to {LIMIT_MAX}.")
        found = self._db.execute(
            "SELECT seq FROM texts WHERE seq IN (SELECT rowid FROM words WHERE words MATCH :match)"
            " AND (:kind IS NULL OR kind = :kind) AND (:agent IS NULL OR :agent IN (sender, receiver))"
            " ORDER BY seq DESC LIMIT :limit",
            {"match": query.match(), "kind": kind, "agent": agent, "limit": limit},
        ).fetchall()
        return [hit for (seq,) in found if (hit := self._hit(int(seq), query)) is not None]  # type: ignore[arg-type]

    def catch_up(self, tell: Tell) -> None:
        """Index what the log has gained; from the first event when the index is of another log or version."""
        if not self._is_of_this_log():
            self._make()
        ((at,),) = self._db.execute("SELECT seq FROM position").fetchall()
        head = self._reader.head().seq
        first = int(at) + 1  # type: ignore[arg-type]
        while first <= head:
            last = min(first + PAGE_ROWS - 1, head)
            with self._db:
                for row in self._reader.rows(first, last):
                    self._add(row)
                self._db.execute("UPDATE position SET seq = ?, hash = ?", (last, self._reader.hash_at(last)))
            tell(last)
            first = last + 1

    def _is_of_this_log(self) -> bool:
        if self._db.pragma("user_version") != VERSION:
            return False
        ((seq, hash),) = self._db.execute("SELECT seq, hash FROM position").fetchall()
        return (self._reader.hash_at(int(seq)) or GENESIS) == hash  # type: ignore[arg-type]

    def _make(self) -> None:
        with self._db:
            for name in ("position", "texts", "words"):
                self._db.execute(f"DROP TABLE IF EXISTS {name}")
            self._db.execute(_SCHEMA)
            self._db.execute("INSERT INTO position VALUES (0, ?)", (GENESIS,))
            self._db.pragma("user_version", VERSION)

    def _add(self, row: Row) -> None:
        if row.type not in TYPES or (found := self._text(row)) is None:
            return
        self._db.execute("INSERT INTO texts VALUES (?, ?, ?, ?)", (row.seq, found.kind, found.sender, found.receiver))
        self._db.execute("INSERT INTO words(rowid, text) VALUES (?, ?)", (row.seq, found.text))

    def _hit(self, seq: Seq, query: Query) -> Hit | None:
        row = next(iter(self._reader.rows(seq, seq)))
        found = self._text(row)
        if found is None:
            return None
        return Hit(
            seq=seq,
            at=row.at,
            kind=found.kind,
            id=found.id,
            sender=found.sender,
            to=found.receiver,
            text=query.snippet(found.text, SNIPPET_CHARS),
        )

    def _text(self, row: Row) -> Searchable | None:
        return searchable(self._codec.decode(row.type, row.data), row.by)


@contextlib.contextmanager
def index(paths: Paths, tell: Tell) -> Iterator[Index]:
    """The index, up to date, for as long as the block: `search.db`, or a temporary one where that cannot be written.

    Raises:
        Unavailable: there is no log, or it cannot be read. CorruptState: the log is damaged.
    """
    with log_reader(paths) as reader, _database(paths) as db:
        opened = Index(db, reader)
        opened.catch_up(tell)
        yield opened


@contextlib.contextmanager
def _database(paths: Paths) -> Iterator[apsw.Connection]:
    with contextlib.ExitStack() as stack:
        if os.access(paths.state, os.W_OK):
            path = paths.search
            held = stack.enter_context(paths.search_lock.open("ab"))
            fcntl.flock(held, fcntl.LOCK_EX)  # Two who search at once bring it up to date one after the other.
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hive-search-"))) / paths.search.name
        db = _opened(path)
        stack.callback(db.close)
        yield db


def _opened(path: Path) -> apsw.Connection:
    """The database; a damaged one is deleted, since all of it comes from the log."""
    try:
        db = _connected(path)
        db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        damage = db.pragma("quick_check")
    except (apsw.NotADBError, apsw.CorruptError):
        damage = "damaged"
    if damage == "ok":
        return db
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _connected(path)


def _connected(path: Path) -> apsw.Connection:
    path.touch(mode=0o600)
    db = apsw.Connection(str(path))
    db.pragma("synchronous", "normal")  # A write that a power loss takes is made again from the log.
    return db
