"""Replaces the backups of a hive after texts were erased: older backups hold them."""

from pathlib import Path

from hive.backup.known import known_backups
from hive.backup.writing import write_backup
from hive.clock import Clock
from hive.errors import HiveError
from hive.paths import Paths


def backup_folders(paths: Paths) -> list[str]:
    """The folders that this hive was backed up to. Raises CorruptState."""
    return [one.folder for one in known_backups(paths)]


def replace_backups(paths: Paths, clock: Clock) -> list[str]:
    """Write a new backup into each known folder and remove all older ones; returns the folders where that failed."""
    failed = []
    for folder in map(Path, backup_folders(paths)):
        try:
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder} is not there")
            write_backup(paths, folder, clock, lambda _: None, keep=1)
        except (HiveError, OSError) as error:
            failed.append(f"backups in {folder}: {error}")
    return failed
