"""Agents' files in a real NATS server: only what changed travels, and what nobody needs is removed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError
from system.hive_process import HiveProcess

from hive.backup.chunks import Chunks
from hive.paths import Paths
from hive.swarm import files, keys, pieces
from hive.swarm.connection import open_connection
from hive.swarm.envelope import Forged
from hive.swarm.server import swarm_settings

from .servers import Server, free_port, join

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def hives() -> Iterator[tuple[HiveProcess, HiveProcess]]:
    """Two members without daemons, and a server."""
    tokyo, berlin = HiveProcess(), HiveProcess()
    server = Server(tokyo, tokyo.folder / "nats", free_port())
    try:
        join({"tokyo": tokyo, "berlin": berlin}, server.url)
        server.start()
        yield tokyo, berlin
    finally:
        server.kill()
        for hive in (tokyo, berlin):
            hive.close()


@pytest.fixture
def chunks(tmp_path: Path) -> Chunks:
    (tmp_path / "chunks").mkdir()
    return Chunks(tmp_path / "chunks")


def connected(hive: HiveProcess, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something on a connection of a hive."""

    async def lost() -> None:
        return

    async def run() -> Any:
        settings, key = swarm_settings(hive.paths), keys.load(hive.paths.state)
        client = await open_connection(hive.paths.state, settings, key, lost)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def put(tokyo: HiveProcess, agent: str, name: str) -> tuple[str, int]:
    """Digest, and how many pieces were sent."""
    key = keys.load(tokyo.paths.state)

    def cut() -> Iterator[bytes]:
        return pieces.cut(tokyo.paths, agent)

    found: tuple[str, int] = connected(
        tokyo, lambda client: files.put(client, "tokyo", key, agent, cut(), lambda _: name)
    )
    return found


def get(berlin: HiveProcess, tokyo: HiveProcess, name: str, digest: str | None, chunks: Chunks) -> pieces.Manifest:
    key = keys.PeerKey(keys.load(tokyo.paths.state).public)
    found: pieces.Manifest = connected(berlin, lambda client: files.get(client, "tokyo", key, name, digest, chunks))
    return found


def collect(tokyo: HiveProcess, *kept: str) -> int:
    key = keys.PeerKey(keys.load(tokyo.paths.state).public)
    count: int = connected(tokyo, lambda client: files.collect(client, "tokyo", key, lambda name: name in kept))
    return count


def furnish(hive: HiveProcess, agent: str) -> Path:
    state = hive.paths.agent_state(agent)
    state.mkdir(parents=True)
    content = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    (state / "large").write_bytes(content)
    (state / "notes.md").write_text("one")
    return state


def test_second_time_only_what_changed_travels(
    hives: tuple[HiveProcess, HiveProcess], chunks: Chunks, tmp_path: Path
) -> None:
    tokyo, berlin = hives
    state = furnish(tokyo, "coder")
    _, first = put(tokyo, "coder", "snapshot-coder")
    assert first >= 5
    (state / "notes.md").write_text("two")
    digest, second = put(tokyo, "coder", "snapshot-coder")
    assert 0 < second <= 2
    manifest = get(berlin, tokyo, "snapshot-coder", digest, chunks)
    there = Paths(tmp_path / "there", tmp_path / "run")
    there.state.mkdir()
    pieces.unpack(chunks, manifest, there, "coder")
    assert (there.agent_state("coder") / "notes.md").read_text() == "two"
    assert (there.agent_state("coder") / "large").read_bytes() == (state / "large").read_bytes()
    with pytest.raises(Forged, match="not those that their hive sent"):
        get(berlin, tokyo, "snapshot-coder", "0" * 64, chunks)


def test_manifest_of_another_key_is_refused(hives: tuple[HiveProcess, HiveProcess], chunks: Chunks) -> None:
    tokyo, berlin = hives
    put(tokyo, "coder", "snapshot-coder")
    other = keys.PeerKey(keys.load(berlin.paths.state).public)
    with pytest.raises(Forged, match="signature"):
        connected(berlin, lambda client: files.get(client, "tokyo", other, "snapshot-coder", None, chunks))


def test_what_no_manifest_needs_is_collected(hives: tuple[HiveProcess, HiveProcess], chunks: Chunks) -> None:
    tokyo, berlin = hives
    furnish(tokyo, "smith")
    (tokyo.paths.agent_state("smith") / "large").write_bytes(b"\1" * 1_000_000)
    put(tokyo, "coder", "snapshot-coder")
    put(tokyo, "smith", "snapshot-smith")
    collect(tokyo, "snapshot-coder", "snapshot-smith")
    assert collect(tokyo, "snapshot-coder", "snapshot-smith") == 0
    assert collect(tokyo, "snapshot-coder") > 0
    get(berlin, tokyo, "snapshot-coder", None, chunks)
    with pytest.raises(Forged, match="has no files"):
        get(berlin, tokyo, "snapshot-smith", None, chunks)
    assert collect(tokyo) > 0
    assert put(tokyo, "coder", "snapshot-coder")[1] >= 5, "everything travels again"


def test_lost_piece_is_missed_and_stored_again(hives: tuple[HiveProcess, HiveProcess], chunks: Chunks) -> None:
    tokyo, berlin = hives
    digest, _ = put(tokyo, "coder", "snapshot-coder")
    lost = get(berlin, tokyo, "snapshot-coder", digest, chunks).pieces[-1]

    async def lose(client: Any) -> None:
        js = client.jetstream()
        await js.purge_stream("OBJ_hive-files-tokyo", subject=f"$O.hive-files-tokyo.C.{lost}")

    connected(tokyo, lose)
    chunks.sweep(keep=set())
    with pytest.raises(NatsError):
        get(berlin, tokyo, "snapshot-coder", digest, chunks)
    assert put(tokyo, "coder", "snapshot-coder") == (digest, 1)
    get(berlin, tokyo, "snapshot-coder", digest, chunks)
