"""The hash chain of the log: what a row's hash covers, and how a chain is verified. Used by the log and the audits."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hive.events.base import Seq

GENESIS: Final = b"\0" * 32
"""The hash before the first event."""
SALT_BYTES: Final = 8
"""Random bytes per row. Without them the content hash of an erased short text could be guessed."""
HASH_BYTES: Final = 32


class Row(NamedTuple):
    """One row of the log, undecoded."""

    seq: Seq
    at: str
    """RFC 3339 UTC."""
    type: str
    data: str
    """JSON."""
    by: str
    hash: bytes
    """SHA-256 over the previous hash and this row."""
    salt: bytes | None = None
    """None in an erased row."""
    content: bytes | None = None
    """In an erased row: the content hash of the data before it was erased."""
    erasure: Seq | None = None
    """In an erased row: the position of the `Erased` event."""


class Head(NamedTuple):
    """The end of the chain."""

    seq: Seq
    hash: bytes


class ChainError(NamedTuple):
    """The first event that does not verify."""

    seq: Seq
    why: str


ChainPage = list[tuple[Seq, bytes, bytes | None, bytes, bytes | None]]
"""seq, the hashed columns before the content, salt and data, hash, and the kept content hash of an erased row."""


def content_hash(salt: bytes, data: str) -> bytes:
    """The commitment to `data`. It stays when `data` is erased."""
    return hashlib.sha256(salt + data.encode()).digest()


def chained(before: bytes, seq: Seq, at: str, type_: str, by: str, content: bytes) -> bytes:
    """The hash of a row. No text field may hold a newline; the content hash has a fixed length and comes last."""
    return hashlib.sha256(before + f"{seq}\n{at}\n{type_}\n{by}\n".encode() + content).digest()


def verify(rows: Iterable[Row]) -> tuple[int, ChainError | None]:
    """Verify rows from the first event: how many verify, and the first that does not."""
    last, expected = GENESIS, 1
    for row in rows:
        if row.seq != expected:
            return expected - 1, ChainError(expected, f"is missing: the next event in the log is {row.seq}")
        last, why = link(last, row)
        if why is not None:
            return expected - 1, ChainError(row.seq, why)
        expected += 1
    return expected - 1, None


def link(before: bytes, row: Row) -> tuple[bytes, str | None]:
    """The hash of a row after `before`, and what is wrong with the row."""
    if not all(isinstance(value, str) for value in row[1:5]):
        return before, "holds a value of the wrong type"
    if "\n" in row.at or "\n" in row.type or "\n" in row.by:
        return before, "has a line break in a field that cannot have one"
    if row.salt is not None and len(row.salt) != SALT_BYTES:
        return before, "has a salt of the wrong length"
    content = row.content if row.salt is None else content_hash(row.salt, row.data)
    if content is None or len(content) != HASH_BYTES:
        return before, "has neither a salt nor a kept content hash"
    found = chained(before, row.seq, row.at, row.type, row.by, content)
    return found, None if found == row.hash else "does not match its hash: it or the chain before it was changed"


def intact_length(pages: Iterable[ChainPage], tell: Callable[[Seq], None]) -> int | None:
    """The number of events in an intact chain, or None if it is not intact; `verify` then names the event.

    One loop without a call per row: this is the hot path of `hive audit verify`.
    """
    last, expected, sha256 = GENESIS, 1, hashlib.sha256
    for page in pages:
        for seq, columns, salted, stored, kept in page:
            content = sha256(salted).digest() if salted is not None else kept
            if content is None or not columns or seq != expected:
                return None
            last = sha256(last + columns + content).digest()
            if last != stored:
                return None
            expected += 1
        tell(expected - 1)
    return expected - 1
