"""`projections.db`: the tables of every projection, written after the log. Disposable: stale rows are refolded."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import apsw
import msgspec

from hive.errors import CorruptState, Unavailable
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import EventLog
from hive.events.pages import read_ahead
from hive.events.sqlite import connect
from hive.projections.hive import Hive, dispatch
from hive.projections.replay import replay_into
from hive.projections.table import Projection, R, Table

FILE_NAME: Final = "projections.db"
ROWS_OF_STATEMENTS: Final = (64, 8, 1)
"""Rows per statement. Large statements release the GIL less often."""
ROWS_OF_CHANGES: Final = 1_000
"""Changed rows prepared between two pauses."""
ROWS_OF_READS: Final = 100
"""Rows read between two pauses."""
PAGE_BYTES: Final = 8_192
"""Page size of the file. Rows are a few hundred bytes, so larger pages need fewer writes."""
POSITIONS: Final = (
    "CREATE TABLE IF NOT EXISTS positions"
    "(projection TEXT PRIMARY KEY, version INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID"
)
_NO_ROOM: Final = (apsw.FullError, apsw.IOError, apsw.CantOpenError, Unavailable, OSError)
"""Errors of a full disk."""
SET_POSITION: Final = "INSERT OR REPLACE INTO positions VALUES(?,?,?,?)"


class Store:
    """The writer's side. Owned by the journal's thread."""

    def __init__(self, folder: Path):
        self.path = folder / FILE_NAME
        self._is_in_memory = False
        self._db = self._open()

    def load(self, hive: Hive, log: EventLog, codec: Codec) -> list[str]:
        """Bring an empty Hive to the head of the log from stored rows, and fold the remaining events.

        Returns the names of the projections that had to be folded from the first event.
        """
        projections = hive.projections()
        try:
            positions = {projection.NAME: self._restore(projection, log) for projection in projections}
        except (apsw.CorruptError, *_NO_ROOM) as error:  # Cannot even drop a table.
            self._db.close()
            discard(self.path)
            self._db = self._prepared() if isinstance(error, apsw.CorruptError) else self._in_memory()
            positions = {projection.NAME: self._restore(projection, log) for projection in projections}
        marks = sorted(set(positions.values()))
        for mark, until in zip(marks, [*marks[1:], log.head.seq], strict=True):
            behind = [projection for projection in projections if positions[projection.NAME] <= mark]
            with read_ahead(log.pages(mark + 1, until)) as pages:
                replay_into(dispatch(behind), pages, codec)
        hive.seq = log.head.seq
        return [name for name, seq in positions.items() if seq == 0 and log.head.seq > 0]

    def write(self, hive: Hive, head_hash: bytes) -> None:
        """Write every changed row and the position in one transaction, without fsync: the log is durable."""
        try:
            for _ in self.writing(hive, head_hash):
                pass
        except apsw.CorruptError:
            for _ in self.writing(hive, head_hash):
                pass

    def writing(self, hive: Hive, head_hash: bytes) -> Generator[None, None, None]:
        """The same in small steps. Events folded between two steps are not part of this transaction.

        A transaction that fails or is closed early changes nothing, and its rows stay marked as changed. A damaged
        file is replaced by an empty one for the next call.
        """
        if self._is_in_memory:
            self._start_over(hive)
        try:
            yield from writing(self._db, hive, head_hash)
        except apsw.CorruptError:
            self._start_over(hive)
            raise

    def _start_over(self, hive: Hive) -> None:
        discard(self.path)
        fresh = self._prepared()
        tables = [table for projection in hive.projections() for table in projection.tables()]
        try:
            for table in tables:
                fresh.execute(create_statement(table))
        except apsw.Error:
            fresh.close()
            raise
        self._db.close()
        self._db, self._is_in_memory = fresh, False
        for table in tables:
            table.changed = set(table.rows)

    def close(self) -> None:
        """Checkpoint into one file, if the disk has room."""
        with contextlib.suppress(apsw.FullError, apsw.IOError, apsw.CorruptError):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def _open(self) -> apsw.Connection:
        try:
            return self._prepared()
        except (CorruptState, apsw.CorruptError, apsw.NotADBError, *_NO_ROOM):
            return self._emptied()  # Disposable: the log has everything.

    def _emptied(self) -> apsw.Connection:
        """A new file or, on a full disk, a database in memory until `writing` can create the file."""
        discard(self.path)
        try:
            return self._prepared()
        except _NO_ROOM:
            return self._in_memory()

    def _in_memory(self) -> apsw.Connection:
        self._is_in_memory = True
        db = apsw.Connection(":memory:")
        db.execute(POSITIONS)
        return db

    def _prepared(self) -> apsw.Connection:
        self.path.touch(mode=0o600)  # SQLite creates `-wal` and `-shm` with the same mode.
        db = connect(self.path, write=True)
        db.execute(
            f"PRAGMA page_size={PAGE_BYTES}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + POSITIONS
        ).fetchall()
        return db

    def _restore(self, projection: Projection, log: EventLog) -> Seq:
        stored = self._db.execute(
            "SELECT version, seq, hash FROM positions WHERE projection = ?", (projection.NAME,)
        ).fetchone()
        if stored is not None and stored[0] == projection.VERSION and log.hash_at(stored[1]) == stored[2]:
            try:
                read_rows(self._db, projection)
            except (apsw.Error, msgspec.MsgspecError, ValueError, TypeError):
                pass  # Damaged rows or rows of another shape: fold them again below.
            else:
                return int(stored[1])
        for table in projection.tables():
            table.rows.clear()
            self._db.execute(f"DROP TABLE IF EXISTS {table.name};" + create_statement(table))
        projection.restored()
        return 0


class Stored(msgspec.Struct, frozen=True):
    """The stored position of one projection."""

    name: str
    version: int
    seq: Seq
    hash: bytes


def writing(db: apsw.Connection, hive: Hive, head_hash: bytes) -> Generator[None, None, None]:
    """One transaction with every changed row and the position, in small steps; see `Store.writing`."""
    taken = [(table, _Changes(table)) for projection in hive.projections() for table in projection.tables()]
    marks = marks_of(hive, head_hash)
    try:
        db.execute("BEGIN IMMEDIATE")
        for _, changes in taken:
            yield from changes.write(db)
        db.executemany(SET_POSITION, marks)
        db.execute("COMMIT")
    except BaseException:
        for table, changes in taken:
            table.changed |= changes.keys
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def marks_of(hive: Hive, head_hash: bytes) -> list[tuple[str, int, Seq, bytes]]:
    """Parameters of `SET_POSITION` for each projection."""
    return [(projection.NAME, projection.VERSION, hive.seq, head_hash) for projection in hive.projections()]


def stored_positions(db: apsw.Connection) -> list[Stored]:
    """Position of every stored projection."""
    return [
        Stored(*row) for row in db.execute("SELECT projection, version, seq, hash FROM positions ORDER BY projection")
    ]


def read_rows(db: apsw.Connection, projection: Projection) -> None:
    """Fill the empty tables of a projection from the file.

    Raises:
        apsw.SQLError, msgspec.ValidationError: the file has another shape.
    """
    for _ in read_groups(db, projection):
        pass
    projection.restored()


def read_groups(db: apsw.Connection, projection: Projection) -> Iterator[None]:
    """The same with pauses between groups of rows, without derived values."""
    for table in projection.tables():
        row_type, rows, parts = table.row_type, table.rows, table.key_parts
        names, shapes = row_type.__struct_fields__, _SHAPES(row_type)
        made = row_type if row_type.__match_args__ == names else _by_name(row_type)
        found: Iterator[Any] = db.execute(f"SELECT {', '.join(map(_quoted, names))} FROM {table.name}")
        if set(shapes) != {"plain"}:
            found = (tuple(map(_value, values, shapes)) for values in found)
        while group := list(islice(found, ROWS_OF_READS)):
            for values in msgspec.convert(group, _CHECKED(row_type)):
                rows[values[0] if parts == 1 else values[:parts]] = made(*values)
            yield


def create_statement(table: Table[Any, Any]) -> str:
    """The SQL of a table: one column per field, nested values as JSON text; an integer key is the rowid."""
    names = [_quoted(name) for name in table.row_type.__struct_fields__]
    key = ", ".join(names[: table.key_parts])
    if table.key_parts == 1 and _is_number(table.row_type):
        return f"CREATE TABLE {table.name}({names[0]} INTEGER PRIMARY KEY, {', '.join(names[1:])})"
    return f"CREATE TABLE {table.name}({', '.join(names)}, PRIMARY KEY({key})) WITHOUT ROWID"


def discard(path: Path) -> None:
    """Remove the file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _Changes:
    """The changes of one table up to now. Resets the table's own set."""

    def __init__(self, table: Table[Any, Any]):
        self._table = table
        self.keys = table.changed
        table.changed = set()
        self._rows = list(map(table.rows.get, self.keys))  # No more than this at once: every producer waits for it.

    def write(self, db: apsw.Connection) -> Iterator[None]:
        table = self._table
        names = [_quoted(name) for name in table.row_type.__struct_fields__[: table.key_parts]]
        changed = zip(self.keys, self._rows, strict=True)
        while some := list(islice(changed, ROWS_OF_CHANGES)):
            some.sort(key=itemgetter(0))  # In the order of the file, so that each page is met once.
            gone = [key if isinstance(key, tuple) else (key,) for key, row in some if row is None]
            put = list(stored_cells(table, [row for _, row in some if row is not None]))
            yield
            yield from _in_groups(db, f"DELETE FROM {table.name} WHERE ({', '.join(names)}) IN (VALUES", gone, ")")
            yield from _in_groups(db, f"INSERT OR REPLACE INTO {table.name} VALUES", put, "")


