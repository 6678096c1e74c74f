"""Erases texts in the files of the log: finds the rows, and changes them. The chain stays whole."""

import fcntl
import itertools
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import apsw
import msgspec

from hive.audit.archiving import remove_unlisted
from hive.audit.carry_over import UNDER_WAY_NAME
from hive.audit.reading import log_reader
from hive.clock import parse_rfc3339, rfc3339
from hive.errors import BadRequest, NotFound, Unavailable
from hive.events.base import Seq
from hive.events.chain import SALT_BYTES, Row, content_hash
from hive.events.codec import Codec
from hive.events.erasing import Erased, Span, Spans, Subject, covers, spans
from hive.events.log import LogReader
from hive.events.schema import sync_folder
from hive.events.segments import Parts, Segment, write
from hive.events.sqlite import connect
from hive.events.texts import RULES, TEXT_FIELDS, erased_data, texts_of
from hive.names import SYSTEM
from hive.paths import Paths
from hive.projections.store import discard

BATCH_ROWS: Final = 500
"""Rows per transaction; the journal's commits wait for no more."""
QUOTE_MIN_CHARS: Final = 12
"""A shorter text is not searched for in other rows: it would be found in rows that do not quote it."""
CHECKPOINT_MAX_S: Final = 60.0
CHECKPOINT_STEP_S: Final = 0.02

_TYPES: Final = ",".join(f"'{name}'" for name in TEXT_FIELDS)
_NOTICE: Final = "type = 'MessageSent' AND data ->> 'from' = 'system' AND json_valid(data ->> 'body')"
_ABOUT_AGENT: Final = " OR ".join(f"data ->> '{key}' = ?1" for key in ("agent", "from", "to", "asker", "target"))
_NO_RULE: Final = f"type NOT IN {RULES}"
_NOTICE_ABOUT: Final = " OR ".join(f"(data ->> 'body') ->> '{key}' = ?1" for key in ("agent", "asker", "answerer"))


class Found(msgspec.Struct, frozen=True):
    """What an erasure is about."""

    erased: Erased
    quotes: list[Row]
    """Rows outside the subject that hold a text of it; they are erased, too."""
    agents: list[str]
    """Agents that wrote or received the texts: their own files may hold them."""


def find(
    paths: Paths, subject: Subject, name: str, why: str, *, backups: bool = False, texts: Iterable[str] = ()
) -> Found:
    """Search the log for the texts of a subject. `texts` are searched for as well.

    Raises:
        BadRequest: not an id. NotFound: the log holds no such subject.
    """
    with log_reader(paths) as reader:
        if subject == "older_than":
            return _older(reader, name, why, backups=backups)
        own = _own(reader, subject, name)
        if not own:
            raise NotFound(f"The log holds no {subject} {name} with a text that is not erased.")
        wanted = set(texts) if subject == "agent" else {*texts, *_searched(own)}
        quotes = list(_quotes(reader, {row.seq for row in own}, wanted))
        rows = [*own, *quotes]
        rows += _keys(reader, {row.seq for row in rows})
        return Found(_described(reader, subject, name, why, rows, backups=backups), quotes, _agents(rows))


def was_erased(paths: Paths, subject: Subject, name: str) -> bool:
    """Whether an earlier erasure had this subject, or covered its text."""
    with log_reader(paths) as reader:
        for row in reader.where("type = 'Erased'"):
            erased = Codec().decode(row.type, row.data)
            assert isinstance(erased, Erased)
            ids = {"message": erased.messages, "question": erased.questions, "approval": erased.approvals}.get(subject)
            if (erased.subject, erased.name) == (subject, name) or (ids and name.isdigit() and covers(ids, int(name))):
                return True
    return False


def texts_in(paths: Paths, subject: Subject, name: str) -> set[str]:
    """The texts of a subject that are long enough to be searched for."""
    with log_reader(paths) as reader:
        rows = _own(reader, subject, name) if subject not in ("older_than", "agent") else []
        return {text for text in _searched(rows) if len(text) >= QUOTE_MIN_CHARS}


