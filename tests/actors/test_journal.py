"""The journal: one commit for what came together, an answer only after it, and nothing lost when a write is refused."""

import asyncio
import concurrent.futures
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hive.actors.journal import KEY_MAX_CHARS, Decided
from hive.actors.journal_clients import AsyncJournalClient
from hive.actors.rebuilding import Rebuilding
from hive.clock import rfc3339
from hive.deciders import RULES
from hive.deciders.base import Command
from hive.deciders.messages import Ack, Recv, Send
from hive.deciders.questions import Ask
from hive.deciders.record import Boot, Warn
from hive.errors import AlreadyDone, BadRequest, HiveError, NotFound, Refused, Unavailable
from hive.events import AnyEvent
from hive.events.agents import RecipientsAllowed
from hive.events.base import By, MessageId
from hive.events.daemon import Warned
from hive.events.messages import MessageAcked, MessageDelivered, MessageSent
from hive.events.turns import TurnEnded
from hive.projections.hive import Hive

from .stage import DAEMON_BY, DEADLINE_S, OPERATOR_BY, Stage

MAIL = 200


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


def test_what_comes_together_is_committed_together_and_in_order(stage: Stage) -> None:
    stage.spawn("coder")
    stage.batches.clear()
    outcomes = done(stage.submit(*(send(str(number)) for number in range(MAIL))))
    assert [outcome.seq for outcome in outcomes if isinstance(outcome, Decided)] == list(range(2, MAIL + 2))
    assert [len(batch) for batch in stage.batches] == [MAIL]
    assert texts(stage.events()) == [str(number) for number in range(MAIL)]


def test_an_answer_means_that_a_reader_outside_finds_it_in_the_log(stage: Stage) -> None:
    stage.spawn("coder")
    for number in range(5):
        decided = stage.ask(send(str(number)))
        assert stage.rows()[-1].seq == decided.seq


def test_receivers_of_the_signal_hear_of_a_batch_after_its_commit(stage: Stage) -> None:
    found: list[list[str]] = []

    def look(_journal: object, batch: object) -> None:
        found.append(stage.types())

    stage.committed.connect(look)
    stage.spawn("coder")
    assert found == [["AgentAdded"]]


def test_a_decision_sees_what_was_decided_before_it_in_the_same_batch(stage: Stage) -> None:
    stage.spawn("coder")
    recv = Recv(by=DAEMON_BY, agent="coder", limit=5)
    ack = Ack(by=DAEMON_BY, agent="coder", ids=(MessageId(1),))
    outcomes = done(stage.submit(send(), recv, ack, send(to="nobody")))
    assert stage.types()[1:] == ["MessageSent", "MessageDelivered", "MessageAcked"]
    assert isinstance(outcomes[2], Decided)
    assert outcomes[2].events == (MessageAcked(id=MessageId(1), to="coder"),)
    assert isinstance(outcomes[3], NotFound)


def test_who_caused_an_event_is_written_beside_it(stage: Stage) -> None:
    stage.spawn("coder")
    stage.ask(send())
    assert [row.by for row in stage.rows()] == ["actor:daemon", "operator:mara uid=1000 way=host"]


def test_time_in_the_log_never_goes_back(stage: Stage) -> None:
    stage.spawn("coder")
    stage.hand.advance(-60_000)
    stage.ask(send())
    times = [row.at for row in stage.rows()]
    assert times == sorted(times)


def test_a_refused_command_leaves_no_trace(stage: Stage) -> None:
    stage.spawn("coder")
    with pytest.raises(AlreadyDone):
        stage.spawn("coder")
    assert stage.types() == ["AgentAdded"]


def test_a_refusal_with_an_event_is_both(stage: Stage) -> None:
    allowed = RecipientsAllowed(agent="coder", recipients=())
    with broken(lambda *_: [allowed]):
        stage.spawn("coder", "tester")
        stage.ask(Broken(by=DAEMON_BY))
    with pytest.raises(Refused, match="may not send"):
        stage.ask(send(to="tester", sender="coder"))
    assert stage.types()[-1] == "SendRefused"


def test_reads_see_committed_state_and_come_after_what_was_submitted_before(stage: Stage) -> None:
    stage.spawn("coder")
    stage.submit(*(send() for _ in range(MAIL)))
    seq, waiting = stage.client.read(lambda hive: (hive.seq, hive.messages.waiting_count("coder")))
    assert waiting == MAIL
    assert len(stage.rows()) >= seq


def test_a_readers_mistake_is_the_readers(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError):
        stage.client.read(lambda hive: 1 / hive.seq)
    stage.spawn("coder")


# Idempotency


