"""The hash chain of the log: what a row's hash covers, and how a chain is verified. Used by the log and the audits."""

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

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


class ChainPage(NamedTuple):
    """The hashed values of consecutive rows, each kind of all rows in one value."""

    rows: int
    """Number of rows that belong on the page."""
    present: int
    """Number of rows that are there."""
    sound: int | None
    """Rows that are not erased and whose values have the right types and lengths. The rest is only for such rows."""
    columns: bytes
    """seq, at, type and by of each row, each with a line break after it; rows are separated by `\\x1e`."""
    salted: bytes
    """Salt and data of each row."""
    sizes: str
    """Bytes of data of each row, a JSON list."""
    hashes: bytes
    entries: Callable[[], list[Row]]
    """Reads the rows one by one, for a page with other rows."""


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
    """The number of events in an intact chain, or None if it is not intact; `verify` then names the event."""
    last, count = GENESIS, 0
    for page in pages:
        if page.present != page.rows:
            return None
        found = _end_of_page(last, page) if page.sound == page.rows else _end_of_rows(last, count, page)
        if found is None:
            return None
        last, count = found, count + page.rows
        tell(count)
    return count


def _end_of_page(last: bytes, page: ChainPage) -> bytes | None:
    """The last hash, if all are right. One loop without a call per row: the hot path of `hive audit verify`."""
    sha256, at = hashlib.sha256, 0
    columns, sizes = page.columns.split(b"\x1e"), _decode_sizes(page.sizes)
    # With as many line breaks as this no value has one, so no other rows give the same page.
    if len(columns) != page.rows or page.columns.count(b"\n") != 4 * page.rows:
        return None
    salted = page.salted
    for fields, size, (stored,) in zip(columns, sizes, struct.iter_unpack(f"{HASH_BYTES}s", page.hashes), strict=True):
        end = at + SALT_BYTES + size
        last = sha256(last + fields + sha256(salted[at:end]).digest()).digest()
        if last != stored:
            return None
        at = end
    return last


def _end_of_rows(last: bytes, count: int, page: ChainPage) -> bytes | None:
    for seq, row in enumerate(page.entries(), count + 1):
        last, why = link(last, row)
        if why is not None or row.seq != seq:
            return None
    return last


_decode_sizes = msgspec.json.Decoder(list[int]).decode
