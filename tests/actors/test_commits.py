"""Large batches: one is committed while the journal decides the next one."""

import asyncio
import concurrent.futures

from hive.actors.journal import PIPELINED_MIN
from hive.actors.journal_clients import AGENT_UNDER_WAY_MAX, AsyncJournalClient
from hive.actors.journal_messages import Decided, Submission, Submit
from hive.deciders.base import Command
from hive.errors import Unavailable
from hive.events.base import agent

from .journal_environment import DAEMON_BY, RESTED_MS, JournalEnvironment, no_room
from .test_journal import Broken, broken, cannot_be_folded, done, send, texts

MANY = 5 * PIPELINED_MIN
"""Commands of one message that are several commits."""


def test_many_commands_of_one_message_are_several_commits_in_order(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.batches.clear()
    tickets = env.submit(*(send(str(number)) for number in range(MANY)))
    seq, waiting = env.client.read(lambda hive: (hive.seq, hive.messages.waiting_count("coder")))
    assert (seq, waiting) == (MANY + 1, MANY)
    assert [outcome.seq for outcome in done(tickets) if isinstance(outcome, Decided)] == list(range(2, MANY + 2))
    assert len(env.batches[0]) == PIPELINED_MIN
    assert sum(map(len, env.batches)) == MANY
    assert texts(env.events()) == [str(number) for number in range(MANY)]
    env.check_state_is_the_log()


def test_answer_of_each_commit_is_given_when_it_is_durable(env: JournalEnvironment) -> None:
    env.spawn("coder")
    missing: list[int] = []
    tickets = [concurrent.futures.Future[Decided]() for _ in range(MANY)]
    for ticket in tickets:
        ticket.add_done_callback(lambda ticket: missing.extend({ticket.result().seq} - {row.seq for row in env.rows()}))
    submissions = [Submission(send(str(number)), ticket) for number, ticket in enumerate(tickets)]
    env.journal.tell(Submit(env.client, submissions))
    done(tickets)
    env.client.read(lambda hive: hive.seq)
    assert missing == []


def test_failed_write_takes_back_what_was_decided_on_top_of_it(env: JournalEnvironment) -> None:
    env.spawn("coder")
    env.ask(send("before"))
    with no_room(env.folder):
        commands = [(send("x" * 9_000), f"k{number}") for number in range(MANY)]
        tickets = env.submit(*commands)
        waiting = env.client.read(lambda hive: hive.messages.waiting_count("coder"))
        assert {type(outcome) for outcome in done(tickets)} == {Unavailable}
        assert waiting == 1
    env.manual.advance(RESTED_MS)
    again = done(env.submit(*commands))
    assert [outcome.seq for outcome in again if isinstance(outcome, Decided)] == list(range(3, 2 * MANY + 3, 2))
    assert len(env.events()) == 2 + 2 * MANY
    env.check_state_is_the_log()
    env.reopen()
    env.check_state_is_the_log()


def test_bug_in_a_fold_behind_a_commit_under_way_fails_only_its_command(env: JournalEnvironment) -> None:
    env.spawn("coder")
    with broken(cannot_be_folded):
        commands: list[Command] = [send(str(number)) for number in range(MANY)]
        commands[PIPELINED_MIN + 1] = Broken(by=DAEMON_BY)
        outcomes = done(env.submit(*commands))
    assert [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Decided)] == [
        PIPELINED_MIN + 1
    ]
    assert len(env.events()) == MANY
    env.check_state_is_the_log()


def test_commands_of_a_busy_agent_are_all_decided_in_order_and_leave_room_for_others(env: JournalEnvironment) -> None:
    env.spawn("coder", "tester")
    env.batches.clear()

    async def flood() -> tuple[list[Decided], Decided]:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        by = agent("coder")
        many = [client.ask(send(str(number), by=by, sender="coder", to="tester")) for number in range(MANY)]
        other = await client.ask(send("other", by=agent("tester"), sender="tester"))
        many[-1].cancel()
        return await asyncio.gather(*many[:-1]), other

    decided, other = asyncio.run(flood())
    assert other.seq == AGENT_UNDER_WAY_MAX + 3
    assert texts([one.first() for one in decided]) == [str(number) for number in range(MANY - 1)]
    assert max(len(batch) for batch in env.batches) <= AGENT_UNDER_WAY_MAX + 1
