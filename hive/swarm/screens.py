"""What each hive shows to the others: roster, approvals and questions, whole and signed, in a key-value bucket."""

import asyncio
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig, RawStreamMsg, StorageType
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError

from hive.deciders.adoption import SeeClaims
from hive.events.base import Seq, actor
from hive.projections.hive import Hive
from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, REPLICAS, REQUEST_TIMEOUT_S, Journal
from hive.swarm.envelope import Forged, sealed, unsealed
from hive.swarm.keys import HiveKey, PeerKey

log = structlog.get_logger()

BY: Final = actor("swarm")
KEY: Final = "screen"
GATHER_S: Final = 0.2
"""After a commit, for more of them to be shown at once; longer with more peers, because each of them reads it."""
PEERS_AT_FULL_PACE: Final = 5
"""With more, a hive still reads at most 25 screens a second."""
HEARTBEAT_S: Final = 5.0
"""A screen that does not change is shown again, so that its age says whether its hive is there."""
REST_FACTOR: Final = 10
"""Making a screen takes at most a tenth of the time."""
PAUSE_S: Final = 1.0
SHOWN_STEP_S: Final = 0.02
SCREEN_MAX_BYTES: Final = 900 * 1024
"""Below the payload limit of a NATS server as it comes."""


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """One hive at one position of its log."""

    hive: str
    seq: Seq
    state: dict[str, Any]
    epochs: dict[str, tuple[int, str]] = {}
    """By origin of an agent: the newest epoch, and the hive that holds it or is about to."""


class Seen(msgspec.Struct, frozen=True):
    """A peer's screen and when it came."""

    screen: Screen
    at_s: float
    """When it was shown, by this host's monotonic clock: the hosts' own clocks may differ."""
    came_s: float
    """When it came here, by the same clock; a stored one counts from the connection on."""

    def age_s(self) -> float:
        return max(0.0, time.monotonic() - self.at_s)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Screen).decode


class _StreamInfo(msgspec.Struct, frozen=True):
    """What is read of the server's reply."""

    ts: datetime | None = None
    """The server's clock."""


_decode_info: Final = msgspec.json.Decoder(_StreamInfo).decode


