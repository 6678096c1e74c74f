"""Opens a hive's files for reading: with a running daemon, without one, or in a copy. Used by every audit."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from hive import lock
from hive.errors import CorruptState, Unavailable
from hive.events.log import LogReader, Row
from hive.events.sqlite import connect
from hive.paths import Paths

TELL_EVERY_ROWS = 1_000
NICENESS = 10

Tell = Callable[[int], None]
"""Called with the current position from time to time."""


@contextmanager
def log_reader(paths: Paths) -> Iterator[LogReader]:
    """The log for as long as the block.

    Raises:
        Unavailable: no log there, or it cannot be opened.
        CorruptState: damaged or not a hive's log; also raised by reads inside the block.
    """
    with translating_sqlite_errors(paths.events):
        reader = LogReader(paths.state, daemon_runs=lock.is_held(paths.lock))
        try:
            yield reader
        finally:
            reader.close()


@contextmanager
def projections_db(paths: Paths, *, daemon_runs: bool | None = None) -> Iterator[apsw.Connection]:
    """A snapshot of `projections.db`. A caller that holds the state's lock passes `daemon_runs=False`.

    Raises as `log_reader`.
    """
    runs = lock.is_held(paths.lock) if daemon_runs is None else daemon_runs
    with translating_sqlite_errors(paths.projections):
        db = connect(paths.projections, write=False, daemon_runs=runs)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.close()


def lower_priority(paths: Paths) -> None:
    """Lower this process's priority for long work beside a daemon, so that appends come first."""
    if lock.is_held(paths.lock):
        os.nice(NICENESS)


@contextmanager
def translating_sqlite_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's errors inside the block into errors that say what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as error:
        raise CorruptState(
            f"{path} is damaged ({error}). See `hive audit verify`; restore it from a backup, hive does not repair it."
        ) from error
    except apsw.Error as error:
        raise Unavailable(f"{path} cannot be read: {error}.") from error


def watched(rows: Iterable[Row], tell: Tell) -> Iterator[Row]:
    """The same rows, with progress reports."""
    for row in rows:
        if row.seq % TELL_EVERY_ROWS == 0:
            tell(row.seq)
        yield row
