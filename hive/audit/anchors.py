"""The anchor file: where the log's end was. The daemon writes it and looks at it when it starts; verify reads it."""

import os
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hive.clock import TimeMs, rfc3339
from hive.events.base import Seq
from hive.events.log import Head

FILE_MAX_BYTES: Final = 256 * 1024
"""Some two thousand lines. A longer file is thinned: every second line goes, so that the rest span the whole log."""
HASH_CHARS: Final = 64
SEQ_MAX: Final = 2**63 - 1


class Anchor(msgspec.Struct, frozen=True):
    """The log had this event at its end."""

    seq: Seq
    hash: str
    """Hex."""
    at: str
    """RFC 3339: when it was noted."""

    def __post_init__(self) -> None:
        if not 0 < self.seq <= SEQ_MAX or len(self.hash) != HASH_CHARS or set(self.hash) - set("0123456789abcdef"):
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