def test_the_same_key_twice_gives_the_first_answer_in_one_batch_and_later(stage: Stage) -> None:
    stage.spawn("coder")
    first, again = done(stage.submit((send("a"), "k"), (send("b"), "k")))
    (later,) = done(stage.submit((send("c"), "k")))
    stage.reopen()
    (after,) = done(stage.submit((send("d"), "k")))
    assert isinstance(first, Decided)
    assert [(one.seq, one.events) for one in (again, later, after) if isinstance(one, Decided)] == [
        (first.seq, first.events)
    ] * 3
    assert texts(stage.events()) == ["a"]
    assert stage.types().count("CommandKeyed") == 1


def test_a_key_belongs_to_its_caller(stage: Stage) -> None:
    stage.spawn("coder")
    done(stage.submit((send("a"), "k"), (send("b", by=DAEMON_BY), "k")))
    assert texts(stage.events()) == ["a", "b"]


def test_a_key_whose_command_was_refused_is_still_free(stage: Stage) -> None:
    stage.spawn("coder")
    (refused,) = done(stage.submit((send(to="tester"), "k")))
    assert isinstance(refused, NotFound)
    stage.spawn("tester")
    (sent,) = done(stage.submit((send(to="tester"), "k")))
    assert isinstance(sent, Decided)


def test_a_refusal_with_an_event_is_refused_again_under_the_same_key(stage: Stage) -> None:
    with broken(lambda *_: [RecipientsAllowed(agent="coder", recipients=())]):
        stage.spawn("coder", "tester")
        stage.ask(Broken(by=DAEMON_BY))
    ask = Ask(by=DAEMON_BY, asker="coder", target="tester", question="?")
    outcomes = done(stage.submit((ask, "k"), (ask, "k"), (send(to="tester", sender="coder"), "l")))
    assert [type(outcome) for outcome in outcomes] == [Refused] * 3


def test_many_events_of_one_command_are_given_again_as_they_were(stage: Stage) -> None:
    stage.spawn("coder", "tester", "writer")
    first, again = done(stage.submit((send(to="*"), "k"), (send(to="*"), "k")))
    stage.reopen()
    (after,) = done(stage.submit((send(to="*"), "k")))
    assert isinstance(first, Decided)
    assert len(first.events) == 3
    assert [one.events for one in (again, after) if isinstance(one, Decided)] == [first.events] * 2


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
def test_a_bug_in_a_rule_is_answered_and_nobody_else_notices(
    stage: Stage, rule: Callable[..., list[AnyEvent]], error: type[Exception]
) -> None:
    stage.spawn("coder")
    with broken(rule):
        outcomes = done(stage.submit(send("a"), Broken(by=DAEMON_BY, text="\ud800"), send("b")))
    assert isinstance(outcomes[1], error)
    assert [isinstance(outcome, Decided) for outcome in outcomes] == [True, False, True]
    assert stage.types() == ["AgentAdded", "MessageSent", "MessageSent"]
    stage.check_state_is_the_log()


# Writes that are refused


