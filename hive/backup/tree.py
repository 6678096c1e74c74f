"""Walks a state folder for a backup, following no link: agents own a part of it and may change it meanwhile."""

# ruff: noqa: PTH208  # Folders are read by descriptor.

import os
import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from hive.backup.manifest import Entry, LeftOut, encoded
from hive.paths import Paths
from hive.runtimes import ownership
from hive.settings import secret_files

GIT_OBJECTS: Final = b"objects"
LOG: Final = b"events.db"
ANCHORS: Final = b"anchors.jsonl"
DERIVED: Final = {
    b"projections.db": "folded from the log again",
    b"search.db": "made from the log again",
    b"search.lock": "made anew by a search",
    b"daemon.lock": "made anew by the daemon",
    b"reserve": "taken anew by the daemon",
}
"""Names in the state folder that the daemon makes again, and how."""
SIDE_FILES: Final = (b"-wal", b"-shm", b"-journal")
SESSIONS: Final = b"sessions.json"
CREDENTIALS: Final = b".claude/.credentials.json"
SECRET: Final = "secret; put it back by hand"


class Found(msgspec.Struct, frozen=True):
    """A name to back up, or the reason to leave it out; exactly one of both."""

    entry: Entry | None = None
    left_out: LeftOut | None = None


class Rules:
    """Which names of a state folder a backup leaves out, and why."""

    def __init__(self, paths: Paths, secrets: frozenset[str]):
        self._secrets = {os.fsencode(name) for name in secrets} | {SESSIONS}
        self._paths = paths

    def why_left_out(self, path: bytes) -> str | None:
        """The reason for one path relative to the state folder; None: it is backed up."""
        parts = path.split(b"/")
        if path in self._secrets:
            return "sessions end; operators sign in again" if path == SESSIONS else SECRET
        name = parts[0]
        for derived, why in DERIVED.items():
            if len(parts) == 1 and (name == derived or name.startswith(derived + b".") or name in _beside(derived)):
                return why
        if parts[0] == b"agents" and len(parts) == 3 and parts[2] == b"generations":
            return "built from the applied commits again"
        if parts[0] == b"agents" and b"/".join(parts[3:]) == CREDENTIALS and parts[2] == b"state":
            return "secret; log the agent in again"
        return None

    @staticmethod
    def is_log(path: bytes) -> bool:
        """Whether this is the log, a file beside it or its anchors: they are copied first, in an order of their own."""
        return path in (LOG, ANCHORS, *_beside(LOG))


def rules(paths: Paths) -> Rules:
    """The rules of a hive. Raises BadRequest: its hive.toml is wrong, so nothing says which files are secret."""
    return Rules(paths, secret_files(paths.settings))


def walk(paths: Paths, rules: Rules) -> Iterator[Found]:
    """Every name below the state folder but the log's, folders before what is in them, without content.

    Of a git repository what names commits comes before the objects: a copy never names an object that it lacks.
    """
    yield from walk_below(paths, rules, [b""])


def walk_below(paths: Paths, rules: Rules, folders: list[bytes]) -> Iterator[Found]:
    """The same below some folders, which are relative to the state folder. One that does not exist is left out."""
    root = ownership.open_folder(str(paths.state))
    try:
        device = os.fstat(root).st_dev
        pending = list(reversed(folders))
        while pending:
            below = pending.pop()
            folders = []
            for found, path in _folder(root, below, device, rules):
                yield found
                if found.entry is not None and found.entry.kind == "folder":
                    folders.append(path)
            folders.sort(key=lambda path: (path.rpartition(b"/")[2] == GIT_OBJECTS, path), reverse=True)
            pending += folders
    finally:
        os.close(root)


def _folder(root: int, below: bytes, device: int, rules: Rules) -> Iterator[tuple[Found, bytes]]:
    try:
        fd = ownership.open_below(root, tuple(os.fsdecode(part) for part in below.split(b"/") if part))
    except OSError as error:  # It went, or became a link, since its parent was read.
        yield Found(left_out=LeftOut(encoded(below), f"cannot be opened: {error.strerror}")), below
        return
    try:
        for name in sorted(os.listdir(fd), key=os.fsencode):
            path = b"/".join((below, os.fsencode(name))) if below else os.fsencode(name)
            if rules.is_log(path):
                continue
            if (why := rules.why_left_out(path)) is not None:
                yield Found(left_out=LeftOut(encoded(path), why)), path
                continue
            try:
                yield _entry(fd, name, path, device), path
            except FileNotFoundError:  # Removed meanwhile: as if the backup had begun later.
                continue
    finally:
        os.close(fd)


def _entry(fd: int, name: str, path: bytes, device: int) -> Found:
    facts = os.lstat(name, dir_fd=fd)
    if facts.st_dev != device:
        return Found(left_out=LeftOut(encoded(path), "on another file system"))
    common = {
        "path": encoded(path),
        "mode": stat.S_IMODE(facts.st_mode),
        "uid": facts.st_uid,
        "gid": facts.st_gid,
        "mtime_ns": facts.st_mtime_ns,
    }
    if stat.S_ISDIR(facts.st_mode):
        return Found(Entry(kind="folder", **common))  # type: ignore[arg-type]
    if stat.S_ISLNK(facts.st_mode):
        target = os.fsencode(os.readlink(name, dir_fd=fd))
        return Found(Entry(kind="link", link=encoded(target), **common))  # type: ignore[arg-type]
    if stat.S_ISREG(facts.st_mode):
        return Found(Entry(kind="file", size=facts.st_size, seen=seen(facts), **common))  # type: ignore[arg-type]
    return Found(left_out=LeftOut(encoded(path), "a socket, pipe or device"))


def anchors(paths: Paths) -> Entry | None:
    """The log's anchors, without content; to be read before the log, which must reach what they name."""
    fd = ownership.open_folder(str(paths.state))
    try:
        return _entry(fd, os.fsdecode(ANCHORS), ANCHORS, os.fstat(fd).st_dev).entry
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)


def seen(facts: os.stat_result) -> str:
    """What changes when a file does."""
    return f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _beside(name: bytes) -> tuple[bytes, ...]:
    return tuple(name + suffix for suffix in SIDE_FILES)
