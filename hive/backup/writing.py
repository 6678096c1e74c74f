"""`hive backup`: the log first, then repositories and folders, and the manifest when all of it is durable."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import apsw
import msgspec

import hive
from hive import lock
from hive.audit.chain import verify_log
from hive.audit.reading import log_reader
from hive.backup.known import note_backup
from hive.backup.manifest import Backups, Entry, LeftOut, Manifest, decoded, encoded
from hive.backup.tree import LOG, anchors, rules, seen, walk
from hive.clock import Clock
from hive.config.git import Git
from hive.errors import BadRequest, CorruptState
from hive.events.log import stamp
from hive.events.sqlite import connect
from hive.paths import Paths
from hive.runtimes import ownership

COPY_PAGES: Final = 2_000
"""Of the log, copied in one step; the daemon writes between two of them."""
BUNDLE_MAX_S: Final = 300
LOG_COPY: Final = "events.db"

Tell = Callable[[str], None]
"""Hears what is being done, in a few words."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What one backup came to."""

    backup: str
    folder: str
    at: str
    seq: int
    hash: str
    files: int
    bytes: int
    """Of all files, before compression."""
    new_chunks: int
    """Pieces that no earlier backup had, of at most 1 MiB each."""
    removed_backups: int
    left_out: tuple[LeftOut, ...]


def write_backup(paths: Paths, folder: Path, clock: Clock, tell: Tell, *, keep: int) -> Written:
    """Back up a state folder, whether a daemon runs on it or not, and keep the newest `keep` backups.

    Raises:
        BadRequest: the folder is no place for backups. NotFound: there is no log. CorruptState: the log does not
        hold, or an older manifest that is kept is damaged. Unavailable: another backup is under way, or git failed.
    """
    folder = folder.absolute()
    if folder.resolve().is_relative_to(paths.state.resolve()):
        raise BadRequest(f"{folder} is in the state folder; back up to another place, best to another disk.")
    with log_reader(paths):  # Raises where there is no log.
        pass
    backups = Backups.made(folder)
    with backups.held():
        before = backups.newest()
        at = stamp(clock.now_ms())
        tell("log")
        noted = anchors(paths)
        first = [] if noted is None else [_filled(paths, backups, noted, None)]
        log, seq, hash = _log(paths, backups, tell)
        entries, left_out = [*first, log], list[LeftOut]()
        old = {entry.path: entry for entry in before[1].entries} if before else {}
        for found in walk(paths, rules(paths)):
            if found.left_out is not None:
                left_out.append(found.left_out)
            if found.entry is not None and not _in_bundle(paths, found.entry.path):
                tell(found.entry.path)
                entries.append(_filled(paths, backups, found.entry, old.get(found.entry.path)))
        for repository in _repositories(paths):
            tell(str(repository.relative_to(paths.state)))
            entries += _bundle(paths, backups, repository)
        backups.chunks.check(backups.chunks.added)
        manifest = Manifest(
            at=at, hive_version=hive.__version__, seq=seq, hash=hash, entries=tuple(entries), left_out=tuple(left_out)
        )
        tell("manifest")
        name = backups.save(manifest)
        tell("older backups")
        removed = backups.keep_newest(keep)
        note_backup(paths, folder, at, seq)
    return Written(
        backup=name,
        folder=str(folder),
        at=at,
        seq=seq,
        hash=hash,
        files=sum(entry.kind == "file" for entry in entries),
        bytes=sum(entry.size for entry in entries),
        new_chunks=len(backups.chunks.added),
        removed_backups=removed,
        left_out=tuple(left_out),
    )


def _log(paths: Paths, backups: Backups, tell: Tell) -> tuple[Entry, int, str]:
    """A consistent copy of the log whose chain holds; its position and hash."""
    with tempfile.TemporaryDirectory(prefix=".log-", dir=backups.folder) as place:
        copy = Path(place) / LOG_COPY
        source = connect(paths.events, write=False, daemon_runs=lock.is_held(paths.lock))
        target = apsw.Connection(str(copy))
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(COPY_PAGES)
            target.pragma("journal_mode", "wal")  # As the log's own header says.
        finally:
            target.close()
            source.close()
        if paths.archive.exists():  # The copy is verified with the segments that it lists; the walk copies them next.
            (Path(place) / paths.archive.name).symlink_to(paths.archive)
        seq, hash = _verified(Path(place), tell)
        with copy.open("rb") as file:
            chunks = tuple(backups.chunks.put_all(file))
        entry = Entry(path=encoded(LOG), kind="file", mode=0o600, size=copy.stat().st_size, chunks=chunks)
    return entry, seq, hash


def _verified(folder: Path, tell: Tell) -> tuple[int, str]:
    """Position and hash of the copy's end. Raises CorruptState: its chain does not hold."""
    found = verify_log(Paths(folder, folder / "run"), lambda _: tell("chain"))
    if not found.ok:
        where = f"Event {found.bad_seq} {found.why}" if found.bad_seq is not None else f"The log: {found.why}"
        raise CorruptState(f"{where}; nothing was backed up. See `hive audit verify`.")
    return found.events, found.head or ""


def _filled(paths: Paths, backups: Backups, entry: Entry, old: Entry | None) -> Entry:
    """The entry with its content. A file that is as the backup before saw it is not read again."""
    if entry.kind != "file":
        return entry
    if old is not None and old.seen == entry.seen and all(map(backups.chunks.has, old.chunks)):
        return msgspec.structs.replace(entry, chunks=old.chunks)
    try:
        fd = ownership.open_file(str(paths.state), os.fsdecode(decoded(entry.path)))
    except OSError:  # Removed or replaced since the walk saw it: as if the backup had begun later.
        return msgspec.structs.replace(entry, size=0, seen="")
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        chunks = tuple(backups.chunks.put_all(file))
        return msgspec.structs.replace(entry, chunks=chunks, size=facts.st_size, seen=seen(facts))


def _repositories(paths: Paths) -> Iterator[Path]:
    """The git directories that the daemon alone writes. The manager's are copied as files: git is not run on them."""
    candidates = [paths.meta]
    if paths.all_applied.is_dir():
        candidates += sorted(paths.all_applied.iterdir())
    for folder in candidates:
        if (folder / ".git" / "HEAD").is_file():
            yield folder / ".git"


def _in_bundle(paths: Paths, path: str) -> bool:
    """Whether a bundle holds this file: the objects of a repository that gets one."""
    parts = decoded(path).split(b"/")
    inside = parts[3:] if parts[:1] == [b"applied"] else parts[2:] if parts[:1] == [b"meta"] else []
    return (b".git" in parts[1:3]) and inside[:1] == [b"objects"]


def _bundle(paths: Paths, backups: Backups, git_dir: Path) -> Iterator[Entry]:
    """The objects of a repository, when it has any."""
    git = Git(git_dir)
    if not git.text("for-each-ref", "--count=1"):
        return
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=backups.folder) as place:
        bundle = Path(place) / "bundle"
        git.run("bundle", "create", "--quiet", str(bundle), "--all", time_limit_s=BUNDLE_MAX_S)
        with bundle.open("rb") as file:
            chunks = tuple(backups.chunks.put_all(file))
        path = encoded(os.fsencode(git_dir.relative_to(paths.state)))
        yield Entry(path=path, kind="bundle", size=bundle.stat().st_size, chunks=chunks)