def stored_cells(table: Table[Any, Any], rows: Iterable[msgspec.Struct]) -> Iterator[Sequence[Any]]:
    """The rows as SQLite values."""
    plain = map(msgspec.structs.astuple, rows)
    nested = [place for place, shape in enumerate(_SHAPES(table.row_type)) if shape == "nested"]
    return (_flattened(values, nested) for values in plain) if nested else plain


def _flattened(values: tuple[Any, ...], nested: list[int]) -> list[Any]:
    cells = list(values)
    for place in nested:
        if cells[place] is not None:
            cells[place] = msgspec.json.encode(cells[place]).decode()
    return cells


def _in_groups(db: apsw.Connection, begin: str, rows: Sequence[Sequence[Any]], end: str) -> Iterator[None]:
    """Run one statement for many rows at a time, with a pause after each."""
    done = 0
    for size in ROWS_OF_STATEMENTS if rows else ():
        statement = begin + ",".join(["(" + ",".join("?" * len(rows[0])) + ")"] * size) + end
        while len(rows) - done >= size:
            db.execute(statement, list(chain.from_iterable(rows[done : done + size])))
            done += size
            yield


Shape = Literal["plain", "flag", "nested"]


def _value(cell: Any, shape: Shape) -> Any:
    if cell is None or shape == "plain":
        return cell
    return bool(cell) if shape == "flag" else msgspec.json.decode(cell)


