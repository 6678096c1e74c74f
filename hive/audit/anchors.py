"""The anchor file records the head of the log over time. The daemon writes it; daemon starts and verify check it."""

import os
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hive.clock import TimeMs, rfc3339
from hive.events.base import Seq
from hive.events.log import Head

FILE_MAX_BYTES: Final = 256 * 1024
"""About two thousand lines. In a longer file every second line is removed, so the rest span the whole log."""
HASH_CHARS: Final = 64
SEQ_MAX: Final = 2**63 - 1


class Anchor(msgspec.Struct, frozen=True):
    """One recorded head of the log."""

    seq: Seq
    hash: str
    """Hex."""
    at: str
    """RFC 3339: when it was recorded."""

    def __post_init__(self) -> None:
        if not 0 < self.seq <= SEQ_MAX or len(self.hash) != HASH_CHARS or set(self.hash) - set("0123456789abcdef"):
            raise ValueError("not the position and hash of an event")


class AnchorFile(NamedTuple):
    """The contents of an anchor file."""

    anchors: list[Anchor]
    """Oldest first."""
    damaged: list[int]
    """Numbers of the invalid lines. An unfinished last line is not counted: its writer was killed."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Anchor).decode


def read(path: Path) -> AnchorFile:
    """Raises OSError if the file is missing or not readable."""
    kept = AnchorFile([], [])
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            kept.anchors.append(_decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                kept.damaged.append(number)
    return kept


def add(path: Path, head: Head, now: TimeMs) -> None:
    """Record the head of the log durably. Raises OSError."""
    line = _encode(Anchor(head.seq, head.hash.hex(), rfc3339(now))) + b"\n"
    is_new = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line  # Terminate the unfinished line of a killed writer.
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
