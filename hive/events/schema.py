"""The tables and triggers of `events.db`, and how the file is created and recognised."""

import os
from pathlib import Path
from typing import Final

import apsw

import hive
from hive.errors import CorruptState
from hive.events.chain import HASH_BYTES, SALT_BYTES
from hive.events.sqlite import connect

APPLICATION_ID: Final = 0x68697665
"""`hive` in ASCII; identifies the file."""
SCHEMA_VERSION: Final = 3
"""What the daemon writes. Raise it with the first event type or event version since the last release, so that an older
hive refuses the log at once and not at the first event that it does not know.

1 hashed `data` itself, so nothing could be erased; see `audit/carry_over.py`. 2 and 3 have the same tables.
"""
READABLE_VERSIONS: Final = (2, SCHEMA_VERSION)
PAGE_BYTES: Final = 8_192
"""Page size of a new log. A page of 4 KiB holds a dozen rows and wastes about a twelfth of the file."""

NEVER_REPLACED: Final = """
CREATE TRIGGER IF NOT EXISTS events_are_never_replaced BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE seq = new.seq)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
"""
"""INSERT OR REPLACE deletes the existing row, and SQLite fires no DELETE trigger for that."""
_SCHEMA = f"""
CREATE TABLE events(
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    by TEXT NOT NULL,
    hash BLOB NOT NULL,
    salt BLOB
);
CREATE TABLE erased(
    seq INTEGER PRIMARY KEY,
    content BLOB NOT NULL CHECK (length(content) = {HASH_BYTES}),
    erasure INTEGER NOT NULL
);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
WHEN NOT (
    new.seq IS old.seq AND new.at IS old.at AND new.type IS old.type AND new.by IS old.by AND new.hash IS old.hash
    AND old.salt IS NOT NULL AND new.salt IS NULL
    AND EXISTS (
        SELECT 1 FROM erased JOIN events AS erasure ON erasure.seq = erased.erasure
        WHERE erased.seq = old.seq AND erasure.type = 'Erased'
    )
)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TABLE segments(
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL CHECK (last >= first),
    first_hash BLOB NOT NULL,
    last_hash BLOB NOT NULL,
    last_at TEXT NOT NULL
);
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM segments WHERE old.seq BETWEEN first AND last)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER erased_is_never_replaced BEFORE INSERT ON erased
WHEN EXISTS (SELECT 1 FROM erased WHERE seq = new.seq)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER erased_is_never_changed BEFORE UPDATE ON erased
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER erased_is_never_deleted BEFORE DELETE ON erased
WHEN NOT EXISTS (SELECT 1 FROM segments WHERE old.seq BETWEEN first AND last)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER segments_are_never_replaced BEFORE INSERT ON segments
WHEN EXISTS (SELECT 1 FROM segments WHERE last >= new.first)
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER segments_are_never_changed BEFORE UPDATE ON segments
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
CREATE TRIGGER segments_are_never_deleted BEFORE DELETE ON segments
BEGIN SELECT raise(ABORT, 'events are append-only'); END;
{NEVER_REPLACED}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

COLUMNS: Final = (
    "seq, at, type, CASE WHEN salt IS NULL THEN rtrim(data) ELSE data END, by, hash, salt,"
    " CASE WHEN salt IS NULL THEN (SELECT content FROM erased WHERE erased.seq = events.seq) END,"
    " CASE WHEN salt IS NULL THEN (SELECT erasure FROM erased WHERE erased.seq = events.seq) END"
)
"""The fields of `Row`. Erased data is padded with spaces to its old length."""
_CHAINED_ROW: Final = (
    "typeof(at) || typeof(type) || typeof(data) || typeof(by) || typeof(hash) || typeof(salt)"
    " = 'texttexttexttextblobblob'"
    f" AND length(hash) = {HASH_BYTES} AND length(salt) = {SALT_BYTES}"
)
CHAIN_PAGE: Final = (
    f"SELECT count(*), sum({_CHAINED_ROW}),"
    " CAST(group_concat(concat(seq, char(10), at, char(10), type, char(10), by, char(10)), char(30)) AS BLOB),"
    " CAST(group_concat(salt || data, '') AS BLOB), '[' || group_concat(octet_length(data)) || ']',"
    " CAST(group_concat(hash, '') AS BLOB) FROM events WHERE seq BETWEEN ? AND ?"
)
"""The values of a `ChainPage`: SQLite builds them without Python's interpreter lock."""


def create(path: Path) -> None:
    """Create an empty log. The file is complete before it gets its name."""
    fresh = path.with_name(path.name + ".new")
    for left in (fresh, fresh.with_name(fresh.name + "-journal")):
        left.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    db = connect(fresh, write=True)
    db.execute(f"PRAGMA page_size={PAGE_BYTES};BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT").fetchall()
    db.close()
    fresh.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def schema_version(db: apsw.Connection, path: Path) -> int:
    """Raises CorruptState if the file is not a hive's log."""
    if db.pragma("application_id") != APPLICATION_ID:
        raise CorruptState(f"{path} is not a hive's log.")
    return int(db.pragma("user_version"))


def refuse_foreign(db: apsw.Connection, path: Path) -> int:
    """Return the file's schema. Raises CorruptState if this hive cannot use the file."""
    version = schema_version(db, path)
    if version == 1:
        raise CorruptState(
            f"{path} has schema 1. Start the daemon once: `hive up` carries the log over to schema {SCHEMA_VERSION}."
        )
    if version not in READABLE_VERSIONS:
        readable = " and ".join(map(str, READABLE_VERSIONS))
        newer = version > SCHEMA_VERSION
        raise CorruptState(
            f"{path} has schema {version}; this hive, {hive.__version__}, reads {readable}."
            + (" A newer hive wrote it: use that one, or restore a backup from before." if newer else "")
        )
    return version
