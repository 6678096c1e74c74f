"""`hive restore`: checks every piece of a backup, then writes a new state folder and gives it its name at the end."""

import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from hive.audit.chain import verify_log
from hive.backup.manifest import Backups, Entry, LeftOut, Manifest, decoded
from hive.backup.writing import Tell
from hive.config.git import Git
from hive.config.tree import flush_folder
from hive.errors import BadRequest, CorruptState, NotFound
from hive.paths import Paths
from hive.runtimes import ownership

UNFINISHED: Final = ".restoring-"
BUNDLE_MAX_S: Final = 300


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore came to."""

    backup: str
    state: str
    at: str
    """When the backup was taken, RFC 3339 UTC."""
    seq: int
    hash: str
    files: int
    left_out: tuple[LeftOut, ...]
    """What the backup does not hold; secrets are put back by hand."""


def restore_backup(folder: Path, state: Path, tell: Tell, *, name: str | None = None) -> Restored:
    """Write the newest backup of a folder, or the named one, as a new state folder.

    Raises:
        NotFound: no such backup. BadRequest: the state folder is not new. CorruptState: the backup is damaged;
        nothing was written.
    """
    backups = Backups.opened(folder.absolute())
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise BadRequest(f"{state} is not empty; restore into a new folder, then move it into place.")
    name = _named(backups, name)
    manifest = backups.load(name)
    for entry in manifest.entries:
        tell(entry.path)
        backups.chunks.check(entry.chunks)
    state.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(state)
    place = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{state.name}-", dir=state.parent))
    try:
        _write_all(backups, manifest, place, tell)
        _refuse_damaged(place, manifest, tell)
        os.sync()
        if state.exists():
            state.rmdir()
        place.rename(state)
        flush_folder(state.parent)
    except BaseException:
        ownership.remove(str(place))
        raise
    return Restored(
        backup=name,
        state=str(state),
        at=manifest.at,
        seq=manifest.seq,
        hash=manifest.hash,
        files=sum(entry.kind == "file" for entry in manifest.entries),
        left_out=manifest.left_out,
    )


def remove_unfinished(state: Path) -> None:
    """Remove what a restore into this folder left when it was killed."""
    for left in state.parent.glob(f"{UNFINISHED}{state.name}-*"):
        ownership.remove(str(left.resolve()))


def _named(backups: Backups, name: str | None) -> str:
    names = backups.names()
    if not names:
        raise NotFound(f"{backups.folder} has no finished backup.")
    if name is None:
        return names[-1]
    matching = [one for one in names if one.startswith(name)]
    if len(matching) != 1:
        raise NotFound(
            f"{backups.folder} has {len(matching)} backups whose name begins with {name!r}; it has:\n"
            + "\n".join(names)
        )
    return matching[0]


def _refuse_damaged(place: Path, manifest: Manifest, tell: Tell) -> None:
    found = verify_log(Paths(place, place / "run"), lambda _: tell("chain"))
    if not found.ok or found.head != manifest.hash:
        raise CorruptState(f"The restored log does not hold ({found.why}); restore an earlier backup.")


def _write_all(backups: Backups, manifest: Manifest, place: Path, tell: Tell) -> None:
    folders: list[tuple[Path, Entry]] = []
    for entry in manifest.entries:
        path = place / os.fsdecode(decoded(entry.path))
        if path == place or place not in path.parents or ".." in path.parts:
            raise CorruptState(f"The backup names {entry.path}, outside the state folder; it was tampered with.")
        tell(entry.path)
        match entry.kind:
            case "folder":
                path.mkdir(mode=0o700)
                folders.append((path, entry))
            case "link":
                path.symlink_to(os.fsdecode(decoded(entry.link)))
                _give(path, entry)
            case "file":
                with path.open("xb") as file:
                    file.writelines(map(backups.chunks.get, entry.chunks))
                _give(path, entry)
            case "bundle":
                _unbundle(backups, entry, path)
    for path, entry in reversed(folders):  # Last: a folder's own time and mode, once nothing is written into it.
        _give(path, entry)


def _unbundle(backups: Backups, entry: Entry, git_dir: Path) -> None:
    """Give a repository its objects. They are unpacked in an empty one: git refuses one whose refs lack objects."""
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=git_dir) as name:
        empty, bundle = Path(name) / "git", Path(name) / "bundle"
        with bundle.open("xb") as file:
            file.writelines(map(backups.chunks.get, entry.chunks))
        git = Git(empty)
        git.run("init", "--quiet", "--bare", "--template=", str(empty))
        git.run("bundle", "unbundle", str(bundle), time_limit_s=BUNDLE_MAX_S)
        packs = git_dir / "objects" / "pack"
        packs.mkdir(parents=True, exist_ok=True)
        for pack in (empty / "objects" / "pack").iterdir():
            pack.rename(packs / pack.name)


def _give(path: Path, entry: Entry) -> None:
    if os.geteuid() == 0:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != "link":
        path.chmod(entry.mode)
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
