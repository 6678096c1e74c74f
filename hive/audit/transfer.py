"""The log as JSON lines, and the same log made of them elsewhere, hash for hash: `audit export` and `log import`."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from hive import lock
from hive.audit import anchors
from hive.audit.carry_over import BATCH_ROWS, UNDER_WAY_NAME, end_carried, old_hash
from hive.audit.reading import TELL_EVERY_ROWS, Tell, watched
from hive.clock import TimeMs
from hive.errors import BadRequest, CorruptState, Refused
from hive.events.chain import GENESIS, Head, Row, link, verify
from hive.events.codec import Codec
from hive.events.log import EventLog, LogReader, stamped_ms
from hive.events.schema import sync_folder
from hive.paths import Paths

LINE_MAX_BYTES: Final = 64 * 1024 * 1024
"""Far more than an event that came through a socket can have."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event, with the keys of `hive log --json` and what else its hash needs."""

    seq: int
    at: str
    type: str
    data: msgspec.Raw
    """The very text that is hashed, not merely the same value."""
    by: str
    hash: str
    """Hex."""
    salt: str | None = None
    """Hex; absent in an erased event, and in every event that a hive of schema 1 exported."""
    content: str | None = None
    """Of an erased event: its kept content hash, hex."""
    erasure: int | None = None
    """Of an erased event: the position of its `Erased` event."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Line).decode


def export(reader: LogReader, out: BinaryIO, tell: Tell) -> Head:
    """Write every event up to the head, checking the chain on the way; returns that head.

    Raises:
        CorruptState: an event does not hold; those before it are written.
    """
    head = reader.head()
    count, broken = verify(_written(watched(reader.rows(1, head.seq), tell), out))
    if broken is None and count < head.seq:
        raise CorruptState(f"Event {count + 1} is missing. See `hive audit verify`; restore the log from a backup.")
    if broken is not None:
        raise CorruptState(
            f"Event {broken.seq} {broken.why}; {count} events before it were written. Restore the log from a backup."
        )
    return head


def _written(rows: Iterable[Row], out: BinaryIO) -> Iterator[Row]:
    """The same rows; one is written when the next is asked for, and so when it was found to hold."""
    for row in rows:
        yield row
        out.write(_encode(as_line(row)) + b"\n")


def as_line(row: Row) -> Line:
    """The row as it is exported."""
    salt, content = (None if value is None else value.hex() for value in (row.salt, row.content))
    data = msgspec.Raw(row.data.encode())
    return Line(row.seq, row.at, row.type, data, row.by, row.hash.hex(), salt, content, row.erasure)


def import_log(paths: Paths, lines: BinaryIO, now: TimeMs, tell: Tell, expected_head: str | None = None) -> Head:
    """Make the log of an empty state folder from exported lines, each checked as it is read; returns its head.

    All or nothing: lines that are cut, changed or not hive's leave the folder without a log. `tell` is told the bytes
    read; `expected_head` is the hash, in hex, that the last event must have.

    Raises:
        Refused: the folder is not empty. BadRequest: what is wrong with which line. CorruptState: a daemon runs there.
    """
    return _placed(paths, now, lambda folder: _fill(folder, lines, now, tell, expected_head))


def import_rows(paths: Paths, rows: list[Row], now: TimeMs) -> Head:
    """Make the log of an empty state folder from the rows of a whole log; returns its head.

    Raises:
        Refused: the folder is not empty. CorruptState: the chain does not hold, or a daemon runs there.
    """
    _, broken = verify(rows)
    if broken is not None:
        raise CorruptState(f"Event {broken.seq} {broken.why}. Nothing was written.")
    return _placed(paths, now, lambda folder: _fill_verified(folder, rows))


def _fill_verified(folder: Path, rows: list[Row]) -> Head:
    log = EventLog(folder)
    try:
        for first in range(0, len(rows), BATCH_ROWS):
            log.append_verified(rows[first : first + BATCH_ROWS])
        return log.head
    finally:
        log.close()


def _placed(paths: Paths, now: TimeMs, fill: Callable[[Path], Head]) -> Head:
    """Have a log written beside, and put it in place when it is whole."""
    paths.state.mkdir(parents=True, exist_ok=True, mode=0o755)
    with lock.held(paths.lock):
        _refuse_used(paths)
        under_way = paths.state / UNDER_WAY_NAME
        shutil.rmtree(under_way, ignore_errors=True)  # Of an import that was killed.
        under_way.mkdir(mode=0o700)
        try:
            head = fill(under_way)
            (under_way / paths.events.name).rename(paths.events)
        finally:
            shutil.rmtree(under_way)
        sync_folder(paths.state)
        anchors.add(paths.anchors, head, now)
        _give_to_owner(paths)
    return head


def _refuse_used(paths: Paths) -> None:
    known = {paths.lock.name, paths.settings.name, UNDER_WAY_NAME}
    found = sorted({entry.name for entry in paths.state.iterdir()} - known)
    if found:
        raise Refused(
            f"{paths.state} is not empty, it holds {found[0]}; a log is imported into a state folder of its own:"
            f" give a new one with --state. Only {paths.settings.name} may be there."
        )


def _fill(folder: Path, lines: BinaryIO, now: TimeMs, tell: Tell, expected_head: str | None) -> Head:
    log = EventLog(folder)
    try:
        batch, end = list[Row](), Head(0, GENESIS)
        is_old = False
        for row in _checked(lines, tell):
            end, is_old = Head(row.seq, row.hash), _is_old(row)
            batch.append(row)
            if len(batch) == BATCH_ROWS:
                _append(log, batch)
                batch = []
        _append(log, batch)
        if end.seq == 0:
            raise BadRequest("There is no event in it. Export the log again.")
        if expected_head is not None and end.hash.hex() != expected_head.lower():
            raise BadRequest(f"It ends with event {end.seq}, {end.hash.hex()}, which is not the head you gave.")
        if is_old:
            end_carried(log, end, now)
        return log.head
    finally:
        log.close()


def _append(log: EventLog, rows: list[Row]) -> None:
    if rows and _is_old(rows[0]):
        log.append((row.at, row.type, row.data, row.by) for row in rows)
    else:
        log.append_verified(rows)


def _is_old(row: Row) -> bool:
    """Whether a hive of schema 1 exported the row: it then gets a salt and a new hash."""
    return row.salt is None and row.content is None


def _checked(lines: BinaryIO, tell: Tell) -> Iterator[Row]:
    """Each line as a row that continues the chain and that this hive can read."""
    codec, number, done = Codec(), 0, 0
    row: Row | None = None
    while raw := lines.readline(LINE_MAX_BYTES):
        number += 1
        done += len(raw)
        if not raw.endswith(b"\n"):
            what = "is too long" if len(raw) == LINE_MAX_BYTES else "has no end: the file was cut there"
            raise BadRequest(f"Line {number} {what}. Nothing was imported; export the log again.")
        row = _row(raw, number, row)
        try:
            codec.decode(row.type, row.data)
        except CorruptState as error:
            raise BadRequest(f"Line {number}: {error} Nothing was imported; use the hive that wrote it.") from None
        yield row
        if number % TELL_EVERY_ROWS == 0:
            tell(done)
    tell(done)


def _row(raw: bytes, number: int, before: Row | None) -> Row:
    try:
        line = _decode(raw)
        data, stored = bytes(line.data).decode(), bytes.fromhex(line.hash)
        salt, content = (None if value is None else bytes.fromhex(value) for value in (line.salt, line.content))
        stamped_ms(line.at)
    except (msgspec.MsgspecError, ValueError, RecursionError, BadRequest) as error:
        raise BadRequest(
            f"Line {number} is no event as `hive audit export` writes it ({error}). Nothing was imported."
        ) from None
    if line.seq != number:
        raise BadRequest(
            f"Line {number} holds event {line.seq}: lines are missing, doubled or out of order."
            " Nothing was imported; export the log again, from its first event."
        )
    erasure = None if content is None else line.erasure
    for text in (data, _canonical(line.data)):
        row = Row(line.seq, line.at, line.type, text, line.by, stored, salt, content, erasure)
        if _follows(before, row):
            return row
    raise BadRequest(
        f"Line {number}: event {line.seq} does not match its hash: it was changed after it was written."
        " Nothing was imported; export the log again, and see `hive audit verify` where it came from."
    )


def _follows(before: Row | None, row: Row) -> bool:
    last = GENESIS if before is None else before.hash
    if before is not None and _is_old(before) != _is_old(row):
        return False
    if _is_old(row):
        return "\n" not in row.type + row.by and old_hash(last, *row[:5]) == row.hash
    return (row.salt is None or row.content is None) and link(last, row)[1] is None


def _canonical(data: msgspec.Raw) -> str:
    """As hive writes it: whatever the line went through may have spaced or escaped it otherwise. The hash decides."""
    return msgspec.json.encode(msgspec.json.decode(data)).decode()


def _give_to_owner(paths: Paths) -> None:
    """An import by root must not leave files that the daemon's own user cannot write."""
    owner = paths.state.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (paths.events, paths.anchors, paths.lock):
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
