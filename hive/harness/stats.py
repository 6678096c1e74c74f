"""Writes one row per turn to the agent's SQLite file. An error here never stops a turn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec

from hive.clock import TimeMs, rfc3339
from hive.harness.environment import TURN_STATS_FILE

KEEP_DAYS = 90
DAY_MS = 24 * 3600 * 1000
BUSY_TIMEOUT_MS = 2_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS turn_stats (
    model TEXT, wake_from TEXT, result_kind TEXT, started_at TEXT, ended_at TEXT, duration_ms INTEGER,
    input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_creation_tokens INTEGER,
    tool_call_count INTEGER, tool_calls_json TEXT, open_threads_count INTEGER, open_reminders_count INTEGER, note TEXT
)
"""


class TurnRow(msgspec.Struct, kw_only=True):
    """The columns, in order. Unknown values are None, never 0; times are RFC 3339 in UTC."""

    model: str | None = None
    wake_from: str | None = None
    result_kind: str | None = None
    """`ok`, `failed` or `prompt_too_long`."""
    started_at: str | None = None
    ended_at: str | None = None
    duration_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    tool_call_count: int | None = None
    tool_calls_json: str | None = None
    open_threads_count: int | None = None
    open_reminders_count: int | None = None
    note: str | None = None


class TurnStats:
    """The file. Opened for each write, because the agent may delete, lock or corrupt it."""

    def __init__(self, state: Path) -> None:
        self._path = state / TURN_STATS_FILE

    def record(self, row: TurnRow, now: TimeMs) -> str | None:
        """Add a row and delete rows older than 90 days. Return an error text for the log, if any."""
        oldest = rfc3339(now - KEEP_DAYS * DAY_MS)
        try:
            with self._open() as database:
                marks = ", ".join("?" * len(row.__struct_fields__))
                database.execute(f"INSERT INTO turn_stats VALUES ({marks})", msgspec.structs.astuple(row))
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
            yield database
        finally:
            database.close()
