"""What each hive shows to the others: roster, approvals and questions, whole and signed, in a key-value bucket."""

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, NotFoundError

from hive.events.base import Seq
from hive.projections.hive import Hive
from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, REPLICAS, Journal
from hive.swarm.envelope import Forged, sealed, unsealed
from hive.swarm.keys import HiveKey, PeerKey

log = structlog.get_logger()

KEY: Final = "screen"
GATHER_S: Final = 0.2
"""After a commit, for more of them to be shown at once."""
HEARTBEAT_S: Final = 5.0
"""A screen that does not change is shown again, so that its age says whether its hive is there."""
REST_FACTOR: Final = 10
"""Making a screen takes at most a tenth of the time."""
PAUSE_S: Final = 1.0
SCREEN_MAX_BYTES: Final = 900 * 1024
"""Below the payload limit of a NATS server as it comes."""


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """One hive at one position of its log."""

    hive: str
    seq: Seq
    state: dict[str, Any]


class Seen(msgspec.Struct, frozen=True):
    """A peer's screen and when it came."""

    screen: Screen
    at_s: float
    """By this host's monotonic clock: the hosts' own clocks may differ."""

    def age_s(self) -> float:
        return max(0.0, time.monotonic() - self.at_s)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Screen).decode


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
    ):
        self._client = client
        self._js = client.jetstream()
        self._hive = hive
        self._key = key
        self._peers = peers
        self._journal = journal
        self._draw = draw
        self._seen = seen
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

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
        for peer in self._peers:
            await self._read_stored(peer)
        shown, shown_at = b"", 0.0
        while True:
            self._wake.clear()
            began = time.monotonic()
            screen = await self._journal.read(
                lambda hive: Screen(hive=self._hive, seq=hive.seq, state=self._draw(hive))
            )
            body = _encode(screen)
            if body != shown or began - shown_at >= HEARTBEAT_S:
                await bucket.put(KEY, sealed(self._key, zlib.compress(body)))
                shown, shown_at = body, began
            took = time.monotonic() - began
            await asyncio.sleep(max(GATHER_S, REST_FACTOR * took if took > GATHER_S else 0))
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

    async def _read_stored(self, peer: str) -> None:
        """What a hive showed before this one connected, with the age that the server knows."""
        try:
            bucket = await self._js.key_value(subjects.screen_bucket(peer))
            message = await self._js.get_last_msg(
                f"KV_{subjects.screen_bucket(peer)}", f"$KV.{subjects.screen_bucket(peer)}.{KEY}"
            )
        except (BucketNotFoundError, KeyNotFoundError, NotFoundError):
            return
        del bucket
        stored = getattr(message, "time", None)
        age = 0.0 if stored is None else max(0.0, time.time() - stored.timestamp())
        self._take(peer, message.data or b"", time.monotonic() - age)

    async def _on_screen(self, message: Msg) -> None:
        bucket = message.subject.split(".")[1]
        self._take(bucket.removeprefix(subjects.screen_bucket("")), message.data, time.monotonic())

    def _take(self, peer: str, data: bytes, at_s: float) -> None:
        try:
            screen = _decode(zlib.decompress(unsealed(self._peers[peer], data)))
        except (KeyError, Forged, zlib.error, msgspec.MsgspecError) as error:
            log.warning("swarm.screen_refused", peer=peer, error=str(error))
            return
        known = self._seen.get(peer)
        if screen.hive == peer and (known is None or screen.seq >= known.screen.seq):
            self._seen[peer] = Seen(screen, at_s)
