"""The anchor file: where the log's end was. The daemon writes it and looks at it when it starts; verify reads it."""

import os
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hive.audit.reading import refusing_damage
from hive.clock import TimeMs, rfc3339
from hive.errors import CorruptState
from hive.events.base import Seq
from hive.events.log import Head, LogReader
from hive.paths import Paths

FILE_MAX_BYTES: Final = 256 * 1024
"""Some two thousand lines. A longer file is thinned: every second line goes, so that the rest span the whole log."""
HASH_CHARS: Final = 64


class Anchor(msgspec.Struct, frozen=True):
    """The log had this event at its end."""

    seq: Seq
    hash: str
    """Hex."""
    at: str
    """RFC 3339: when it was noted."""

    def __post_init__(self) -> None:
        if self.seq < 1 or len(self.hash) != HASH_CHARS or set(self.hash) - set("0123456789abcdef"):
            raise ValueError("not the position and hash of an event")


class Kept(NamedTuple):
    """What an anchor file holds."""

    anchors: list[Anchor]
    """Oldest first."""
    damaged: list[int]
    """Numbers of the lines that are no anchors. A last one without its end is none: its writer died over it."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Anchor).decode


def read(path: Path) -> Kept:
    """Raises OSError where there is none or it may not be read."""
    kept = Kept([], [])
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            kept.anchors.append(_decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                kept.damaged.append(number)
    return kept


def add(path: Path, head: Head, now: TimeMs) -> None:
    """Note the log's end, durably. Raises OSError."""
    line = _encode(Anchor(head.seq, head.hash.hex(), rfc3339(now))) + b"\n"
    is_new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line  # What a dying writer left must not spoil this one.
        os.write(fd, line)
        os.fsync(fd)
    finally:
        os.close(fd)
    if is_new:
        _sync_folder(path.parent)
    if size > FILE_MAX_BYTES:
        _thin(path)


def refuse_cut(paths: Paths) -> str | None:
    """Compare the newest anchor with the log before a daemon goes on from its end; costs one look into the log.

    The caller holds the state's lock. Returns what is wrong with the anchor file itself, for people.

    Raises:
        CorruptState: the log has lost events that it had, or holds others in their place.
    """
    try:
        kept = read(paths.anchors)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{paths.anchors} cannot be read: {error.strerror}."
    if kept.anchors:
        _refuse(paths, kept.anchors[-1])
    return f"{paths.anchors}: line {kept.damaged[0]} is no anchor; the others count." if kept.damaged else None


def _refuse(paths: Paths, newest: Anchor) -> None:
    end, found = 0, None
    if paths.events.exists():
        with refusing_damage(paths.events):
            reader = LogReader(paths.state, daemon_runs=False)
            try:
                end, found = reader.head().seq, reader.hash_at(newest.seq)
            finally:
                reader.close()
    if found is not None and found.hex() == newest.hash:
        return
    what = f"has another event {newest.seq} than" if found is not None else f"ends at event {end}, not {newest.seq} as"
    raise CorruptState(
        f"The log in {paths.state} {what} on {newest.at}: events were cut off or rewritten, or an older copy was put"
        f" back. See `hive audit verify`; restore the newest backup, or go on without them by removing {paths.anchors}."
    )


def _thin(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.writelines(lines[(len(lines) - 1) % 2 :: 2])  # The newest is among them.
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
