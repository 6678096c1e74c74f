"""Publishes what is owed to each peer, again and again until its receipt. It keeps nothing that the log cannot give."""

import asyncio
import secrets
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client

from hive.events import AnyEvent
from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import LogReader
from hive.projections.swarm import Outgoing, Peer
from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, Journal
from hive.swarm.envelope import Envelope, payload, seal
from hive.swarm.keys import HiveKey

log = structlog.get_logger()

WINDOW: Final = 512
"""Envelopes under way to one peer."""
PUBLISH_BYTES: Final = 4 * 1024 * 1024
"""Between two flushes."""
PATIENCE_S: Final = 2.0
"""Until an envelope without a receipt is sent again; doubled each time."""
PATIENCE_MAX_S: Final = 30.0
RESEND_PAUSE_S: Final = 0.25
"""Between two resends that a peer asks for."""
LOOK_EVERY_S: Final = 5.0
PAUSE_S: Final = 1.0


class _Progress(msgspec.Struct):
    """What this run has published to one peer."""

    published: int = 0
    highest: int = 0
    """The newest number that was ever published: what is sent below it is a repetition."""
    receipted: int = 0
    patience_s: float = PATIENCE_S
    resend_at: float | None = None
    asked_at: float = 0.0


class Outbox:
    """One for all peers."""

    def __init__(self, client: Client, hive: str, key: HiveKey, peers: list[str], journal: Journal, reader: LogReader):
        self._client = client
        self._hive = hive
        self._key = key
        self._journal = journal
        self._reader = reader
        self._codec = Codec()
        self._progress = {peer: _Progress() for peer in peers}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may have been committed that leaves."""
        self._wake.set()

    def receipted(self, peer: str, number: int, *, gap: bool) -> None:
        """A receipt came. With a gap the peer misses what comes next."""
        progress, now = self._progress[peer], asyncio.get_running_loop().time()
        if gap and number < progress.published and now - progress.asked_at > RESEND_PAUSE_S:
            progress.asked_at = now
            progress.resend_at = now
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        for peer, progress in self._progress.items():
            progress.highest = await self._journal.read(lambda hive, peer=peer: hive.swarm.peer(peer).sent)  # type: ignore[misc]
        while True:
            try:
                waits = [await self._publish(peer, progress) for peer, progress in self._progress.items()]
                await asyncio.wait_for(self._wake.wait(), min([LOOK_EVERY_S, *waits]))
            except TimeoutError:
                continue
            except CONNECTION_ERRORS as error:
                log.info("swarm.outbox_waits", error=str(error))
                await asyncio.sleep(PAUSE_S)
            finally:
                self._wake.clear()

    async def _publish(self, peer: str, progress: _Progress) -> float:
        """What is due to one peer; returns for how long nothing more will be."""
        now = asyncio.get_running_loop().time()
        row = await self._journal.read(lambda hive: hive.swarm.peer(peer))
        if row.receipted > progress.receipted:
            progress.receipted, progress.patience_s = row.receipted, PATIENCE_S
            progress.resend_at = now + PATIENCE_S
        progress.published = max(progress.published, row.receipted)
        if row.sent == row.receipted:
            progress.resend_at = None
            return LOOK_EVERY_S
        if progress.resend_at is not None and now >= progress.resend_at:
            progress.published = row.receipted
            progress.patience_s = min(2 * progress.patience_s, PATIENCE_MAX_S)
        owed = await self._journal.read(lambda hive: hive.swarm.owed(peer, WINDOW, progress.published))
        if owed:
            await self._send(row, owed, progress)
            progress.resend_at = now + progress.patience_s
        elif progress.resend_at is None:
            progress.resend_at = now + progress.patience_s
        return max(0.0, (progress.resend_at or now) - now)

    async def _send(self, row: Peer, owed: list[Outgoing], progress: _Progress) -> None:
        subject, again, size = subjects.envelope(row.hive, self._hive), secrets.randbits(30) + 1, 0
        for one in owed:
            attempt = again if one.number <= progress.highest else 0
            envelope = Envelope(
                sender=self._hive,
                to=row.hive,
                number=one.number,
                base=row.receipted + 1,
                attempt=attempt,
                payload=payload(one, self._event(one.seq)),
            )
            data = seal(self._key, envelope)
            await self._client.publish(subject, data, headers={"Nats-Msg-Id": f"{self._hive}.{one.number}.{attempt}"})
            progress.published = one.number
            progress.highest = max(progress.highest, one.number)
            size += len(data)
            if size > PUBLISH_BYTES:
                await self._client.flush()
                size = 0
        await self._client.flush()

    def _event(self, seq: Seq) -> AnyEvent:
        (row,) = self._reader.rows(seq, seq)
        return self._codec.decode(row.type, row.data)
