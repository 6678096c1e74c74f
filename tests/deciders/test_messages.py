"""Rules for messages: send, receive, ack, requeue, hello."""

import msgspec
import pytest

from hive.deciders import messages
from hive.deciders.base import TEXT_MAX_BYTES, Command
from hive.deciders.messages import (
    COUNTED_REASONS,
    FAILED_DELIVERIES_MAX,
    RECV_MAX,
    UNCOUNTED_REASONS,
    WAITING_MAX,
    Ack,
    Hello,
    Recv,
    Requeue,
    Send,
)
from hive.errors import BadRequest, LimitReached, NotFound, Refused
from hive.events import AnyEvent
from hive.events.agents import Destroyed, IncarnationSeen, Paused, RecipientsAllowed, Stopped
from hive.events.base import MessageId
from hive.events.log import stamp
from hive.events.messages import MessageAcked, MessageDead, MessageDelivered, MessageRequeued, SendRefused
from hive.events.notices import MessageDead as DeadNotice
from hive.projections.messages import MESSAGE_BYTES, InboxMessage, held_bytes

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, sent, spawned, told, tombstone


def message(id: int, text: str = "hello", sender: str = "operator", *, redelivered: bool = False) -> InboxMessage:
    """As recv returns it."""
    return InboxMessage(MessageId(id), stamp(NOW), sender, "coder", text, redelivered=redelivered)


def lost(id: int) -> InboxMessage:
    """A message whose delivery was in a lost reply."""
    return msgspec.structs.replace(message(id, redelivered=True), state="in_flight", incarnation="one")


def delivered(id: int, incarnation: str | None = "one", to: str = "coder") -> MessageDelivered:
    return MessageDelivered(id=MessageId(id), to=to, incarnation=incarnation)


def requeued(id: int, reason: str = "failed", *, counts: bool = True) -> MessageRequeued:
    return MessageRequeued(id=MessageId(id), to="coder", reason=reason, counts=counts)


def acked(id: int, to: str = "coder") -> MessageAcked:
    return MessageAcked(id=MessageId(id), to=to)


def send(to: str = "coder", text: str = "hello", sender: str = "operator", reply_to: int | None = None) -> Send:
    who = OPERATOR_BY if sender == "operator" else by(sender)
    return Send(by=who, sender=sender, to=to, body=text, in_reply_to=None if reply_to is None else MessageId(reply_to))


def recv(limit: int = 1, incarnation: str | None = "one", holding: tuple[int, ...] | None = None) -> Recv:
    held = None if holding is None else tuple(map(MessageId, holding))
    return Recv(by=by("coder"), agent="coder", limit=limit, incarnation=incarnation, holding=held)


def ack(*ids: int) -> Ack:
    return Ack(by=by("coder"), agent="coder", ids=tuple(map(MessageId, ids)))


def requeue(*ids: int, reason: str = "failed") -> Requeue:
    return Requeue(by=by("coder"), agent="coder", ids=tuple(map(MessageId, ids)), reason=reason)


def hello(incarnation: str, *alive: str) -> Hello:
    return Hello(by=by("coder"), agent="coder", incarnation=incarnation, alive=frozenset(alive))


# Send


@pytest.mark.parametrize("to", ["coder", "manager", "operator"])
def test_message_reaches_agent_manager_or_operator(to: str) -> None:
    check(given=MANAGED, when=send(to, sender="tester"), then=[sent(1, to, sender="tester")])


def test_reply_must_name_a_sent_message() -> None:
    check(given=[*MANAGED, sent(1, "coder")], when=send(reply_to=1), then=[sent(2, "coder", in_reply_to=1)])
    check(given=[*MANAGED, sent(1, "coder")], when=send(reply_to=2), then=NotFound)


@pytest.mark.parametrize("to", ["nobody", "gone", "system", "", "CODER", "coder "])
def test_message_to_unknown_or_destroyed_agent_is_refused(to: str) -> None:
    check(given=[*MANAGED, *tombstone("gone", 9)], when=send(to), then=NotFound)


def test_message_to_stopped_agent_waits() -> None:
    check(given=[*MANAGED, Stopped(agent="coder", exit="exit code 0")], when=send(), then=[sent(1, "coder")])