def test_a_row_that_fits_no_column_keeps_projections_behind_and_nothing_else(stage: Stage) -> None:
    too_large = TurnEnded(agent="coder", ended_at=rfc3339(stage.hand.now_ms()), duration_ms=2**70)
    with broken(lambda *_: [too_large]):
        stage.spawn("coder")
        stage.ask(Broken(by=DAEMON_BY))
    stage.ask(send("after"))
    stage.reopen()
    stage.ask(send("after another start"))
    assert texts(stage.events()) == ["after", "after another start"]
    stage.check_state_is_the_log()


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """No file of this process may grow beyond what the log's WAL has now, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (folder / "events.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_refused_write_is_answered_nothing_is_half_done_and_it_goes_on_when_there_is_room(stage: Stage) -> None:
    stage.spawn("coder")
    acknowledged = [done(stage.submit((send(f"before {number}"), f"k{number}")))[0] for number in range(20)]
    assert all(isinstance(outcome, Decided) for outcome in acknowledged)
    with no_room(stage.folder):
        outcomes = done(stage.submit((send("x" * 90_000), "k"), (send("y"), "k"), send(to="nobody")))
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
        assert stage.client.read(lambda hive: hive.messages.waiting_count("coder")) == 20
        stage.check_state_is_the_log()
    (again,) = done(stage.submit((send("z"), "k")))
    assert isinstance(again, Decided)
    assert texts(stage.events()) == [*(f"before {number}" for number in range(20)), "z"]
    stage.check_state_is_the_log()
    stage.reopen()
    stage.check_state_is_the_log()


def test_refused_writes_one_after_another_do_not_end_the_journal(stage: Stage) -> None:
    stage.spawn("coder")
    with no_room(stage.folder):
        for _ in range(5):
            with pytest.raises(Unavailable, match="Free disk space"):
                stage.ask(send("x" * 90_000))
    assert stage.journal.is_alive()
    stage.ask(send("after"))
    stage.check_state_is_the_log()


def test_a_journal_that_stops_on_a_full_disk_has_lost_nothing(stage: Stage) -> None:
    stage.spawn("coder")
    stage.ask(send("kept"))
    with no_room(stage.folder):
        stage.close()
    stage.open()
    assert texts(stage.events()) == ["kept"]
    stage.check_state_is_the_log()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this host does not let a file system be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_on_a_full_disk_every_acknowledged_message_is_kept_and_room_makes_it_go_on(small_disk: Path) -> None:
    stage = Stage(small_disk)
    try:
        stage.spawn("coder")
        sent = []
        with pytest.raises(Unavailable, match="Free disk space"):
            while True:
                text = f"{len(sent)} {'x' * 5_000}"
                stage.ask(send(text))
                sent.append(text)
        assert texts(stage.events()) == sent
        stage.check_state_is_the_log()
        subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
        stage.ask(send("room again"))
        stage.check_state_is_the_log()
        stage.reopen()
        assert texts(stage.events()) == [*sent, "room again"]
        stage.check_state_is_the_log()
    finally:
        stage.close()


# Doors


def test_many_coroutines_of_one_tick_are_one_commit(stage: Stage) -> None:
    stage.spawn("coder")
    stage.batches.clear()

    async def all_at_once() -> list[Decided]:
        client = AsyncJournalClient(stage.journal, asyncio.get_running_loop())
        return await asyncio.gather(*(client.ask(send(str(number))) for number in range(MAIL)))

    decided = asyncio.run(all_at_once())
    assert [one.seq for one in decided] == list(range(2, MAIL + 2))
    assert len(stage.batches) == 1


def test_a_coroutine_gets_refusals_reads_and_rebuilds(stage: Stage) -> None:
    async def one_after_another() -> int:
        client = AsyncJournalClient(stage.journal, asyncio.get_running_loop())
        await client.ask(Boot(by=DAEMON_BY, hive_version="1", runtime="process"))
        with pytest.raises(NotFound):
            await client.ask(send())
        with pytest.raises(BadRequest):
            await client.ask(send(), key="k" * (KEY_MAX_CHARS + 1))
        with pytest.raises(BadRequest):
            await client.ask(send(), key="")
        assert await client.read(lambda hive: hive.seq) == 1
        return await Rebuilding(client, stage.folder).run()

    assert asyncio.run(one_after_another()) == 1
    stage.check_state_is_the_log()


def test_a_caller_that_gave_up_does_not_disturb_the_others(stage: Stage) -> None:
    stage.spawn("coder")

    async def one_gives_up() -> Decided:
        client = AsyncJournalClient(stage.journal, asyncio.get_running_loop())
        gone = asyncio.ensure_future(client.ask(send("gone")))
        stays = asyncio.ensure_future(client.ask(send("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(one_gives_up()).seq == 3
    assert texts(stage.events()) == ["gone", "stays"]


def test_a_client_to_a_journal_that_ended_says_so(stage: Stage) -> None:
    stage.close()
    with pytest.raises(Unavailable):
        stage.spawn("coder")

    async def ask() -> None:
        client = AsyncJournalClient(stage.journal, asyncio.get_running_loop())
        for waits in (client.ask(send()), client.read(lambda hive: hive.seq), client.adopt()):
            with pytest.raises(Unavailable):
                await waits

    asyncio.run(ask())


def test_a_rebuild_gives_the_state_that_was_there(stage: Stage) -> None:
    stage.spawn("coder")
    stage.submit(*(send(str(number)) for number in range(MAIL)))
    before = stage.client.read(lambda hive: hive.messages.waiting_count("coder"))

    async def rebuild() -> int:
        return await Rebuilding(AsyncJournalClient(stage.journal, asyncio.get_running_loop()), stage.folder).run()

    assert asyncio.run(rebuild()) == MAIL + 1
    assert stage.client.read(lambda hive: hive.messages.waiting_count("coder")) == before
    stage.check_state_is_the_log()


def test_what_nobody_waits_for_is_decided_all_the_same(stage: Stage) -> None:
    stage.client.tell(Warn(by=DAEMON_BY, source="test", text="told"))
    assert stage.client.read(lambda hive: hive.seq) == 1
    assert issubclass(Refused, HiveError)
