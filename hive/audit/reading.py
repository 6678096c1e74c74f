"""Opens a hive's files for reading, beside a running daemon, without one or in a copy. Every audit begins here."""

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
"""Is told the position reached, now and then."""


@contextmanager
def log_reader(paths: Paths) -> Iterator[LogReader]:
    """The log for as long as the block.

    Raises:
        Unavailable: no log there, or it cannot be opened.
        CorruptState: damaged, or not a hive's; also out of the block, when reading meets damage.
    """
    with refusing_damage(paths.events):
        reader = LogReader(paths.state, daemon_runs=lock.is_held(paths.lock))
        try:
            yield reader
        finally:
            reader.close()


@contextmanager
def projections_db(paths: Paths, *, daemon_runs: bool | None = None) -> Iterator[apsw.Connection]:
    """`projections.db` as it is at one moment. Whoever holds the state's lock says that no daemon runs beside.

    Raises as `log_reader`.
    """
    runs = lock.is_held(paths.lock) if daemon_runs is None else daemon_runs
    with refusing_damage(paths.projections):
        db = connect(paths.projections, write=False, daemon_runs=runs)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.close()


def stand_back(paths: Paths) -> None:
    """Before long work beside a daemon: whoever waits for an append comes first."""
    if lock.is_held(paths.lock):
        os.nice(NICENESS)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """What SQLite finds wrong inside the block, said so that a person knows what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, UnicodeDecodeError) as error:
        raise CorruptState(
            f"{path} is damaged ({error}). See `hive audit verify`; restore it from a backup, hive does not repair it."
        ) from error
    except apsw.Error as error:
        raise Unavailable(f"{path} cannot be read: {error}.") from error


def watched(rows: Iterable[Row], tell: Tell) -> Iterator[Row]:
    """The same rows, telling how far they are read."""
    for row in rows:
        if row.seq % TELL_EVERY_ROWS == 0:
            tell(row.seq)
        yield row