class Screens:
    """Shows this hive's screen and keeps the newest of each peer's."""

    def __init__(
        self,
        client: Client,
        hive: str,
        key: HiveKey,
        peers: dict[str, PeerKey],
        journal: Journal,
        draw: Callable[[Hive], dict[str, Any]],
        seen: dict[str, Seen],
        read: Callable[[], None],
    ):
        """`read` is called when the newest screen of every peer was read, and what it says of epochs decided."""
        self._client = client
        self._js = client.jetstream()
        self._hive = hive
        self._key = key
        self._peers = peers
        self._journal = journal
        self._draw = draw
        self._seen = seen
        self._read = read
        self.problem: str | None = "the screens of peers are not read yet"
        self.shown: Seq = 0
        """Position of the newest screen of this hive that the server has."""
        self.connected_at_s = time.monotonic()
        self._told: dict[str, dict[str, tuple[int, str]]] = {}
        """What each peer said of epochs, as far as it was decided."""
        self._is_missed = True
        """Screens may have been shown that this hive has not read."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    def reconnected(self) -> None:
        """The connection was lost for a while: read again what peers showed meanwhile."""
        self.connected_at_s = time.monotonic()
        self._is_missed = True
        self._wake.set()

    def silent_s(self, peer: str) -> float:
        """For how long a peer has shown nothing while this hive was connected."""
        seen = self._seen.get(peer)
        return time.monotonic() - max(self.connected_at_s, 0.0 if seen is None else seen.came_s)

    async def heard(self, peer: str) -> int:
        """Number of the newest screen of a peer, as the leader of its stream has it; 0: none. Reads all screens."""
        for one in self._peers:
            await self._read_stored(one)
        message = await self._stored(peer)
        return 0 if message is None else message.seq or 0

    async def await_shown(self, seq: Seq) -> None:
        """Wait until the server has a screen of this hive at a position of its log, or a later one."""
        while self.shown < seq:
            self._wake.set()
            await asyncio.sleep(SHOWN_STEP_S)

    async def run(self) -> None:
        """Until cancelled."""
        for peer in self._peers:
            await self._client.subscribe(f"$KV.{subjects.screen_bucket(peer)}.{KEY}", cb=self._on_screen)
        while True:
            try:
                await self._show()
            except (*CONNECTION_ERRORS, APIError) as error:
                log.info("swarm.screen_waits", error=str(error))
                await asyncio.sleep(PAUSE_S)

    async def _show(self) -> None:
        bucket = await self._bucket()
        shown, shown_at = b"", 0.0
        gather_s = GATHER_S * max(1.0, len(self._peers) / PEERS_AT_FULL_PACE)
        self._is_missed = True
        while True:
            self._wake.clear()
            began = time.monotonic()
            screen = await self._journal.read(
                lambda hive: Screen(hive=self._hive, seq=hive.seq, state=self._draw(hive), epochs=hive.swarm.claims())
            )
            body = _encode(screen)
            if body != shown or began - shown_at >= HEARTBEAT_S or self._is_missed:
                await bucket.put(KEY, sealed(self._key, zlib.compress(body)))
                shown, shown_at = body, began
            self.shown = max(self.shown, screen.seq)
            if self._is_missed or self.problem is not None:
                await self._read_all()  # After this hive has shown that it is there: see `actors/adopter.py`.
            took = time.monotonic() - began
            await asyncio.sleep(max(gather_s, REST_FACTOR * took if took > GATHER_S else 0))
            try:
                await asyncio.wait_for(self._wake.wait(), HEARTBEAT_S)
            except TimeoutError:
                continue

    async def _bucket(self) -> Any:
        name = subjects.screen_bucket(self._hive)
        try:
            return await self._js.key_value(name)
        except (BucketNotFoundError, NotFoundError):
            for replicas in (REPLICAS, 1):
                try:
                    config = KeyValueConfig(name, storage=StorageType.FILE, replicas=replicas)
                    return await self._js.create_key_value(config)
                except APIError:
                    if replicas == 1:
                        raise
            raise

    async def _read_all(self) -> None:
        missing = [peer for peer in self._peers if not await self._read_stored(peer)]
        known = await self._journal.read(
            lambda hive: [one for one in missing if hive.swarm.peer(one).received and hive.swarm.peer(one).operators]
        )
        self._is_missed = False
        if known:  # It was there before. What it showed is lost, and it may have adopted agents.
            names = ", ".join(known)
            self.problem = f"the swarm has lost what {names} showed; wait for it, or run: hive swarm distrust {names}"
            return
        self.problem = None
        self._read()

    async def _read_stored(self, peer: str) -> bool:
        """What a hive showed before this one connected; its age by the server's clock. False: nothing."""
        message = await self._stored(peer)
        if message is None:
            return False
        info = f"$JS.API.STREAM.INFO.KV_{subjects.screen_bucket(peer)}"
        reply = await self._client.request(info, timeout=REQUEST_TIMEOUT_S)
        stored, now = message.time, _decode_info(reply.data).ts
        if stored is None or now is None:
            raise NatsError(f"nats: no time in the replies about the screen of {peer}")
        age = max(0.0, (now - stored).total_seconds())
        known = self._seen.get(peer)
        came_s = self.connected_at_s if known is None else known.came_s  # A newer one would have come by itself.
        return await self._take(peer, message.data or b"", time.monotonic() - age, came_s)

    async def _stored(self, peer: str) -> RawStreamMsg | None:
        bucket = subjects.screen_bucket(peer)
        try:
            return await self._js.get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{KEY}")
        except NotFoundError:
            return None

    async def _on_screen(self, message: Msg) -> None:
        bucket = message.subject.split(".")[1]
        await self._take(
            bucket.removeprefix(subjects.screen_bucket("")), message.data, time.monotonic(), time.monotonic()
        )

    async def _take(self, peer: str, data: bytes, at_s: float, came_s: float) -> bool:
        """Whether it is a screen of the peer."""
        try:
            screen = _decode(zlib.decompress(unsealed(self._peers[peer], data)))
        except (KeyError, Forged, zlib.error, msgspec.MsgspecError) as error:
            log.warning("swarm.screen_refused", peer=peer, error=str(error))
            return False
        if screen.hive != peer:
            return False
        known = self._seen.get(peer)
        if known is None or screen.seq >= known.screen.seq:
            self._seen[peer] = Seen(screen, at_s, came_s)
            if self._told.get(peer) != screen.epochs:
                await self._journal.ask(SeeClaims(by=BY, peer=peer, claims=screen.epochs))
                self._told[peer] = screen.epochs
        return True
