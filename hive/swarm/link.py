"""The link: a thread with an event loop of its own that holds the NATS connection and everything that runs on it."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from nats.js.errors import APIError

from hive.backup.chunks import Chunks
from hive.config.proposals import Proposals
from hive.errors import HiveError, NotFound, Unavailable
from hive.events.base import ApprovalId
from hive.events.chain import Row
from hive.events.log import LogReader
from hive.names import AgentName
from hive.paths import Paths
from hive.projections.hive import Hive
from hive.settings import SwarmSettings
from hive.swarm import files, keys, replica, subjects
from hive.swarm.asking import Asking
from hive.swarm.connection import CONNECTION_ERRORS, Journal, is_encrypted, open_connection
from hive.swarm.inbox import Inbox
from hive.swarm.outbox import Outbox
from hive.swarm.pieces import Manifest
from hive.swarm.replica import Shipper
from hive.swarm.replication import Replication
from hive.swarm.screens import KEY, Screens, Seen

log = structlog.get_logger()

RETRY_S: Final = 1.0
"""After a connection that could not be opened, or broke in a way that it does not mend by itself."""
STOP_TIMEOUT_S: Final = 10.0
ASK_TIMEOUT_S: Final = 15.0
LOOK_EVERY_S: Final = 1.0
"""Whether the link is still there, while a transfer runs."""


class LinkStatus(msgspec.Struct, frozen=True):
    """Where the link stands."""

    connected: bool
    server: str | None
    encrypted: bool
    problem: str | None
    shipped: int
    """The newest event of this hive's log that is in the swarm."""
    copies: int | None
    """How many servers hold each of this hive's streams, at least; None: not known yet."""
    seen: dict[str, Seen]
    """The peers' screens."""


class Shown(NamedTuple):
    """What other hives see of this one."""

    draw: Callable[[Hive], dict[str, Any]]
    """Its screen."""
    proposals: Proposals
    """The diffs of its approvals."""


