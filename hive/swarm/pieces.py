"""The files of an agent as one archive in content-addressed pieces, and back. Knows files, not the swarm.

The archive is a tar stream. It is cut so that a change of one file changes few pieces: between files, at places that
their names give, and inside large files at multiples of a size.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
import structlog

from hive.backup import tree
from hive.backup.chunks import Chunks
from hive.backup.manifest import Entry, decoded
from hive.names import AgentName
from hive.paths import Paths
from hive.runtimes import ownership

log = structlog.get_logger()

PIECE_BYTES: Final = 512 * 1024
"""Of one piece before compression: one message for a NATS server as it comes."""
OWN_PIECES_BYTES: Final = 128 * 1024
"""A file of this size has pieces of its own."""
CUT_EVERY: Final = 32
"""Small files in one piece, on average."""
BLOCK: Final = tarfile.BLOCKSIZE
PARTS: Final = ("applied", "proposed", "state")
MODE_MAX: Final = 0o755
MODE_MIN: Final = 0o600
MODE_MIN_FOLDER: Final = 0o700
"""Nothing arrives with set-user-id bits or writable for others; the hive can read all."""


class Manifest(msgspec.Struct, frozen=True):
    """What makes up the archive of one agent."""

    agent: AgentName
    pieces: tuple[str, ...]
    """SHA-256 of each, in order."""


def places(paths: Paths, name: AgentName) -> dict[str, Path]:
    """The folders that move with an agent, by their name in the archive."""
    return {"applied": paths.applied(name), "proposed": paths.proposed(name), "state": paths.agent_state(name)}


def fingerprint(paths: Paths, name: AgentName) -> str:
    """Changes when the archive does. Reads no file."""
    digest = hashlib.sha256()
    for member, entry in _members(paths, name):
        digest.update(f"{member} {entry.mode} {entry.seen} {entry.link}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def cut(paths: Paths, name: AgentName) -> Iterator[bytes]:
    """The archive in pieces. The agent may run: a file that grows is cut off, one that shrinks is filled with zeros."""
    root = ownership.open_folder(str(paths.state))
    gathered = bytearray()
    try:
        for member, entry in _members(paths, name):
            try:
                fd = _opened(root, entry)
            except OSError:  # It went, or became a link, since its folder was read.
                continue
            try:
                size = 0 if fd is None else os.fstat(fd).st_size
                if size >= OWN_PIECES_BYTES and gathered:
                    yield bytes(gathered)
                    gathered.clear()
                gathered += _header(member, entry, size)
                if fd is not None and size >= OWN_PIECES_BYTES:
                    yield bytes(gathered)
                    gathered.clear()
                    yield from _content(fd, size)
                elif fd is not None:
                    gathered += b"".join(_content(fd, size))
            finally:
                if fd is not None:
                    os.close(fd)
            if len(gathered) >= PIECE_BYTES - OWN_PIECES_BYTES - BLOCK * 8 or _is_cut_after(member):
                yield bytes(gathered)
                gathered.clear()
        yield bytes(gathered) + bytes(2 * BLOCK)
    finally:
        os.close(root)


def _members(paths: Paths, name: AgentName) -> Iterator[tuple[str, Entry]]:
    """Names in the archive. Secrets are left out, as a backup leaves them out."""
    rules = tree.rules(paths)
    for part, folder in places(paths, name).items():
        if not folder.is_dir():
            continue
        below = os.fsencode(folder.relative_to(paths.state))
        yield part, Entry(path="", kind="folder", mode=folder.stat().st_mode & 0o777)
        for found in tree.walk_below(paths, rules, [below]):
            if found.entry is not None:
                path = decoded(found.entry.path)
                yield part + os.fsdecode(path.removeprefix(below)), found.entry
            elif found.left_out is not None:
                log.debug("pieces.left_out", agent=name, file=found.left_out.path, why=found.left_out.why)


def _opened(root: int, entry: Entry) -> int | None:
    """None: not a file. Raises OSError: it is not there any more."""
    if entry.kind != "file":
        return None
    *parents, name = (os.fsdecode(part) for part in decoded(entry.path).split(b"/"))
    below = ownership.open_below(root, tuple(parents))
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=below)
    finally:
        os.close(below)


def _header(member: str, entry: Entry, size: int) -> bytes:
    info = tarfile.TarInfo(member)
    info.mode, info.mtime, info.size = entry.mode, entry.mtime_ns // 1_000_000_000, size
    if entry.kind == "folder":
        info.type = tarfile.DIRTYPE
    elif entry.kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(decoded(entry.link))
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(fd: int, size: int) -> Iterator[bytes]:
    left = size
    while left:
        wanted = min(left, PIECE_BYTES)
        part = b""
        while len(part) < wanted and (more := os.read(fd, wanted - len(part))):
            part += more
        left -= wanted
        yield part.ljust(wanted, b"\0") + (b"" if left else bytes(-size % BLOCK))


def _is_cut_after(member: str) -> bool:
    return hashlib.sha256(member.encode(errors="surrogateescape")).digest()[0] % CUT_EVERY == 0


class _Archive:
    """Reads the pieces one after the other, for tarfile."""

    def __init__(self, chunks: Chunks, pieces: tuple[str, ...]):
        self._chunks = chunks
        self._pieces = iter(pieces)
        self._left = b""

    def read(self, size: int) -> bytes:
        while not self._left:
            name = next(self._pieces, None)
            if name is None:
                return b""
            self._left = self._chunks.get(name)
        part, self._left = self._left[:size], self._left[size:]
        return part


def unpack(chunks: Chunks, manifest: Manifest, paths: Paths, name: AgentName) -> None:
    """Put an agent's folders in place; replaces what is there, so it can be repeated.

    Raises:
        CorruptState: a piece is missing or damaged.
    """
    beside = paths.state / f".arriving-{name}"
    remove(beside)
    beside.mkdir(mode=0o700)
    archive = cast(BinaryIO, _Archive(chunks, manifest.pieces))
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        tar.extraction_filter = lambda member, _: member  # Python 3.11.2 has no filters; `_is_inside` checks instead.
        for member in tar:
            if member.name.split("/")[0] in PARTS and _is_inside(member, beside):
                member.mode = member.mode & MODE_MAX | (MODE_MIN_FOLDER if member.isdir() else MODE_MIN)
                tar.extract(member, beside)
            else:
                log.warning("move.file_left_out", agent=name, file=member.name)
    for part, folder in places(paths, name).items():
        remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if (beside / part).exists():
            (beside / part).rename(folder)
    remove(beside)


def _is_inside(member: tarfile.TarInfo, folder: Path) -> bool:
    """Whether extraction writes, links and follows nothing outside. A link may point anywhere: it is not followed."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return False
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    return all(Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)) for name in names)


def remove(folder: Path) -> None:
    """A tree that may be missing."""
    if folder.exists():
        ownership.remove(str(folder))
