"""The journal: group commits, answers after the commit, and recovery from failed writes."""

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hive.actors.journal_clients import AsyncJournalClient
from hive.actors.journal_messages import KEY_MAX_CHARS, Decided
from hive.actors.rebuilding import Rebuilding
from hive.clock import rfc3339
from hive.deciders import RULES
from hive.deciders.base import Command
from hive.deciders.messages import Ack, Recv, Send
from hive.deciders.record import Boot, Warn
from hive.errors import AlreadyDone, BadRequest, HiveError, NotFound, Refused, Unavailable
from hive.events import AnyEvent
from hive.events.agents import RecipientsAllowed
from hive.events.base import By, MessageId
from hive.events.daemon import Warned
from hive.events.messages import MessageAcked, MessageDelivered, MessageSent
from hive.events.turns import TurnEnded
from hive.projections.hive import Hive

from .journal_environment import DAEMON_BY, DEADLINE_S, OPERATOR_BY, JournalEnvironment

MAIL = 60
"""Commands of one message that are one commit."""


def send(text: str = "hello", to: str = "coder", by: By = OPERATOR_BY, sender: str = "operator") -> Send:
    return Send(by=by, sender=sender, to=to, body=text)


def texts(events: list[AnyEvent]) -> list[str]:
    return [event.body for event in events if isinstance(event, MessageSent)]


def done(tickets: list["concurrent.futures.Future[Decided]"]) -> list[Decided | BaseException]:
    concurrent.futures.wait(tickets, timeout=DEADLINE_S)
    return [ticket.exception() or ticket.result() for ticket in tickets]


class Broken(Command, frozen=True, kw_only=True):
    """A command whose rule has a bug."""

    text: str = ""


def raises(_command: Broken, _hive: Hive, _now: int) -> list[AnyEvent]:
    raise ZeroDivisionError("a bug that a test asked for")


def cannot_be_folded(_command: Broken, _hive: Hive, _now: int) -> list[AnyEvent]:
    return [Warned(source="test", text="half"), MessageDelivered(id=MessageId(999), to="nobody")]


def cannot_be_written(command: Broken, _hive: Hive, _now: int) -> list[AnyEvent]:
    return [Warned(source="test", text="half"), Warned(source="test", text=command.text)]


# Order and commits


