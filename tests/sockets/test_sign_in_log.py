"""Sign-ins and refused sign-ins are events; refused ones cannot fill the log."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from actors.journal_environment import DEADLINE_S, JournalEnvironment, eventually

from hive.actors.journal_clients import AsyncJournalClient
from hive.events.operators import SignedIn, SignInRefused
from hive.sockets.sign_in_log import SignInLog


@pytest.fixture
def env(tmp_path: Path) -> Iterator[JournalEnvironment]:
    one = JournalEnvironment(tmp_path)
    yield one
    one.close()


def recorded(env: JournalEnvironment, *, every_s: float, refusals: int, until: int = 0) -> None:
    async def scene() -> None:
        sign_ins = SignInLog(AsyncJournalClient(env.journal, asyncio.get_running_loop()), every_s)
        for number in range(refusals):
            sign_ins.refused(f"127.0.0.{number}")
            await asyncio.sleep(0)
        await sign_ins.signed_in("mara", "127.0.0.1", link=False)
        await asyncio.to_thread(eventually, lambda: sum(event.attempts for event in refused(env)) >= until, "recorded")

    asyncio.run(asyncio.wait_for(scene(), DEADLINE_S))


def refused(env: JournalEnvironment) -> list[SignInRefused]:
    return [event for event in env.events() if isinstance(event, SignInRefused)]


def test_refused_attempts_of_a_minute_are_one_event(env: JournalEnvironment) -> None:
    recorded(env, every_s=1_000, refusals=500)
    assert refused(env) == [SignInRefused(source="127.0.0.0")]
    assert SignedIn(name="mara", source="127.0.0.1") in env.events()
    assert str(env.rows()[-1].by) == "operator:mara way=dashboard"


def test_later_event_counts_the_attempts_since_the_last_one(env: JournalEnvironment) -> None:
    recorded(env, every_s=0.01, refusals=500, until=500)
    assert sum(event.attempts for event in refused(env)) == 500
    assert refused(env)[-1].source == "127.0.0.499"