def erase_rows(paths: Paths, of: Seq, rows: Spans) -> int:
    """Erase the texts of these rows in the log's files; returns the number of rows of this erasure.

    Each transaction is complete on its own: after a kill, the same call continues. A row keeps its length, so SQLite
    overwrites it in place and leaves no copy in another page.

    Raises:
        Unavailable: the disk refused, or a reader kept the WAL in use.
    """
    db = connect(paths.events, write=True)
    try:
        db.execute("PRAGMA secure_delete=ON; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0").fetchall()
        parts = Parts(db, paths.state)
        for span in rows:
            _erase_span(db, of, span)
        _empty_wal(db)
        count = _count(db, of)
        for segment in parts.segments():
            if any(first <= segment.last and last >= segment.first for first, last in rows):
                count += _erase_in_segment(parts, segment, of, rows)
        remove_unlisted(parts)
    except (apsw.Error, OSError) as error:
        raise Unavailable(f"{paths.events} cannot be written: {error}. Run the command again.") from error
    finally:
        db.close()
    return count


def remove_leftovers(paths: Paths, *, old_log: bool) -> None:
    """Delete the search index, what killed commands left, and with `old_log` the log of the older schema."""
    _remove_index(paths)
    shutil.rmtree(paths.state / UNDER_WAY_NAME, ignore_errors=True)
    paths.events.with_name(paths.events.name + ".new").unlink(missing_ok=True)
    if old_log:
        for path in (paths.old_events, paths.old_anchors):
            path.unlink(missing_ok=True)


def _remove_index(paths: Paths) -> None:
    """The next search makes it anew. A search that runs holds the lock."""
    if not paths.search.exists():
        return
    with paths.search_lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        discard(paths.search)


def out_of_reach(paths: Paths, found: Found) -> list[str]:
    """Places that may hold the texts and that hive does not change."""
    places = [
        f"files and transcripts of {agent}: {paths.agent_state(agent)}"
        for agent in found.agents
        if paths.agent_state(agent).exists()
    ]
    if found.erased.subject in ("agent", "older_than"):
        places = [f"files and transcripts of agents: {paths.agents}"]
    if found.erased.subject == "approval" or found.erased.decisions:
        places.append(
            "clones and forges that have fetched notes in git tags: the tags are replaced, old objects may stay"
        )
    places.append("what a model's provider, a webhook or an operator's own client has received")
    return places


def _own(reader: LogReader, subject: Subject, name: str) -> list[Row]:
    if subject == "agent":
        condition = f"{_NO_RULE} AND (by = 'agent:' || ?1 OR {_ABOUT_AGENT} OR ({_NOTICE} AND ({_NOTICE_ABOUT})))"
        rows = list(_texted(reader, condition, (name,)))
        return [*rows, *_rules(reader, {msgspec.json.decode(row.data)["id"] for row in rows if _asks_for_host(row)})]
    if not (name.isascii() and name.isdigit()) or len(name) > 18:
        raise BadRequest(f"{name!r} is not the id of a {subject}.")
    id = int(name)
    if subject == "message":
        return list(_texted(reader, "type = 'MessageSent' AND data ->> 'id' = ?1", (id,)))
    kinds = {
        "question": (
            "type IN ('QuestionAdded', 'QuestionResolved') AND data ->> 'id' = ?1",
            "'question_asked', 'question_closed', 'operator_answered'",
        ),
        "approval": (
            "(type IN ('ApprovalRequested', 'ApprovalResolved', 'ApprovalFailed') AND data ->> 'id' = ?1)"
            " OR (type = 'Rebuilt' AND data ->> 'approval_id' = ?1)",
            "'approval_resolved'",
        ),
    }
    facts, notices = kinds[subject]
    notice = f"{_NOTICE} AND (data ->> 'body') ->> 'id' = ?1 AND (data ->> 'body') ->> 'event' IN ({notices})"
    rows = list(_texted(reader, f"({facts}) OR ({notice})", (id,)))
    return [*rows, *_rules(reader, {id})] if subject == "approval" else rows


def _asks_for_host(row: Row) -> bool:
    return row.type == "ApprovalRequested" and msgspec.json.decode(row.data)["kind"] == "egress"