def _shapes(row_type: type[msgspec.Struct]) -> tuple[Shape, ...]:
    hints = _HINTS(row_type)
    return tuple(_shape(hints[name]) for name in row_type.__struct_fields__)


def _shape(hint: Any) -> Shape:
    parts = [part for part in get_args(hint) if part is not NoneType] if get_origin(hint) in _UNIONS else [hint]
    kinds = [get_origin(part) or part for part in parts]
    if bool in kinds:
        return "flag"
    nested = any(
        kind in (tuple, list, dict) or issubclass(kind, msgspec.Struct) for kind in kinds if isinstance(kind, type)
    )
    return "nested" if nested else "plain"


def _is_number(row_type: type[msgspec.Struct]) -> bool:
    """Whether the first field is an integer."""
    first = _HINTS(row_type)[row_type.__struct_fields__[0]]
    return getattr(first, "__supertype__", first) is int


def _checked(row_type: type[msgspec.Struct]) -> Any:
    """The type of a list of rows. Converting a list takes a fifth of the time of single rows."""
    hints = _HINTS(row_type)
    return list[tuple[tuple(hints[name] for name in row_type.__struct_fields__)]]  # type: ignore[misc]


def _by_name(row_type: type[R]) -> Callable[..., R]:
    """Creates rows by keyword."""
    names = row_type.__struct_fields__
    return lambda *values: row_type(**dict(zip(names, values, strict=True)))


_UNIONS = (Union, UnionType)
_HINTS: Callable[[type[Any]], dict[str, Any]] = functools.cache(get_type_hints)  # type: ignore[assignment]
_CHECKED: Callable[[type[Any]], Any] = functools.cache(_checked)  # type: ignore[assignment]
_SHAPES: Callable[[type[Any]], tuple[Shape, ...]] = functools.cache(_shapes)  # type: ignore[assignment]


def _quoted(name: str) -> str:
    return f'"{name}"'
