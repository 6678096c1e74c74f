"""Writes one row per turn to the agent's SQLite file. An error here never stops a turn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec

from hive.clock import TimeMs, rfc3339
from hive.harness.environment import TURN_STATS_FILE
from hive.turn_columns import TurnColumns

KEEP_DAYS = 90
DAY_MS = 24 * 3600 * 1000
BUSY_TIMEOUT_MS = 2_000


class TurnRow(TurnColumns, kw_only=True):
    """A row of the file, filled in while the turn runs."""


_COLUMNS = {
    field.name: "INTEGER" if field.type == int | None else "TEXT" for field in msgspec.structs.fields(TurnColumns)
}
"""SQL types by column."""
_SCHEMA = f"CREATE TABLE IF NOT EXISTS turn_stats ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})"
_INSERT = f"INSERT INTO turn_stats ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class TurnStats:
    """The file. Opened for each write, because the agent may delete, lock or corrupt it."""

    def __init__(self, state: Path) -> None:
        self._path = state / TURN_STATS_FILE

    def record(self, row: TurnRow, now: TimeMs) -> str | None:
        """Add a row and delete rows older than 90 days. Return an error text for the log, if any."""
        oldest = rfc3339(now - KEEP_DAYS * DAY_MS)
        try:
            with self._open() as database:
                database.execute(_INSERT, msgspec.structs.astuple(row))
                database.execute("DELETE FROM turn_stats WHERE started_at < ?", (oldest,))
        except (apsw.Error, OSError) as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def _open(self) -> Iterator[apsw.Connection]:
        database = apsw.Connection(str(self._path))
        try:
            database.set_busy_timeout(BUSY_TIMEOUT_MS)
            database.execute(_SCHEMA)
            known = {name for _, name, *_ in database.execute("PRAGMA table_info(turn_stats)")}
            for name, kind in _COLUMNS.items():
                if name not in known:  # The file is older than the column.
                    database.execute(f"ALTER TABLE turn_stats ADD COLUMN {name} {kind}")
            yield database
        finally:
            database.close()