def _rules(reader: LogReader, approvals: set[int]) -> list[Row]:
    """The rules that decisions on these requests made, and their revocations, unless those revoke other rules, too."""
    made = list(_texted(reader, f"type IN {RULES[:2]} AND data ->> 'approval_id' IS NOT NULL", ()))
    own = [row for row in made if msgspec.json.decode(row.data)["approval_id"] in approvals]
    found = list(own)
    for agent, host, port in {_entry(row) for row in own}:
        same = "data ->> 'agent' IS ?1 AND data ->> 'host' = ?2 AND data ->> 'port' IS ?3"
        rows = list(_texted(reader, f"type IN {RULES} AND {same}", (agent, host, port)))
        revoked = [row for row in rows if row.type == "EgressRevoked"]
        if len(rows) - len(revoked) == sum(_entry(row) == (agent, host, port) for row in own):
            found += revoked
    return found


def _entry(row: Row) -> tuple[str | None, str, int | None]:
    data = msgspec.json.decode(row.data)
    return data.get("agent"), data["host"], data.get("port")


def _older(reader: LogReader, name: str, why: str, *, backups: bool) -> Found:
    """Everything up to a time. Ids of messages grow with positions, so the newest gives the span."""
    before = rfc3339(parse_rfc3339(name))
    end = reader.last_until(before)
    rows = list(_texted(reader, f"seq <= ?1 AND type NOT IN ('MessageSent', 'TurnEnded') AND {_NO_RULE}", (end,)))
    kept = [row.seq for row in reader.where(f"seq <= ?1 AND type IN {RULES}", (end,))]
    newest = list(reader.where("type = 'MessageSent' AND seq <= ?1", (end,), newest=1))
    found = _described(reader, "older_than", before, why, rows, backups=backups)
    last = msgspec.json.decode(newest[0].data)["id"] if newest else 0
    erased = msgspec.structs.replace(found, rows=_around(kept, end), messages=((1, last),) if last else ())
    return Found(erased, [], [])


def _around(kept: list[Seq], end: Seq) -> Spans:
    """The positions up to `end` without those that are kept."""
    edges = [0, *kept, end + 1]
    return tuple((before + 1, after - 1) for before, after in itertools.pairwise(edges) if before + 1 < after)


def _quotes(reader: LogReader, own: set[Seq], texts: set[str]) -> Iterator[Row]:
    """Rows that hold a whole text, as JSON text or as JSON text in a notice's body."""
    for text in sorted(texts):
        if len(text) < QUOTE_MIN_CHARS:
            continue
        once = _encoded(text)
        for row in _texted(reader, f"{_NO_RULE} AND (instr(data, ?1) OR instr(data, ?2))", (once, _encoded(once))):
            if row.seq not in own and any(text in one for one in _texts(row)):
                own = own | {row.seq}
                yield row


def _keys(reader: LogReader, seqs: set[Seq]) -> list[Row]:
    """The idempotency keys that these rows answered. A key row follows its answer in the same commit."""
    found = []
    for seq in seqs:
        condition = (
            "type = 'CommandKeyed' AND seq BETWEEN ?1 AND ?1 + 1000"
            " AND ?1 BETWEEN data ->> 'first_seq' AND (data ->> 'first_seq') + (data ->> 'count') - 1"
        )
        found += list(_texted(reader, condition, (seq,)))
    return found


def _texted(reader: LogReader, condition: str, values: tuple[object, ...]) -> Iterator[Row]:
    """Rows with a text that is not erased."""
    return reader.where(f"salt IS NOT NULL AND type IN ({_TYPES}) AND ({condition})", values)


def _texts(row: Row) -> list[str]:
    return list(texts_of(row.type, row.data))


def _searched(rows: list[Row]) -> set[str]:
    """The texts of these rows that are searched for in others. Not hosts: most are common words of a log."""
    hosts = {_entry(row)[1] for row in rows if row.type in RULES}
    hosts |= {msgspec.json.decode(row.data)["host"] for row in rows if _asks_for_host(row)}
    return {text for row in rows for text in _texts(row)} - hosts