def test_commands_of_one_message_are_one_commit_in_order(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.batches.clear()
    outcomes = done(env.submit(*(send(str(number)) for number in range(MAIL))))
    assert [outcome.seq for outcome in outcomes if isinstance(outcome, Decided)] == list(range(2, MAIL + 2))
    assert [len(batch) for batch in env.batches] == [MAIL]
    assert texts(env.events()) == [str(number) for number in range(MAIL)]


def test_answered_command_is_visible_to_outside_readers(env: JournalEnvironment) -> None:
    env.spawn("coder")
    for number in range(5):
        decided = env.ask(send(str(number)))
        assert env.rows()[-1].seq == decided.seq


def test_signal_is_sent_after_the_commit(env: JournalEnvironment) -> None:
    found: list[list[str]] = []

    def look(_journal: object, batch: object) -> None:
        found.append(env.types())

    env.committed.connect(look)
    env.spawn("coder")
    assert found == [["AgentAdded"]]


def test_decision_sees_earlier_decisions_of_its_batch(env: JournalEnvironment) -> None:
    env.spawn("coder")
    recv = Recv(by=DAEMON_BY, agent="coder", limit=5)
    ack = Ack(by=DAEMON_BY, agent="coder", ids=(MessageId(1),))
    outcomes = done(env.submit(send(), recv, ack, send(to="nobody")))
    assert env.types()[1:] == ["MessageSent", "MessageDelivered", "MessageAcked"]
    assert isinstance(outcomes[2], Decided)
    assert outcomes[2].events == (MessageAcked(id=MessageId(1), to="coder"),)
    assert isinstance(outcomes[3], NotFound)


def test_rows_record_who_caused_the_event(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.ask(send())
    assert [row.by for row in env.rows()] == ["actor:daemon", "operator:mara uid=1000 way=host"]


def test_log_time_never_goes_back(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.manual.advance(-60_000)
    env.ask(send())
    times = [row.at for row in env.rows()]
    assert times == sorted(times)


def test_refused_command_writes_nothing(env: JournalEnvironment) -> None:
    env.spawn("coder")
    with pytest.raises(AlreadyDone):
        env.spawn("coder")
    assert env.types() == ["AgentAdded"]


def test_refusal_with_an_event_writes_it_and_refuses(env: JournalEnvironment) -> None:
    allowed = RecipientsAllowed(agent="coder", recipients=())
    with broken(lambda *_: [allowed]):
        env.spawn("coder", "tester")
        env.ask(Broken(by=DAEMON_BY))
    with pytest.raises(Refused, match="may not send"):
        env.ask(send(to="tester", sender="coder"))
    assert env.types()[-1] == "SendRefused"


def test_reads_see_earlier_commands_committed(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.submit(*(send() for _ in range(MAIL)))
    seq, waiting = env.client.read(lambda hive: (hive.seq, hive.messages.waiting_count("coder")))
    assert waiting == MAIL
    assert len(env.rows()) >= seq


def test_error_in_a_query_is_raised_in_its_caller(env: JournalEnvironment) -> None:
    with pytest.raises(ZeroDivisionError):
        env.client.read(lambda hive: 1 / hive.seq)
    env.spawn("coder")


# Bugs


@contextmanager
def broken(rule: Callable[..., list[AnyEvent]]) -> Iterator[None]:
    RULES[Broken] = rule
    try:
        yield
    finally:
        del RULES[Broken]


@pytest.mark.parametrize(
    ("rule", "error"),
    [(raises, ZeroDivisionError), (cannot_be_folded, KeyError), (cannot_be_written, UnicodeEncodeError)],
    ids=lambda one: one.__name__,
)
def test_bug_in_a_rule_fails_only_its_command(
    env: JournalEnvironment, rule: Callable[..., list[AnyEvent]], error: type[Exception]
) -> None:
    env.spawn("coder")
    with broken(rule):
        outcomes = done(env.submit(send("a"), Broken(by=DAEMON_BY, text="\ud800"), send("b")))
    assert isinstance(outcomes[1], error)
    assert [isinstance(outcome, Decided) for outcome in outcomes] == [True, False, True]
    assert env.types() == ["AgentAdded", "MessageSent", "MessageSent"]
    env.check_state_is_the_log()


# Failed writes


def test_unencodable_row_only_delays_projections(env: JournalEnvironment) -> None:
    too_large = TurnEnded(agent="coder", ended_at=rfc3339(env.manual.now_ms()), duration_ms=2**70)
    with broken(lambda *_: [too_large]):
        env.spawn("coder")
        env.ask(Broken(by=DAEMON_BY))
    env.ask(send("after"))
    env.reopen()
    env.ask(send("after another start"))
    assert texts(env.events()) == ["after", "after another start"]
    env.check_state_is_the_log()


# Clients


def test_coroutines_of_one_tick_share_one_commit(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.batches.clear()

    async def all_at_once() -> list[Decided]:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        return await asyncio.gather(*(client.ask(send(str(number))) for number in range(MAIL)))

    decided = asyncio.run(all_at_once())
    assert [one.seq for one in decided] == list(range(2, MAIL + 2))
    assert len(env.batches) == 1


def test_async_client_gets_refusals_reads_and_rebuilds(env: JournalEnvironment) -> None:
    async def one_after_another() -> int:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        await client.ask(Boot(by=DAEMON_BY, hive_version="1", runtime="process"))
        with pytest.raises(NotFound):
            await client.ask(send())
        with pytest.raises(BadRequest):
            await client.ask(send(), key="k" * (KEY_MAX_CHARS + 1))
        with pytest.raises(BadRequest):
            await client.ask(send(), key="")
        assert await client.read(lambda hive: hive.seq) == 1
        return await Rebuilding(client, env.folder).run()

    assert asyncio.run(one_after_another()) == 1
    env.check_state_is_the_log()


def test_cancelled_caller_does_not_affect_others(env: JournalEnvironment) -> None:
    env.spawn("coder")

    async def one_gives_up() -> Decided:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        gone = asyncio.ensure_future(client.ask(send("gone")))
        stays = asyncio.ensure_future(client.ask(send("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(one_gives_up()).seq == 3
    assert texts(env.events()) == ["gone", "stays"]


def test_client_of_an_ended_journal_raises_unavailable(env: JournalEnvironment) -> None:
    env.close()
    with pytest.raises(Unavailable):
        env.spawn("coder")

    async def ask() -> None:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        for waits in (client.ask(send()), client.read(lambda hive: hive.seq), client.adopt()):
            with pytest.raises(Unavailable):
                await waits

    asyncio.run(ask())


def test_rebuild_gives_the_same_state(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.submit(*(send(str(number)) for number in range(MAIL)))
    before = env.client.read(lambda hive: hive.messages.waiting_count("coder"))

    async def rebuild() -> int:
        return await Rebuilding(AsyncJournalClient(env.journal, asyncio.get_running_loop()), env.folder).run()

    assert asyncio.run(rebuild()) == MAIL + 1
    assert env.client.read(lambda hive: hive.messages.waiting_count("coder")) == before
    env.check_state_is_the_log()


def test_told_command_is_decided(env: JournalEnvironment) -> None:
    env.client.tell(Warn(by=DAEMON_BY, source="test", text="told"))
    assert env.client.read(lambda hive: hive.seq) == 1
    assert issubclass(Refused, HiveError)
