"""Idempotency keys: a repeated request gets the first answer, another request with the same key is refused."""

import concurrent.futures

from hive.actors.journal_messages import Decided
from hive.deciders.messages import Send
from hive.deciders.questions import Ask
from hive.deciders.record import Warn
from hive.errors import BadRequest, NotFound, Refused
from hive.events import AnyEvent
from hive.events.agents import RecipientsAllowed
from hive.events.base import By
from hive.events.codec import Codec
from hive.events.daemon import CommandKeyed
from hive.events.log import EventLog, stamp
from hive.events.messages import MessageSent

from .journal_environment import DAEMON_BY, DEADLINE_S, OPERATOR_BY, JournalEnvironment
from .manual_clock import BEGIN_MS
from .test_journal import Broken, broken


def send(text: str = "hello", to: str = "coder", by: By = OPERATOR_BY, sender: str = "operator") -> Send:
    return Send(by=by, sender=sender, to=to, body=text)


def texts(events: list[AnyEvent]) -> list[str]:
    return [event.body for event in events if isinstance(event, MessageSent)]


def done(tickets: list["concurrent.futures.Future[Decided]"]) -> list[Decided | BaseException]:
    concurrent.futures.wait(tickets, timeout=DEADLINE_S)
    return [ticket.exception() or ticket.result() for ticket in tickets]


def test_repeated_key_gets_the_first_answer_in_one_batch_and_later(env: JournalEnvironment) -> None:
    env.spawn("coder")
    first, again = done(env.submit((send("a"), "k"), (send("a"), "k")))
    (later,) = done(env.submit((send("a"), "k")))
    env.reopen()
    (after,) = done(env.submit((send("a"), "k")))
    assert isinstance(first, Decided)
    assert [(one.seq, one.events) for one in (again, later, after) if isinstance(one, Decided)] == [
        (first.seq, first.events)
    ] * 3
    assert texts(env.events()) == ["a"]
    assert env.types().count("CommandKeyed") == 1


def test_key_with_another_request_is_refused_also_after_a_restart(env: JournalEnvironment) -> None:
    env.spawn("coder")
    first, other = done(env.submit((send("one"), "k"), (send("two"), "k")))
    assert isinstance(first, Decided)
    assert isinstance(other, BadRequest)
    assert "was used for another request" in str(other)
    for _ in range(2):
        same, other, another_kind = done(
            env.submit(
                (send("one"), "k"),
                (send("one", to="manager"), "k"),
                (Warn(by=OPERATOR_BY, source="s", text="one"), "k"),
            )
        )
        assert isinstance(same, Decided)
        assert (same.events, same.seq) == (first.events, first.seq)
        assert isinstance(other, BadRequest)
        assert isinstance(another_kind, BadRequest)
        env.reopen()
    assert texts(env.events()) == ["one"]


def test_key_of_an_older_log_has_no_digest_and_answers(env: JournalEnvironment) -> None:
    env.spawn("coder")
    first = env.ask(send("one"))
    env.close()
    log = EventLog(env.folder)
    keyed = CommandKeyed(key=f"{OPERATOR_BY} k", first_seq=first.seq, count=1)
    log.append([(stamp(BEGIN_MS), "CommandKeyed", Codec().encode(keyed), "actor:daemon")])
    log.close()
    env.open()
    (again,) = done(env.submit((send("two"), "k")))
    assert isinstance(again, Decided)
    assert again.events == first.events


def test_keys_are_separate_per_caller(env: JournalEnvironment) -> None:
    env.spawn("coder")
    done(env.submit((send("a"), "k"), (send("b", by=DAEMON_BY), "k")))
    assert texts(env.events()) == ["a", "b"]


def test_key_of_a_refused_command_can_be_reused(env: JournalEnvironment) -> None:
    env.spawn("coder")
    (refused,) = done(env.submit((send(to="tester"), "k")))
    assert isinstance(refused, NotFound)
    env.spawn("tester")
    (sent,) = done(env.submit((send(to="tester"), "k")))
    assert isinstance(sent, Decided)


def test_refusal_with_an_event_is_refused_again_for_the_same_key(env: JournalEnvironment) -> None:
    with broken(lambda *_: [RecipientsAllowed(agent="coder", recipients=())]):
        env.spawn("coder", "tester")
        env.ask(Broken(by=DAEMON_BY))
    ask = Ask(by=DAEMON_BY, asker="coder", target="tester", question="?")
    outcomes = done(env.submit((ask, "k"), (ask, "k"), (send(to="tester", sender="coder"), "l")))
    assert [type(outcome) for outcome in outcomes] == [Refused] * 3


def test_repeated_key_returns_all_events_of_the_command(env: JournalEnvironment) -> None:
    env.spawn("coder", "tester", "writer")
    first, again = done(env.submit((send(to="*"), "k"), (send(to="*"), "k")))
    env.reopen()
    (after,) = done(env.submit((send(to="*"), "k")))
    assert isinstance(first, Decided)
    assert len(first.events) == 3
    assert [one.events for one in (again, after) if isinstance(one, Decided)] == [first.events] * 2