@pytest.mark.parametrize("text", ["", "  \n", "x" * (TEXT_MAX_BYTES + 1), "é" * (TEXT_MAX_BYTES // 2 + 1)], ids=len)
def test_empty_or_oversized_body_is_refused(text: str) -> None:
    check(given=MANAGED, when=send(text=text), then=BadRequest)


def test_body_of_exactly_the_limit_is_sent() -> None:
    text = "é" * (TEXT_MAX_BYTES // 2)
    check(given=MANAGED, when=send(text=text), then=[sent(1, "coder", text)])


def test_broadcast_reaches_every_agent_but_sender() -> None:
    then = [sent(1, "manager", sender="coder"), sent(2, "tester", sender="coder")]
    check(given=[*MANAGED, *tombstone("gone", 9)], when=send("*", sender="coder"), then=then)
    everyone = [sent(1, "coder"), sent(2, "manager"), sent(3, "tester")]
    check(given=MANAGED, when=send("*"), then=everyone)


def test_broadcast_without_recipients_is_refused() -> None:
    check(given=spawned("manager"), when=send("*", sender="manager"), then=NotFound)


def test_broadcast_skips_disallowed_recipients() -> None:
    given = [*MANAGED, RecipientsAllowed(agent="coder", recipients=())]
    check(given=given, when=send("*", sender="coder"), then=[sent(1, "manager", sender="coder")])


def test_disallowed_recipient_is_refused_and_recorded() -> None:
    given = [*MANAGED, *spawned("writer"), RecipientsAllowed(agent="coder", recipients=("tester",))]
    reason = "coder may not send to writer, only to: manager, operator, tester."
    refusal = SendRefused(sender="coder", to="writer", reason=reason)
    check(given=given, when=send("writer", sender="coder"), then=[refusal])


@pytest.mark.parametrize("to", ["tester", "manager", "operator"])
def test_manager_and_operator_are_always_allowed(to: str) -> None:
    given = [*MANAGED, RecipientsAllowed(agent="coder", recipients=("tester",))]
    check(given=given, when=send(to, sender="coder"), then=[sent(1, to, sender="coder")])


def test_operator_may_send_to_everyone() -> None:
    check(given=[*MANAGED, RecipientsAllowed(agent="coder", recipients=())], when=send(), then=[sent(1, "coder")])


def test_waiting_messages_are_bounded_in_number() -> None:
    assert WAITING_MAX >= 10_000
    waiting = [sent(number, "coder") for number in range(1, WAITING_MAX)]
    last = sent(WAITING_MAX, "coder")
    check(given=[*MANAGED, *waiting], when=send(), then=[last])
    given = [*MANAGED, *waiting, last]
    check(given=given, when=send(), then=LimitReached, says=f"{WAITING_MAX} messages")
    check(given=given, when=send("*"), then=LimitReached)
    after = sent(WAITING_MAX + 1, "coder")
    check(given=[*given, delivered(1)], when=send(), then=[after])


def test_waiting_messages_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "WAITING_MAX_BYTES", 8)
    given = [*MANAGED, sent(1, "coder", "1234"), sent(2, "coder", "5678"), delivered(1)]
    check(given=given, when=send(), then=LimitReached, says="8 bytes")
    check(given=[*given, acked(1)], when=send(), then=[sent(3, "coder")])


def test_agents_waiting_messages_are_bounded_over_all_inboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "SENT_MAX_BYTES", 3 * MESSAGE_BYTES)
    given = [*MANAGED, sent(1, "tester", "12", sender="coder"), sent(2, "manager", "34", sender="coder")]
    says = "of coder's messages wait in inboxes"
    check(given=given, when=send("tester", sender="coder"), then=LimitReached, says=says)
    check(given=given[:-1], when=send("*", sender="coder"), then=LimitReached, says=says)
    check(given=given, when=send("operator", sender="coder"), then=[sent(3, "operator", sender="coder")])
    check(given=given, when=send("coder", sender="tester"), then=[sent(3, "coder", sender="tester")])
    check(given=given, when=send("coder"), then=[sent(3, "coder")])
    after = [*given, delivered(1, to="tester"), acked(1, to="tester")]
    check(given=after, when=send("tester", sender="coder"), then=[sent(3, "tester", sender="coder")])


def test_text_that_is_not_ascii_takes_more_memory() -> None:
    assert held_bytes("abcd") == MESSAGE_BYTES + 4
    assert held_bytes("abc😀") == MESSAGE_BYTES + 16


# Receive


def test_recv_on_empty_inbox_returns_nothing() -> None:
    check(given=MANAGED, when=recv(), then=[], answer=([], 0, False))


def test_recv_returns_oldest_and_remaining_count() -> None:
    given = [*MANAGED, sent(1, "coder", "a"), sent(2, "coder", "b"), sent(3, "tester")]
    check(given=given, when=recv(), then=[delivered(1)], answer=([message(1, "a")], 1, False))


@pytest.mark.parametrize(("limit", "count"), [(0, 1), (-5, 1), (1, 1), (7, 7), (99, RECV_MAX), (2**63 - 1, RECV_MAX)])
def test_recv_limit_is_clamped(limit: int, count: int) -> None:
    assert RECV_MAX == 32
    given = [*MANAGED, *(sent(number, "coder") for number in range(1, 41))]
    then = [delivered(number) for number in range(1, count + 1)]
    messages = [message(number) for number in range(1, count + 1)]
    check(given=given, when=recv(limit), then=then, answer=(messages, 40 - count, False))


def test_recv_without_hello_delivers_to_no_incarnation() -> None:
    check(given=[*MANAGED, sent(1, "coder")], when=recv(incarnation=None), then=[delivered(1, None)])


def test_recv_of_paused_agent_returns_messages_and_paused() -> None:
    given = [*MANAGED, Paused(agent="coder"), sent(1, "coder")]
    check(given=given, when=recv(), then=[delivered(1)], answer=([message(1)], 0, True))


def test_recv_of_destroyed_agent_is_refused() -> None:
    check(given=[*MANAGED, Destroyed(agent="coder")], when=recv(), then=NotFound)


def test_messages_of_a_lost_reply_are_redelivered() -> None:
    given = [*MANAGED, sent(1, "coder"), delivered(1)]
    then = [requeued(1, "lost", counts=False), delivered(1)]
    check(given=given, when=recv(holding=()), then=then, answer=([lost(1)], 0, False))


def test_held_messages_are_not_redelivered() -> None:
    given = [*MANAGED, sent(1, "coder"), sent(2, "coder"), delivered(1)]
    check(given=given, when=recv(holding=(1,)), then=[delivered(2)], answer=([message(2)], 0, False))


def test_messages_of_another_incarnation_are_not_lost() -> None:
    given = [*MANAGED, sent(1, "coder"), delivered(1, "two"), sent(2, "coder"), delivered(2, None)]
    check(given=given, when=recv(holding=()), then=[], answer=([], 0, False))


def test_recv_without_holding_redelivers_nothing() -> None:
    check(given=[*MANAGED, sent(1, "coder"), delivered(1)], when=recv(), then=[], answer=([], 0, False))


def test_lost_and_waiting_messages_are_sorted_by_id() -> None:
    given = [*MANAGED, *(sent(number, "coder") for number in (1, 2, 3)), delivered(1), delivered(2), requeued(1)]
    then = [requeued(2, "lost", counts=False), delivered(1), delivered(2)]
    messages = [msgspec.structs.replace(message(1, redelivered=True), failures=1), lost(2)]
    hive = check(given=given, when=recv(2, holding=()), then=then, answer=(messages, 1, False))
    assert [one.id for one in hive.messages.waiting("coder")] == [3]


# Ack and requeue


def test_ack_finishes_message_and_may_be_repeated() -> None:
    given = [*MANAGED, sent(1, "coder"), sent(2, "coder"), delivered(1), delivered(2)]
    check(given=given, when=ack(1, 2, 1), then=[acked(1), acked(2)])
    check(given=[*given, acked(1), acked(2)], when=ack(1, 2), then=[])


def test_ack_of_requeued_message_does_nothing() -> None:
    check(given=[*MANAGED, sent(1, "coder"), delivered(1), requeued(1)], when=ack(1), then=[])


@pytest.mark.parametrize("when", [ack(1, 2), requeue(2), ack(3), requeue(0), ack(-1), requeue(2**63 - 1)], ids=str)
def test_ack_or_requeue_of_foreign_message_is_refused(when: Command) -> None:
    given = [*MANAGED, sent(1, "coder"), sent(2, "tester"), delivered(1)]
    check(given=given, when=when, then=NotFound)


def test_requeued_messages_come_first_in_old_order() -> None:
    given = [*MANAGED, *(sent(number, "coder") for number in (1, 2, 3, 4)), delivered(1), delivered(2), delivered(3)]
    hive = check(given=given, when=requeue(3, 1), then=[requeued(3), requeued(1)])
    assert [(one.id, one.redelivered) for one in hive.messages.waiting("coder")] == [(1, True), (3, True), (4, False)]
    assert [one.id for one in hive.messages.in_flight("coder")] == [2]


@pytest.mark.parametrize("reason", sorted(COUNTED_REASONS))
def test_message_is_dead_after_fifth_failure_and_sender_and_operator_are_told(reason: str) -> None:
    assert FAILED_DELIVERIES_MAX == 5
    given: list[AnyEvent] = [*MANAGED, sent(1, "coder", sender="tester")]
    for _ in range(4):
        given += [delivered(1), requeued(1, reason)]
    why = "5 deliveries ended in a failed turn or a dead harness"
    notice = DeadNotice(id=MessageId(1), to="coder", sender="tester", reason=why)
    dead = MessageDead(id=MessageId(1), to="coder", reason=why)
    then = [requeued(1, reason), dead, told(2, "operator", notice), told(3, "tester", notice)]
    hive = check(given=[*given, delivered(1)], when=requeue(1, reason=reason), then=then)
    assert hive.messages.waiting_count("coder") == 0


@pytest.mark.parametrize("reason", sorted(UNCOUNTED_REASONS))
def test_uncounted_reason_does_not_count_as_failure(reason: str) -> None:
    given: list[AnyEvent] = [*MANAGED, sent(1, "coder")]
    for _ in range(4):
        given += [delivered(1), requeued(1)]
    hive = check(given=[*given, delivered(1)], when=requeue(1, reason=reason), then=[requeued(1, reason, counts=False)])
    assert hive.messages.waiting("coder")[0].failures == 4


def test_external_reasons_are_not_counted() -> None:
    assert {"rate_limited", "needs_login", "overloaded", "paused", "killed", "stopped"} <= UNCOUNTED_REASONS
    assert not UNCOUNTED_REASONS & COUNTED_REASONS


def test_unknown_requeue_reason_is_refused() -> None:
    check(given=[*MANAGED, sent(1, "coder"), delivered(1)], when=requeue(1, reason="bored"), then=Refused)


def test_dead_operator_message_is_told_once() -> None:
    given: list[AnyEvent] = [*MANAGED, sent(1, "coder")]
    for _ in range(4):
        given += [delivered(1), requeued(1)]
    hive = check(given=[*given, delivered(1)], when=requeue(1), then=[requeued(1), *_death()])
    assert hive.messages.newest("operator", 9)[-1].sender == "system"


def _death() -> list[AnyEvent]:
    why = "5 deliveries ended in a failed turn or a dead harness"
    notice = DeadNotice(id=MessageId(1), to="coder", sender="operator", reason=why)
    return [MessageDead(id=MessageId(1), to="coder", reason=why), told(2, "operator", notice)]


# Hello


def test_new_incarnation_requeues_messages_of_dead_one() -> None:
    given = [*MANAGED, sent(1, "coder"), delivered(1, "one")]
    then = [IncarnationSeen(agent="coder", incarnation="two"), requeued(1, "incarnation_died")]
    check(given=given, when=hello("two"), then=then)


def test_same_incarnation_keeps_its_messages() -> None:
    given = [*MANAGED, IncarnationSeen(agent="coder", incarnation="one"), sent(1, "coder"), delivered(1, "one")]
    check(given=given, when=hello("one"), then=[])


def test_connected_incarnation_keeps_its_messages() -> None:
    given = [*MANAGED, IncarnationSeen(agent="coder", incarnation="one"), sent(1, "coder"), delivered(1, "one")]
    check(given=given, when=hello("two", "one"), then=[IncarnationSeen(agent="coder", incarnation="two")])


def test_messages_without_incarnation_stay_in_flight() -> None:
    given = [*MANAGED, sent(1, "coder"), delivered(1, None)]
    check(given=given, when=hello("two"), then=[IncarnationSeen(agent="coder", incarnation="two")])


def test_message_is_dead_after_fifth_dead_incarnation() -> None:
    given: list[AnyEvent] = [*MANAGED, sent(1, "coder")]
    for _ in range(4):
        given += [delivered(1), requeued(1)]
    then = [IncarnationSeen(agent="coder", incarnation="two"), requeued(1, "incarnation_died"), *_death()]
    check(given=[*given, delivered(1)], when=hello("two"), then=then)


def test_recent_returns_newest_in_any_state() -> None:
    given = [*MANAGED, *(sent(number, "coder") for number in range(1, 41)), delivered(1), acked(1)]
    hive = check(given=given, when=Ack(by=DAEMON_BY, agent="coder", ids=()), then=[])
    assert [row.id for row in hive.messages.newest("coder", 30)] == list(range(11, 41))
    assert [row.id for row in hive.messages.newest("coder", 99)] == list(range(1, 41))
