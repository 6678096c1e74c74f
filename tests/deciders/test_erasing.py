"""Rules for erasing: an operator decides with a reason, and the state holds the texts no longer."""

from typing import Any

import pytest

from hive.deciders.erasing import Erase, FinishErasure
from hive.errors import BadRequest, NotFound, NotYours
from hive.events.base import By, MessageId, QuestionId, ReminderId, agent
from hive.events.daemon import CommandKeyed
from hive.events.erasing import Erased, ErasureFinished, covers, spans
from hive.events.messages import MessageSent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderSet
from hive.events.texts import ERASED
from hive.projections.hive import Hive

from .check import DAEMON_BY, MANAGED, check, folded

OPERATOR_BY = By("operator", "mara", 1000, "host")
SECRET = "the key is sk-1234567890"
SENT = MessageSent(id=MessageId(1), sender="operator", to="coder", body=SECRET)


def erased(**fields: Any) -> Erased:
    return Erased(**{"subject": "message", "name": "1", "why": "a key", "rows": ((1, 99),), **fields})


def test_operator_erases_with_a_reason() -> None:
    event = erased(messages=((1, 1),))
    check(given=[*MANAGED, SENT], when=Erase(by=OPERATOR_BY, erased=event), then=[event])


@pytest.mark.parametrize(
    ("by", "event", "refusal"),
    [
        (agent("coder"), erased(), NotYours),
        (DAEMON_BY, erased(), NotYours),
        (OPERATOR_BY, erased(why="  "), BadRequest),
        (OPERATOR_BY, erased(why="x" * 501), BadRequest),
        (OPERATOR_BY, erased(rows=()), NotFound),
    ],
)
def test_erasure_without_operator_reason_or_rows_is_refused(by: By, event: Erased, refusal: type[Exception]) -> None:
    check(given=[*MANAGED, SENT], when=Erase(by=by, erased=event), then=refusal)


def test_erasure_is_finished_once() -> None:
    event = erased()
    seq = len([*MANAGED, SENT]) + 1
    finish = FinishErasure(by=DAEMON_BY, of=seq, rows=1)
    done = ErasureFinished(of=seq, rows=1)
    check(given=[*MANAGED, SENT, event], when=finish, then=[done])
    check(given=[*MANAGED, SENT, event, done], when=finish, then=[])


def texts(hive: Hive) -> str:
    return repr(
        [row for one in hive.projections() if one.NAME != "erasures" for table in one.tables() for row in table]
    )


def test_erased_texts_leave_the_state() -> None:
    asked = QuestionAdded(id=QuestionId(1), asker="coder", target=None, question=SECRET, options=(SECRET, "no"))
    events = [
        *MANAGED,
        SENT,
        MessageSent(
            id=MessageId(2), sender="system", to="coder", body=f'{{"event":"reminder","id":1,"message":"{SECRET}"}}'
        ),
        asked,
        QuestionResolved(id=QuestionId(1), asker="coder", target=None, answer=SECRET, answerer="operator"),
        ReminderSet(id=ReminderId(1), agent="coder", message=SECRET, due_ms=1),
    ]
    assert SECRET in texts(folded(events))
    event = erased(
        messages=((1, 2),), questions=((1, 1),), answers=((1, 1),), reminders=((1, 1),), rows=((1, len(events)),)
    )
    hive = folded([*events, event])
    assert SECRET not in texts(hive)
    assert hive.messages.waiting("coder")[0].body == ERASED
    assert hive.messages.waiting("coder")[1].body == '{"event":"reminder","id":1,"message":"[erased]"}'
    assert hive.questions.all[QuestionId(1)].options == (ERASED, ERASED)
    _, size = hive.messages.backlog("coder")
    assert size == sum(len(row.body) for row in hive.messages.waiting("coder"))


def test_other_texts_stay_in_the_state() -> None:
    other = MessageSent(id=MessageId(2), sender="operator", to="coder", body="another")
    hive = folded([*MANAGED, SENT, other, erased(messages=((1, 1),), rows=((len(MANAGED) + 1, len(MANAGED) + 1),))])
    assert [row.body for row in hive.messages.waiting("coder")] == [ERASED, "another"]
    assert [row.body for row in hive.messages.newest("coder", 9)] == [ERASED, "another"]


def test_erased_idempotency_key_is_forgotten() -> None:
    seq = len(MANAGED) + 1
    events = [*MANAGED, SENT, CommandKeyed(key="agent:coder secret", first_seq=seq, count=1)]
    assert "agent:coder secret" in folded(events).ids.keys
    assert "agent:coder secret" not in folded([*events, erased(rows=((seq, seq + 1),))]).ids.keys


def test_spans_are_consecutive_numbers() -> None:
    assert spans({5, 1, 2, 3, 9}) == ((1, 3), (5, 5), (9, 9))
    assert [covers(((1, 3), (5, 5)), number) for number in range(7)] == [False, True, True, True, False, True, False]
