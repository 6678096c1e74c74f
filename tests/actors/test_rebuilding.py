"""A rebuild beside a running journal: same state, new file, no repeated signals."""

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from hive.actors.journal_clients import AsyncJournalClient
from hive.actors.rebuilding import Rebuilding
from hive.audit.check import check
from hive.audit.rebuild import fold_beside
from hive.deciders.messages import Send
from hive.errors import Unavailable
from hive.paths import Paths
from hive.projections.fresh import FRESH_NAME
from hive.projections.hive import Hive
from hive.projections.store import FILE_NAME, Store

from .journal_environment import OPERATOR_BY, JournalEnvironment, eventually

MAIL = 300
HISTORY = 6_000
"""Enough messages that a fold takes measurable time."""


def message(number: int, to: str = "coder") -> Send:
    return Send(by=OPERATOR_BY, sender="operator", to=to, body=f"message {number}")


@pytest.fixture
def long(env: JournalEnvironment) -> JournalEnvironment:
    """An environment with an agent, its messages and a history."""
    env.spawn("coder")
    sent = [message(number) for number in range(MAIL)]
    sent += [Send(by=OPERATOR_BY, sender="coder", to="operator", body=f"report {number}") for number in range(HISTORY)]
    env.submit(*sent)
    assert env.client.read(lambda hive: hive.seq) == len(sent) + 1
    return env


Scene = Callable[[AsyncJournalClient, Rebuilding], Awaitable[None]]


def play(env: JournalEnvironment, scene: Scene) -> None:
    async def played() -> None:
        client = AsyncJournalClient(env.journal, asyncio.get_running_loop())
        await scene(client, Rebuilding(client, env.folder))

    asyncio.run(played())