def _encoded(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _described(reader: LogReader, subject: Subject, name: str, why: str, rows: list[Row], *, backups: bool) -> Erased:
    ids: dict[str, set[int]] = {}
    newest: dict[tuple[str, str], Seq] = {}
    for row in rows:
        data = msgspec.json.decode(row.data)
        kind = _KINDS.get(row.type)
        if kind is not None:
            ids.setdefault(kind, set()).add(data["id"])
        if row.type in ("StatusSet", "ActFailed"):  # In order: the newest of each agent counts.
            newest[row.type, data["agent"]] = row.seq
    return Erased(
        subject=subject,
        name=name,
        why=why,
        rows=spans({row.seq for row in rows}),
        statuses=_current(reader, newest, "StatusSet"),
        failures=_current(reader, newest, "ActFailed"),
        backups=backups,
        **{kind: spans(numbers) for kind, numbers in ids.items()},
    )


def _current(reader: LogReader, erased: dict[tuple[str, str], Seq], type_: str) -> tuple[str, ...]:
    """The agents whose newest event of a type is among those that are erased."""
    found = []
    for (name, agent), seq in sorted(erased.items()):
        if name == type_:
            newer = reader.where(f"type = '{type_}' AND seq > ?1 AND data ->> 'agent' = ?2", (seq, agent), newest=1)
            found += [] if next(newer, None) else [agent]
    return tuple(found)


_KINDS: Final = {
    "MessageSent": "messages",
    "QuestionAdded": "questions",
    "QuestionResolved": "answers",
    "ApprovalRequested": "approvals",
    "ApprovalResolved": "decisions",
    "ApprovalFailed": "decisions",
    "ReminderSet": "reminders",
}
"""By event type, the ids of `Erased` that its rows add to."""


def _agents(rows: list[Row]) -> list[str]:
    names: set[str] = set()
    for row in rows:
        data: dict[str, Any] = msgspec.json.decode(row.data)
        names |= {str(data[key]) for key in ("agent", "from", "to", "asker", "target") if data.get(key)}
    return sorted(names - {SYSTEM, "operator"})


def _erase_span(db: apsw.Connection, of: Seq, span: Span) -> None:
    first, last = span
    query = (
        f"SELECT seq, type, data, salt FROM events WHERE seq BETWEEN ? AND ? AND salt IS NOT NULL"
        f" AND type IN ({_TYPES}) ORDER BY seq LIMIT {BATCH_ROWS}"
    )
    while rows := db.execute(query, (first, last)).fetchall():
        db.execute("BEGIN IMMEDIATE")
        for values in rows:
            erase_row(db, of, *cast(tuple[Seq, str, str, bytes], values))
        db.execute("COMMIT")
        first = cast(Seq, rows[-1][0]) + 1


def _erase_in_segment(parts: Parts, segment: Segment, of: Seq, rows: Spans) -> int:
    """Write the segment anew under its name: hashes do not change."""
    db = parts.open(segment)
    before = _count(db, of)
    for span in rows:
        _erase_span(db, of, span)
    count = _count(db, of)
    if count > before:
        write(db, parts.folder / segment.name)
        sync_folder(parts.folder)
    return count


def _count(db: apsw.Connection, of: Seq) -> int:
    return cast(int, db.execute("SELECT count(*) FROM erased WHERE erasure = ?", (of,)).fetchall()[0][0])


def erase_row(db: apsw.Connection, of: Seq, seq: Seq, type_: str, data: str, salt: bytes) -> None:
    """Replace the texts of one row and keep its content hash, inside the caller's transaction."""
    left = erased_data(type_, data)
    if left == data:
        return
    db.execute("INSERT INTO erased VALUES(?,?,?)", (seq, content_hash(salt, data), of))
    db.execute("UPDATE events SET data = ?, salt = NULL WHERE seq = ?", (_padded(left, data), seq))


def _padded(left: str, data: str) -> str:
    """With spaces to the length at which SQLite's record is as long as before, with a salt that is gone."""
    size, had = len(left.encode()), len(data.encode())
    record = _varint_bytes(had) + had + SALT_BYTES
    for length in (had + SALT_BYTES, had + SALT_BYTES - 1):
        if length >= size and _varint_bytes(length) + length == record:
            return left + " " * (length - size)
    return left


def _varint_bytes(text_bytes: int) -> int:
    """Bytes of the record header for a text of this length."""
    return max(1, -(-(2 * text_bytes + 13).bit_length() // 7))


def _empty_wal(db: apsw.Connection) -> None:
    """Copy the WAL into the file and truncate it: it holds older versions of the pages."""
    give_up = time.monotonic() + CHECKPOINT_MAX_S
    while True:
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        if not busy:
            return
        if time.monotonic() > give_up:
            raise Unavailable("A reader keeps the log's WAL in use. End it, and run the command again.")
        time.sleep(CHECKPOINT_STEP_S)
