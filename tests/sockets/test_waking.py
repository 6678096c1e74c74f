"""A parked recv gets a message in the commit that makes the message durable."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors.journal_environment import DAEMON_BY, DEADLINE_S, OPERATOR_BY, JournalEnvironment

from hive.actors.journal_clients import AsyncJournalClient
from hive.deciders.messages import Recv, Send
from hive.errors import NotFound
from hive.names import EVERYONE
from hive.sockets.hub import Hub

AGENTS = ("coder", "tester", "writer")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[JournalEnvironment]:
    one = JournalEnvironment(tmp_path)
    one.spawn(*AGENTS)
    one.batches.clear()
    yield one
    one.close()


def sent_while_parked(env: JournalEnvironment, to: str) -> list[list[str]]:
    """The event types of each commit while every agent is parked and a message is sent."""

    async def play() -> None:
        hub, client = Hub(env.clock), AsyncJournalClient(env.journal, asyncio.get_running_loop())

        async def parked(agent: str) -> None:
            with hub.receiving.parked(agent) as woken:
                async with asyncio.timeout(DEADLINE_S):
                    await woken.wait()
                await client.ask(Recv(by=DAEMON_BY, agent=agent))

        waiting = {agent: asyncio.create_task(parked(agent)) for agent in AGENTS}
        await asyncio.sleep(0)
        try:
            hub.will_send(to)
            await client.ask(Send(by=OPERATOR_BY, sender="operator", to=to, body="hello"))
            await asyncio.gather(*(task for agent, task in waiting.items() if to in (agent, EVERYONE)))
        finally:
            for task in waiting.values():
                task.cancel()
            await asyncio.gather(*waiting.values(), return_exceptions=True)

    asyncio.run(play())
    return [[type(event).__name__ for event in batch] for batch in env.batches]


def test_message_and_its_delivery_are_one_commit(env: JournalEnvironment) -> None:
    assert sent_while_parked(env, "tester") == [["MessageSent", "MessageDelivered"]]


def test_broadcast_and_its_deliveries_are_one_commit(env: JournalEnvironment) -> None:
    assert sent_while_parked(env, EVERYONE) == [["MessageSent"] * len(AGENTS) + ["MessageDelivered"] * len(AGENTS)]


def test_refused_send_delivers_nothing(env: JournalEnvironment) -> None:
    with pytest.raises(NotFound):
        sent_while_parked(env, "nobody")
    assert env.batches == []
