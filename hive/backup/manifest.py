"""What one backup holds. A manifest is written last: a backup without one was not finished and does not count."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from hive.backup.chunks import Chunks
from hive.config.tree import flush_folder
from hive.errors import BadRequest, CorruptState, NotFound, Unavailable

FORMAT: Final = 1
MARKER: Final = "hive-backup"
"""The file that tells a folder of backups from any other."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One name below the state folder."""

    path: str
    """Relative to the state folder; bytes outside printable ASCII are percent-encoded."""
    kind: Literal["file", "folder", "link", "bundle"]
    """`bundle`: the objects of the git directory at `path`; its other files are entries of their own."""
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    seen: str = ""
    """Inode and times as they were read: an unchanged file is not read again by the next backup."""
    link: str = ""
    """Of a link: where it leads, encoded like `path`."""
    chunks: tuple[str, ...] = ()


class LeftOut(msgspec.Struct, frozen=True):
    """A name that the backup does not hold, and why."""

    path: str
    why: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup."""

    format: int = FORMAT
    at: str
    """RFC 3339 UTC."""
    hive_version: str
    seq: int
    """Of the newest event in the copy of the log."""
    hash: str
    """Of that event, hex."""
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()


class Backups:
    """A folder of backups: the pieces that they share, and a manifest each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.chunks = Chunks(folder / "chunks")
        self._manifests = folder / "manifests"

    @classmethod
    def opened(cls, folder: Path) -> "Backups":
        """Raises NotFound: there are no backups of a hive in this folder."""
        if not (folder / MARKER).is_file():
            raise NotFound(f"{folder} holds no backups of a hive; name the folder that `hive backup` wrote to.")
        _check_format(folder)
        return cls(folder)

    @classmethod
    def made(cls, folder: Path) -> "Backups":
        """The folder, made when it is not there.

        Raises:
            BadRequest: it holds something else.
        """
        if not (folder / MARKER).is_file():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise BadRequest(f"{folder} is not empty and holds no backups of a hive; name another folder.")
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            _write(folder / MARKER, f"{FORMAT}\n".encode())
        _check_format(folder)
        for name in ("chunks", "manifests"):
            (folder / name).mkdir(exist_ok=True, mode=0o700)
        return cls(folder)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One writer at a time. Raises Unavailable: another backup into this folder is under way."""
        fd = os.open(self.folder / MARKER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Unavailable(f"Another backup into {self.folder} is under way; wait for it.") from error
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        """Of every finished backup, oldest first."""
        return sorted(path.name for path in self._manifests.glob("*.json"))

    def load(self, name: str) -> Manifest:
        """Raises CorruptState: the manifest is damaged or from a newer hive."""
        path = self._manifests / name
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != name.removesuffix(".json").rpartition("-")[2]:
            raise CorruptState(f"{path} is damaged: its content has another hash. Restore an earlier backup.")
        try:
            return msgspec.json.decode(raw, type=Manifest)
        except msgspec.MsgspecError as error:
            raise CorruptState(f"{path} cannot be read by this hive: {error}.") from error

    def newest(self) -> tuple[str, Manifest] | None:
        """The newest backup that can be read."""
        for name in reversed(self.names()):
            with contextlib.suppress(CorruptState):
                return name, self.load(name)
        return None

    def save(self, manifest: Manifest) -> str:
        """Make everything durable, then the manifest; its name."""
        os.sync()  # Of every piece: one call costs less than a flush for each of thousands of small files.
        raw = msgspec.json.encode(manifest)
        stamp = manifest.at.replace("-", "").replace(":", "")
        name = f"{stamp}-{manifest.seq:012d}-{hashlib.sha256(raw).hexdigest()}.json"
        _write(self._manifests / name, raw)
        return name

    def keep_newest(self, count: int) -> int:
        """Remove older backups and the pieces that only they needed; how many backups went.

        Raises:
            CorruptState: a manifest that is kept is damaged, so nothing says which pieces it needs; nothing is removed.
        """
        names = self.names()
        kept = names[-count:]
        needed = {chunk for name in kept for entry in self.load(name).entries for chunk in entry.chunks}
        for name in names[: -len(kept)]:
            (self._manifests / name).unlink()
        flush_folder(self._manifests)
        self.chunks.sweep(needed)
        return len(names) - len(kept)


def encoded(path: bytes) -> str:
    """A path as text, whatever bytes it has."""
    return quote_from_bytes(path, safe="/ !#$&'()*+,;:=?@[]^`{|}")


def decoded(path: str) -> bytes:
    return unquote_to_bytes(path)


def _check_format(folder: Path) -> None:
    found = (folder / MARKER).read_text().strip()
    if found != str(FORMAT):
        raise CorruptState(f"{folder} has backup format {found}; this hive reads {FORMAT}. Use the hive that wrote it.")


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    flush_folder(path.parent)
