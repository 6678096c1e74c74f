"""A second `projections.db` beside the one in use. A rebuild writes it; the journal then loads it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import apsw

from hive.errors import CorruptState, Unavailable
from hive.events.log import EventLog
from hive.events.sqlite import connect
from hive.projections.hive import Hive
from hive.projections.store import (
    FILE_NAME,
    PAGE_BYTES,
    POSITIONS,
    SET_POSITION,
    create_statement,
    discard,
    marks_of,
    read_groups,
    stored_cells,
    stored_positions,
    writing,
)
from hive.projections.table import Table

FRESH_NAME: Final = "projections.db.new"


class FreshFile:
    """The writer's side, as a context manager: complete and synced after the block, deleted if the block raises.

    An incomplete file of a killed process is replaced by the next rebuild.
    Every method raises Unavailable when the disk refuses.
    """

    def __init__(self, folder: Path):
        self.path = folder / FRESH_NAME
        try:
            discard(self.path)
            self.path.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._db = connect(self.path, write=True)

    def __enter__(self) -> Self:
        # Nobody else opens the file and an incomplete one is discarded: no journal, no locks, no fsync.
        self._run(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF")
        self._run("PRAGMA synchronous=OFF")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = False
        try:
            if kind is None:
                self._run("PRAGMA synchronous=FULL; PRAGMA journal_mode=WAL")  # The mode in service.
                whole = True
        finally:
            self._db.close()
            if not whole:
                discard(self.path)

    def fill(self, hive: Hive, head_hash: bytes) -> None:
        """Write every row in key order, so that each page of the file is written once."""
        self._run("BEGIN;" + POSITIONS)
        for projection in hive.projections():
            for table in projection.tables():
                self._run(create_statement(table))
                self._insert(table)
                table.changed = set()
        for mark in marks_of(hive, head_hash):
            self._run(SET_POSITION, mark)
        self._run("COMMIT")

    def catch_up(self, hive: Hive, head_hash: bytes) -> None:
        """Write what has changed since."""
        try:
            for _ in writing(self._db, hive, head_hash):
                pass
        except apsw.Error as error:
            raise _unwritable(self.path, error) from error

    def _insert(self, table: Table[Any, Any]) -> None:
        rows = stored_cells(table, map(table.rows.__getitem__, sorted(table.rows)))
        places = ",".join("?" * len(table.row_type.__struct_fields__))
        try:
            self._db.executemany(f"INSERT INTO {table.name} VALUES({places})", rows)
        except apsw.Error as error:
            raise _unwritable(self.path, error) from error

    def _run(self, statement: str, values: Sequence[Any] = ()) -> None:
        try:
            self._db.execute(statement, values).fetchall()
        except apsw.Error as error:
            raise _unwritable(self.path, error) from error


def reading(folder: Path, hive: Hive, log: EventLog) -> Iterator[None]:
    """Fill an empty Hive from a finished file in small steps.

    Raises:
        CorruptState: a projection is missing, of another version or log, or at another position.
        Unavailable, apsw.Error, msgspec.MsgspecError: it cannot be read.
    """
    path = folder / FRESH_NAME
    db = connect(path, write=False, daemon_runs=False)
    try:
        stored = {one.name: one for one in stored_positions(db)}
        seqs = {one.seq for one in stored.values()}
        for projection in hive.projections():
            mark = stored.get(projection.NAME)
            if (
                mark is None
                or mark.version != projection.VERSION
                or len(seqs) != 1
                or log.hash_at(mark.seq) != mark.hash
            ):
                raise CorruptState(f"{path} does not hold {projection.NAME} as of one event of this log.")
            yield from read_groups(db, projection)
            projection.restored()
    finally:
        db.close()
    hive.seq = seqs.pop()


def put_in_place(folder: Path) -> None:
    """Replace the file in use, which the caller has closed, with the finished file.

    A kill in here leaves one complete file, or none if a reader was open: then the next start folds the log.
    """
    old = folder / FILE_NAME
    if not _is_one_file(old):
        discard(old)  # The file first: SQLite would apply its WAL to another file of the same name.
    (folder / FRESH_NAME).rename(old)


def discard_fresh(folder: Path) -> None:
    """Remove the file of a killed rebuild."""
    discard(folder / FRESH_NAME)


def _is_one_file(path: Path) -> bool:
    """Checkpoint the WAL into the file. False if a reader has it open or it is damaged."""
    if not path.exists():
        return False
    try:
        db = connect(path, write=True)
        try:
            db.set_busy_timeout(0)
            return bool(db.pragma("journal_mode", "delete") == "delete")
        finally:
            db.close()
    except (apsw.Error, CorruptState, Unavailable):
        return False


def _unwritable(path: Path, error: apsw.Error | OSError) -> Unavailable:
    return Unavailable(f"{path} cannot be written: {error}. Free disk space or check the disk.")
