"""Where the backups of a hive are: a note in its state folder, for `hive doctor` and for whoever must erase in them."""

from pathlib import Path

import msgspec

from hive.errors import CorruptState
from hive.paths import Paths


class KnownBackup(msgspec.Struct, frozen=True):
    """The newest backup in one folder."""

    folder: str
    at: str
    """RFC 3339 UTC."""
    seq: int
    """Of the newest event in it."""


def known_backups(paths: Paths) -> list[KnownBackup]:
    """Every folder that this hive was backed up to, the newest backup first.

    Raises:
        CorruptState: the note cannot be read.
    """
    try:
        found = msgspec.json.decode(paths.backups.read_bytes(), type=list[KnownBackup])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise CorruptState(f"{paths.backups} cannot be read ({error}); delete it and back up again.") from error
    return sorted(found, key=lambda one: one.at, reverse=True)


def note_backup(paths: Paths, folder: Path, at: str, seq: int) -> None:
    """Remember a finished backup in place of the one before it in the same folder."""
    others = [one for one in known_backups(paths) if one.folder != str(folder)]
    unfinished = paths.backups.with_name(paths.backups.name + ".unfinished")
    unfinished.write_bytes(msgspec.json.encode([KnownBackup(str(folder), at, seq), *others]))
    unfinished.rename(paths.backups)