def rebuild(env: JournalEnvironment) -> None:
    async def scene(_: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        await rebuilding.run()

    play(env, scene)


def check_all(env: JournalEnvironment) -> None:
    """State and, after a clean stop, file equal a replay of the log. No other files are left."""
    env.check_state_is_the_log()
    env.close()
    rows = check(Paths(env.folder, env.folder), lambda _: None)
    assert [(row.projection, row.state, row.behind) for row in rows if (row.state, row.behind) != ("same", 0)] == []
    left = {path.name for path in env.folder.iterdir()}
    assert left == {"events.db", FILE_NAME, "reserve"}
    assert (env.folder / FILE_NAME).stat().st_mode & 0o777 == 0o600


def children(folder: Path) -> list[int]:
    """Rebuild processes of this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"hive.audit.rebuild" in words and os.fsencode(folder) in words:
            found.append(int(entry.name))
    return found


def test_journal_runs_during_a_rebuild_without_repeated_signals(long: JournalEnvironment) -> None:
    async def scene(client: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        before = len([event for batch in long.batches for event in batch])
        running = asyncio.ensure_future(rebuilding.run())
        sent = 0
        while not running.done():
            # To the operator, whose inbox is never full: a busy machine takes seconds for the rebuild.
            await asyncio.gather(*(client.ask(message(sent + number, to="operator")) for number in range(10)))
            sent += 10
        assert sent > 10, "commands were answered while it ran"
        assert await running > HISTORY
        told = [event for batch in long.batches for event in batch]
        assert len(told) == before + sent == await client.read(lambda hive: hive.seq)

    play(long, scene)
    check_all(long)


def test_rebuild_corrects_a_wrong_row(long: JournalEnvironment) -> None:
    long.client.read(lambda hive: hive.messages.open.drop(next(iter(hive.messages.open)).id))
    with pytest.raises(AssertionError):
        long.check_state_is_the_log()
    rebuild(long)
    check_all(long)


def test_events_after_a_rebuild_reach_the_new_file(long: JournalEnvironment) -> None:
    rebuild(long)
    for number in range(10):
        long.ask(message(number))
    long.check_state_is_the_log()
    long.reopen()
    check_all(long)


def test_concurrent_rebuilds_share_one_that_survives_a_cancelled_caller(long: JournalEnvironment) -> None:
    async def scene(_: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        file = (long.folder / FILE_NAME).stat().st_ino
        first, second = asyncio.ensure_future(rebuilding.run()), asyncio.ensure_future(rebuilding.run())
        assert len(await asyncio.to_thread(eventually, lambda: children(long.folder), "it folds")) == 1
        first.cancel()
        position = await second
        assert (long.folder / FILE_NAME).stat().st_ino != file
        assert position == await rebuilding.run()

    play(long, scene)
    check_all(long)


def test_rebuild_reports_progress(long: JournalEnvironment) -> None:
    async def scene(_: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        positions: list[int] = []
        last = await rebuilding.run(positions.append)
        assert positions == sorted(positions)
        assert 1 < len(positions) <= last
        assert positions[-1] == last

    play(long, scene)


def _first_seen(env: JournalEnvironment, _: list[int]) -> bool:
    return bool(children(env.folder))


def _first_page(_: JournalEnvironment, positions: list[int]) -> bool:
    return bool(positions)


def _writes(env: JournalEnvironment, _: list[int]) -> bool:
    return (env.folder / FRESH_NAME).exists()


@pytest.mark.parametrize("when", [_first_seen, _first_page, _writes], ids=lambda one: one.__name__.strip("_"))
def test_killed_rebuild_changes_nothing_and_the_next_works(
    long: JournalEnvironment, when: Callable[[JournalEnvironment, list[int]], bool]
) -> None:
    async def scene(client: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        positions: list[int] = []
        running = asyncio.ensure_future(rebuilding.run(positions.append))
        await asyncio.to_thread(eventually, lambda: running.done() or when(long, positions), "it is as far as that")
        for pid in children(long.folder):
            os.kill(pid, signal.SIGKILL)
        try:
            await running
        except Unavailable as error:
            assert "-9" in str(error)
        await client.ask(message(0))
        long.check_state_is_the_log()
        await rebuilding.run()

    play(long, scene)
    check_all(long)


def test_next_start_removes_files_of_a_killed_rebuild(long: JournalEnvironment) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        (long.folder / (FRESH_NAME + suffix)).write_bytes(b"half")
    long.reopen()
    check_all(long)


def test_open_reader_keeps_its_snapshot_over_the_swap(long: JournalEnvironment) -> None:
    reader = apsw.Connection(str(long.folder / FILE_NAME), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        long.reopen()  # Everything is written.
        reader.execute("BEGIN")
        before = reader.execute("SELECT id, body FROM messages ORDER BY id").fetchall()
        rebuild(long)
        long.submit(*(message(number) for number in range(MAIL)))
        assert long.client.read(lambda hive: len(hive.messages.open)) == 2 * MAIL
        assert reader.execute("SELECT id, body FROM messages ORDER BY id").fetchall() == before
    finally:
        reader.close()
    check_all(long)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8192, None], ids=["nothing in it", "not a database", "of another log"]
)
def test_foreign_file_is_refused_and_nothing_changes(
    long: JournalEnvironment, tmp_path_factory: pytest.TempPathFactory, content: bytes | None
) -> None:
    fresh = long.folder / FRESH_NAME
    if content is None:
        other = tmp_path_factory.mktemp("other")
        store = Store(other)
        store.write(Hive(), b"another")
        store.close()
        fresh.write_bytes((other / FILE_NAME).read_bytes())
    else:
        fresh.write_bytes(content)

    async def scene(client: AsyncJournalClient, _: Rebuilding) -> None:
        with pytest.raises(Unavailable, match="cannot be used"):
            await client.adopt()
        await client.ask(message(0))

    play(long, scene)
    long.check_state_is_the_log()
    long.reopen()
    check_all(long)


def test_damaged_rebuild_is_refused_and_the_journal_continues(long: JournalEnvironment) -> None:
    fold_beside(Paths(long.folder, long.folder), lambda _: None, daemon_runs=True)
    db = apsw.Connection(str(long.folder / FRESH_NAME))
    db.execute("UPDATE messages SET body = CAST(x'ff' AS TEXT) WHERE id = 7")
    db.close()

    async def scene(client: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        with pytest.raises(Unavailable, match="cannot be used"):
            await client.adopt()
        await client.ask(message(0))
        await rebuilding.run()

    play(long, scene)
    check_all(long)


@contextmanager
def files_stay_below(size: int) -> Iterator[None]:
    """Limit file sizes as on a full disk, for this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_rebuild_on_a_full_disk_fails_and_leaves_no_files(long: JournalEnvironment) -> None:
    async def scene(client: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        with files_stay_below(16_384), pytest.raises(Unavailable, match="Free disk space"):
            await rebuilding.run()
        assert not (long.folder / FRESH_NAME).exists()
        await client.ask(message(0))
        await rebuilding.run()

    long.reopen()  # Everything is written behind: nothing but the rebuild needs room.
    play(long, scene)
    check_all(long)


def test_rebuild_of_a_damaged_log_reports_the_damage(long: JournalEnvironment) -> None:
    db = apsw.Connection(str(long.folder / "events.db"))
    db.execute("DROP TRIGGER events_are_never_changed; UPDATE events SET data = '[' WHERE seq = 2000").fetchall()
    db.close()

    async def scene(_: AsyncJournalClient, rebuilding: Rebuilding) -> None:
        with pytest.raises(Unavailable, match="MessageSent that cannot be read"):
            await rebuilding.run()

    play(long, scene)
    assert not (long.folder / FRESH_NAME).exists()


def test_rebuild_process_ends_with_its_parent(long: JournalEnvironment) -> None:
    async def asks_and_dies() -> None:
        client = AsyncJournalClient(long.journal, asyncio.get_running_loop())
        running = asyncio.ensure_future(Rebuilding(client, long.folder).run())
        await asyncio.to_thread(eventually, lambda: children(long.folder), "it folds")
        running.cancel()

    asyncio.run(asks_and_dies())
    eventually(lambda: not children(long.folder), "the process has ended")
    long.reopen()
    check_all(long)
