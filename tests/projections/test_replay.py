"""Folding decoded pages gives the same state as folding single events."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import apsw
import pytest
from deciders.check import NOW, digests, sent
from deciders.everything import EVERYTHING

from hive.errors import CorruptState
from hive.events import EVENT_TYPES, AnyEvent, pages
from hive.events.base import Event
from hive.events.codec import Codec
from hive.events.log import EventLog, stamp
from hive.events.messages import MessageSent
from hive.events.pages import read_ahead
from hive.projections.hive import Hive, fold, recorded
from hive.projections.replay import decoded, replay, replay_into
from hive.projections.table import Recorded

CODEC = Codec()
AWKWARD = 'back\\slash "quoted" \n\t\u2028 \U0001f41d ],["MessageSent",1,"","",{}'
GROWN = "Grown"


class Grown(Event, frozen=True, kw_only=True, tag=False):
    """Version 2; in version 1 the height was in centimetres."""

    version: ClassVar[int] = 2
    height_mm: int


def measured(fields: dict[str, Any]) -> dict[str, Any]:
    return {"height_mm": fields["height_cm"] * 10}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    one = EventLog(tmp_path)
    yield one
    one.close()


def append(log: EventLog, *events: AnyEvent, by: str = "actor:test") -> None:
    log.append(
        (stamp(NOW + number), type(event).__name__, CODEC.encode(event), by) for number, event in enumerate(events)
    )


def rows(log: EventLog) -> list[Recorded]:
    """Every event, decoded one by one."""
    return [recorded(row, CODEC) for row in log.rows(1)]


def edit(log: EventLog, statement: str, *values: object) -> None:
    """Changes that anyone with the file and SQLite can make."""
    with apsw.Connection(str(log.path)) as db:
        db.execute("DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_deleted")
        db.execute(statement, values)  # type: ignore[arg-type]


@pytest.mark.parametrize("page_rows", [1, 7, 1_000])
def test_pages_and_single_events_fold_to_the_same_state(
    log: EventLog, page_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_ROWS", page_rows)
    append(log, *EVERYTHING)
    plain, _ = fold(log.rows(1), CODEC)
    with read_ahead(log.pages(1)) as ahead:
        for found in (ahead, log.pages(1)):
            hive = Hive()
            replay(hive, found, CODEC)
            assert digests(hive) == digests(plain)
            assert hive.seq == plain.seq == len(EVERYTHING)


def test_page_decodes_every_event(log: EventLog) -> None:
    append(log, *EVERYTHING, sent(1_000, "coder", AWKWARD), sent(1_001, "coder", "b" * 250_000))
    append(log, sent(1_002, "coder"), by=f"operator:{AWKWARD}")
    found = [one for page in log.pages(1) for one in decoded(page, CODEC)]
    assert [(one.seq, one.at, one.by, one.event) for one in found] == [
        (one.seq, one.at, one.by, one.event) for one in rows(log)
    ]
    assert [one.at_ms for one in found[:2]] == [NOW, NOW + 1]


def test_pages_cover_a_range(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_ROWS", 3)
    append(log, *(sent(number, "coder") for number in range(1, 11)))
    for first, last in ((1, 10), (2, 8), (4, 4), (11, 12), (5, 4)):
        with read_ahead(log.pages(first, last)) as ahead:
            found = [one.seq for page in ahead for one in decoded(page, CODEC)]
        assert found == list(range(first, min(last, 10) + 1))


def test_older_event_version_is_upcast_at_any_place_of_a_page(log: EventLog) -> None:
    codec = Codec({**EVENT_TYPES, GROWN: Grown}, {(GROWN, 1): measured})
    log.append(
        [
            (stamp(NOW), GROWN, '{"height_cm":12}', "actor:test"),
            (stamp(NOW), GROWN, codec.encode(Grown(height_mm=7)), "-"),
        ]
    )
    append(log, sent(1, "coder"))
    seen: list[object] = []
    with read_ahead(log.pages(1)) as ahead:
        assert replay_into({Grown: (lambda event, _: seen.append(event),)}, ahead, codec) == 3
    assert seen == [Grown(height_mm=120), Grown(height_mm=7)]


@pytest.mark.parametrize(
    ("type_", "data", "says"),
    [
        ("Felled", "{}", "'Felled', which this hive does not know"),
        ("MessageSent", '{"id":"one"}', "MessageSent that cannot be read"),
        ("MessageSent", '{"id":', "MessageSent that cannot be read"),
        ("MessageSent", "", "MessageSent that cannot be read"),
        ("Booted", "{},7", "Booted that cannot be read"),
        ("Booted", '{}],["Booted",2,"2026-01-31T09:30:00.000Z","",{}', "Booted that cannot be read"),
    ],
)
def test_undecodable_row_raises_corrupt_state(log: EventLog, type_: str, data: str, says: str) -> None:
    append(log, sent(1, "coder"), sent(2, "coder"))
    edit(log, "UPDATE events SET type = ?, data = ? WHERE seq = 2", type_, data)
    with pytest.raises(CorruptState, match=says), read_ahead(log.pages(1)) as ahead:
        replay(Hive(), ahead, CODEC)


def test_missing_events_are_skipped(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification of the chain reports them."""
    monkeypatch.setattr(pages, "PAGE_ROWS", 3)
    append(log, *(sent(number, "coder") for number in range(1, 21)))
    edit(log, "DELETE FROM events WHERE seq IN (2, 5, 20) OR seq BETWEEN 7 AND 15")
    hive = Hive()
    replay(hive, log.pages(1), CODEC)
    assert hive.seq == 19
    assert [message.id for message in hive.messages.waiting("coder")] == [1, 3, 4, 6, 16, 17, 18, 19]


def test_failed_fold_ends_reader_thread(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_ROWS", 1)
    append(log, *(sent(number, "coder") for number in range(1, 11)))

    def fail(event: object, _: Recorded) -> None:
        raise ZeroDivisionError

    with pytest.raises(CorruptState, match="contradicts earlier events"), read_ahead(log.pages(1)) as ahead:
        replay_into({MessageSent: (fail,)}, ahead, CODEC)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    assert len(rows(log)) == 10, "the connection is its owner's again"