class Link:
    """Keeps nothing that the journal and the log cannot give back: it is stopped and started at will."""

    def __init__(
        self,
        paths: Paths,
        swarm: SwarmSettings,
        journal: Callable[[asyncio.AbstractEventLoop], Journal],
        shown: Shown,
        read: Callable[[], None],
        explain: Callable[[str], None],
    ):
        """`read` is called when the inbox and the screens of all peers were read; `explain` says why not yet.

        Raises BadRequest or CorruptState: the key of this hive is missing or damaged.
        """
        self._paths = paths
        self._swarm = swarm
        self._hive = str(swarm.name)
        self._key = keys.load(paths.state)
        self._peers = {name: keys.PeerKey(peer.key) for name, peer in swarm.peers.items()}
        self._journal = journal
        self._look = shown
        self._seen: dict[str, Seen] = {}
        self._problem: str | None = "not connected yet"
        self._parts: tuple[Outbox, Shipper, Screens] | None = None
        self._replication: Replication | None = None
        self._client: Any = None
        self._asking: Asking | None = None
        self._shipped = 0
        self._read = read
        self._explain = explain
        self._unread = {"inbox", "screens"}
        self._loop = asyncio.new_event_loop()
        self._woken = False
        self._thread = threading.Thread(target=self._run, name="swarm link", daemon=True)
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """From another thread; waits for its end."""
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(STOP_TIMEOUT_S)

    def wake(self) -> None:
        """Something was committed. From any thread; cheap when called often."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake_parts)

    def silent_s(self, hive: str) -> float:
        """For how long a peer has shown nothing while this hive was connected; 0 while it is not."""
        parts = self._parts
        return 0.0 if parts is None or not self.status().connected else parts[2].silent_s(hive)

    def heard(self, hive: str, timeout_s: float) -> int:
        """Number of the newest screen of a peer; from another thread. Raises Unavailable."""
        found: list[int] = []

        async def work(_: Any, __: str) -> None:
            if (parts := self._parts) is not None:
                found.append(await parts[2].heard(hive))

        self.run(work, timeout_s)
        return self._only(found)

    def show(self, seq: int, timeout_s: float) -> None:
        """Wait until the swarm has a screen of this hive at this position; from another thread. Raises Unavailable."""
        found: list[int] = []

        async def work(_: Any, __: str) -> None:
            if (parts := self._parts) is not None:
                await parts[2].await_shown(seq)
                found.append(seq)

        self.run(work, timeout_s)
        self._only(found)

    def forget(self, erasure: int, timeout_s: float) -> None:
        """Wait until the replica and the screen follow an erasure; from another thread. Raises Unavailable."""

        async def work(client: Any, hive: str) -> None:
            bucket = f"KV_{subjects.screen_bucket(hive)}"
            with contextlib.suppress(APIError):  # It was replaced meanwhile.
                await client.jetstream().delete_msg(bucket, (await self._stored_screen(client, hive)).seq)
            while (parts := self._parts) is None or parts[1].erased < erasure:
                self._wake_parts()
                await asyncio.sleep(LOOK_EVERY_S / 10)

        self.run(work, timeout_s)

    @staticmethod
    async def _stored_screen(client: Any, hive: str) -> Any:
        bucket = subjects.screen_bucket(hive)
        return await client.jetstream().get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{KEY}")

    def diff(self, hive: str, approval: ApprovalId, operator: str) -> dict[str, Any]:
        """The diff of an approval of a peer, for an operator who may decide there; from another thread.

        Raises:
            Refused: it does not show it. Unavailable: no connection, or no answer in time.
        """
        found: list[dict[str, Any]] = []

        async def work(_: Any, __: str) -> None:
            if (asking := self._asking) is not None:
                found.append(await asking.diff(hive, approval, operator))

        self.run(work, ASK_TIMEOUT_S)
        if not found:
            raise Unavailable("This hive is not connected to the swarm.")
        return found[0]

    @staticmethod
    def _only(found: list[int]) -> int:
        if not found:
            raise Unavailable("This hive is not connected to the swarm.")
        return found[0]

    def put_files(self, agent: AgentName, pieces: Iterator[bytes], name: Callable[[str], str]) -> tuple[str, int]:
        """Store an agent's files in the swarm; see `files.put`. From another thread. Raises Unavailable, OSError."""
        found: list[tuple[str, int]] = []

        async def work(client: Any, hive: str) -> None:
            found.append(await files.put(client, hive, self._key, agent, pieces, name))

        self.run(work, None)
        return found[0]

    def get_files(self, hive: str, name: str, digest: str | None, chunks: Chunks) -> Manifest:
        """Fetch an agent's files that a peer has stored; see `files.get`. From another thread.

        Raises:
            Unavailable: no connection, or a piece is missing. Forged, CorruptState: it is not what the peer stored.
        """
        found: list[Manifest] = []

        async def work(client: Any, _: str) -> None:
            if (key := self._peers.get(hive)) is None:
                raise NotFound(f'hive "{hive}" is not a peer of this hive')
            found.append(await files.get(client, hive, key, name, digest, chunks))

        self.run(work, None)
        return found[0]

    def collect_files(self, is_kept: Callable[[str], bool]) -> int:
        """Remove what no manifest needs that is kept; see `files.collect`. From another thread. Raises Unavailable."""
        found: list[int] = []

        async def work(client: Any, hive: str) -> None:
            found.append(await files.collect(client, hive, keys.PeerKey(self._key.public), is_kept))

        self.run(work, None)
        return found[0]

    def read_replica(self, hive: str, timeout_s: float) -> list[Row]:
        """The log of a peer as the swarm holds it; from another thread.

        Raises:
            NotFound, Forged, CorruptState: there is none, or it does not hold. Unavailable: no connection.
        """
        found: list[Row] = []

        async def work(client: Any, _: str) -> None:
            found.extend(await replica.read(client, hive, self._peers[hive]))

        self.run(work, timeout_s)
        return found

    def run(self, work: Callable[[Any, str], Coroutine[Any, Any, None]], timeout_s: float | None) -> None:
        """Run something on the connection, from another thread; `work` gets the client and this hive's name.

        Raises:
            Unavailable: no connection, or it broke meanwhile. Forged: what a peer stored is not there.
        """
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable("This hive is not connected to the swarm.")
        future = asyncio.run_coroutine_threadsafe(work(client, self._hive), self._loop)
        try:
            while timeout_s is None and not concurrent.futures.wait([future], LOOK_EVERY_S).done:
                if not self._thread.is_alive():
                    raise Unavailable("The link has ended.")
            future.result(timeout_s)
        except (*CONNECTION_ERRORS, concurrent.futures.CancelledError) as error:
            future.cancel()
            raise Unavailable(f"The transfer failed: {error or type(error).__name__}.") from error

    def status(self) -> LinkStatus:
        """From any thread."""
        client = self._client
        connected = client is not None and client.is_connected
        url = client.connected_url if connected else None
        parts = self._parts
        shipper = None if parts is None else parts[1]
        return LinkStatus(
            connected=connected,
            server=None if url is None else url.netloc,
            encrypted=connected and is_encrypted(client),
            problem=self._problem_of(parts) if connected else self._problem,
            shipped=self._shipped if shipper is None else shipper.shipped,
            copies=None if (replication := self._replication) is None else replication.copies,
            seen=dict(self._seen),
        )

    @staticmethod
    def _problem_of(parts: "tuple[Outbox, Shipper, Screens] | None") -> str | None:
        return None if parts is None else parts[1].problem or parts[2].problem

    def _inbox_is_read(self) -> None:
        self._part_is_read("inbox")

    def _screens_are_read(self) -> None:
        self._part_is_read("screens")

    def _part_is_read(self, part: str) -> None:
        self._unread.discard(part)
        if not self._unread:
            self._read()

    def _wake_parts(self) -> None:
        self._woken = False
        for part in self._parts or ():
            part.wake()

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._forever())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _forever(self) -> None:
        while True:
            try:
                await self._connected()
            except Exception as error:  # noqa: BLE001  # A bug here must not end the daemon, and the log still has everything.
                self._note(error)
            await asyncio.sleep(RETRY_S)

    def _note(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        self._problem = str(error) or type(error).__name__
        self._explain(self._problem)
        if isinstance(error, (HiveError, *CONNECTION_ERRORS)):
            log.info("swarm.not_connected", error=self._problem)
        else:
            log.error("swarm.link_failed", exc_info=error)

    async def _connected(self) -> None:
        async def lost() -> None:
            self._problem = "the connection was lost"
            self._explain(self._problem)

        async def again() -> None:
            if (parts := self._parts) is not None:
                parts[2].reconnected()

        client = await open_connection(self._paths.state, self._swarm, self._key, lost, again)
        reader = LogReader(self._paths.state, daemon_runs=True)
        try:
            journal = self._journal(self._loop)
            outbox = Outbox(client, self._hive, self._key, list(self._peers), journal, reader)
            inbox = Inbox(
                client, self._hive, self._key, self._peers, journal, outbox, self._look.proposals, self._inbox_is_read
            )
            shipper = Shipper(client, self._hive, self._key, reader, journal)
            screens = Screens(
                client, self._hive, self._key, self._peers, journal, self._look.draw, self._seen, self._screens_are_read
            )
            asking = Asking(client, self._hive, self._key, self._peers, journal, self._look.proposals)
            self._replication = replication = Replication(client, self._hive)
            self._client, self._parts, self._asking = client, (outbox, shipper, screens), asking
            self._problem = "the connection was lost"  # Shown whenever there is none.
            log.info("swarm.connected", server=str(client.connected_url and client.connected_url.netloc))
            async with asyncio.TaskGroup() as group:
                for part in (outbox, inbox, shipper, screens, replication, asking):
                    group.create_task(part.run())
        finally:
            self._shipped, self._parts, self._client = self.status().shipped, None, None
            self._replication, self._asking = None, None
            reader.close()
            with contextlib.suppress(*CONNECTION_ERRORS):
                await asyncio.wait_for(client.close(), STOP_TIMEOUT_S)
