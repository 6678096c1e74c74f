"""Opens SQLite through apsw, never the standard library's older build. Used by the log and the projection store."""

from pathlib import Path

import apsw

from hive.errors import CorruptState, Unavailable

SQLITE_OLDEST_SAFE = (3, 51, 3)
"""Older versions can corrupt a WAL database with two connections (fixed in 3.51.3, 3.50.7 and 3.44.6)."""
SQLITE_PATCHED = ((3, 50, 7), (3, 44, 6))
BUSY_TIMEOUT_MS = 5_000


def refuse_unsafe(version: str) -> None:
    """Raises Unavailable if this SQLite version can lose data."""
    numbers = tuple(int(part) for part in version.split("."))
    patched = any(numbers[:2] == fixed[:2] and numbers >= fixed for fixed in SQLITE_PATCHED)
    if numbers < SQLITE_OLDEST_SAFE and not patched:
        wanted = ".".join(map(str, SQLITE_OLDEST_SAFE))
        raise Unavailable(f"SQLite {version} can corrupt the log; install apsw with SQLite {wanted} or newer.")


def connect(path: Path, *, write: bool, daemon_runs: bool = True) -> apsw.Connection:
    """One connection, owned by the thread that opened it.

    Without `write` the connection creates and changes no file, not even a `-shm` if no daemon has the database open.
    It can read a read-only copy with its `-wal`.

    Raises:
        Unavailable: unsafe SQLite, or no such file.
        CorruptState: not a database.
    """
    refuse_unsafe(apsw.sqlite_lib_version())
    if not write and not path.exists():
        raise Unavailable(f"There is no {path.name} in {path.parent}; give the hive's state folder with --state.")
    alone = not write and not daemon_runs
    has_wal = path.with_name(path.name + "-wal").exists()
    how = ("?vfs=unix-none" if has_wal else "?immutable=1") if alone else ""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE if write else apsw.SQLITE_OPEN_READONLY
    try:
        db = apsw.Connection(path.absolute().as_uri() + how, flags=flags | apsw.SQLITE_OPEN_URI)
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        if alone and has_wal:  # Keep the WAL index in memory and do not checkpoint on close.
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.pragma("locking_mode", "exclusive")
        db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.NotADBError as error:
        raise CorruptState(
            f"{path} is not an SQLite database. Restore it from a backup; hive does not repair it."
        ) from error
    except apsw.CorruptError as error:
        raise CorruptState(
            f"{path} is damaged ({error}). Restore it from a backup; hive does not repair it."
        ) from error
    except apsw.CantOpenError as error:
        raise Unavailable(f"{path} cannot be opened: {error}.") from error
    return db
