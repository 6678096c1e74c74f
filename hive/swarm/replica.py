"""A hive's log in the swarm: runs of rows, each signed, exact to the byte. Shipped by its hive, read by any member."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType
from nats.js.errors import NotFoundError

from hive.errors import CorruptState, NotFound
from hive.events.base import Seq
from hive.events.chain import Row
from hive.events.log import LogReader
from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, Journal, Puller, ensure_stream
from hive.swarm.envelope import Forged, sealed, unsealed
from hive.swarm.keys import HiveKey, PeerKey

log = structlog.get_logger()

RUN_ROWS: Final = 500
RUN_BYTES: Final = 512 * 1024
"""Before compression; one row may be longer."""
GATHER_S: Final = 0.2
"""After a commit, for more of them to share a message."""
GAP_CHECK_S: Final = 5.0
"""How soon a deleted stream, or one that lost messages, is filled again."""
READER_IDLE_S: Final = 60.0
END_OF_STREAM_S: Final = 3.0
"""A reader that gets nothing for so long looks whether it has everything."""
PAUSE_S: Final = 1.0

FIRST, LAST, HASH, ERASURE = "Hive-First", "Hive-Last", "Hive-Hash", "Hive-Erasure"
"""Headers: the positions of the first and the last row, the hash of the last, and the newest erasure that was finished
when they were written: texts that were erased later are in the message."""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive rows of one log."""

    hive: str
    rows: list[tuple[Any, ...]]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Run).decode


def sealed_run(key: HiveKey, hive: str, rows: list[Row]) -> bytes:
    return sealed(key, zlib.compress(_encode(Run(hive, [tuple(row) for row in rows])), 3))


def opened_run(key: PeerKey, hive: str, data: bytes) -> list[Row]:
    """Raises Forged: altered, or not of this hive's log."""
    try:
        run = _decode(zlib.decompress(unsealed(key, data)))
        rows = [Row(*row) for row in run.rows]
    except (zlib.error, msgspec.MsgspecError, TypeError) as error:
        raise Forged(f"a run of rows cannot be read: {error}") from error
    if run.hive != hive:
        raise Forged("a run of rows is of another hive")
    return rows


class Held(msgspec.Struct, frozen=True):
    """One message of the stream, by its headers."""

    first: Seq
    last: Seq
    hash: str
    erasure: Seq
    place: int
    """In the stream."""


class Behind(Exception):
    """The replica has events that this log has not: an older copy of the log was put in its place."""


class Shipper:
    """Asks the stream where it stands and goes on from there; has no state of its own."""

    def __init__(self, client: Client, hive: str, key: HiveKey, reader: LogReader, journal: Journal):
        self._client = client
        self._js = client.jetstream()
        self._hive = hive
        self._key = key
        self._reader = reader
        self._journal = journal
        self._wake = asyncio.Event()
        self.erased: Seq = 0
        """The newest finished erasure that the stream follows."""
        self._erasure: Seq = 0
        """The newest finished erasure before the rows that are sent were read."""
        self._shape: tuple[int, int] | None = None
        """Number of messages and last position in the stream, as this run left it."""
        self.shipped: Seq = 0
        """The newest event that is in the stream."""
        self.problem: str | None = None

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._ship()
            except Behind as error:
                self.problem = str(error)
                log.error("swarm.log_is_behind_its_replica", error=str(error))  # noqa: TRY400
                await asyncio.sleep(READER_IDLE_S)
            except CONNECTION_ERRORS as error:
                self.problem = f"The NATS servers store nothing: {str(error) or type(error).__name__}"
                log.info("swarm.shipper_waits", error=str(error))
                await asyncio.sleep(PAUSE_S)

    async def _ship(self) -> None:
        stream = subjects.log_stream(self._hive)
        await ensure_stream(
            self._js,
            name=stream,
            subjects=[subjects.log(self._hive)],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
        )
        self._shape = await self._shape_now(stream)
        held = await self._held(stream)
        self.shipped = self._checked(held)
        self.erased = await self._newest_erasure()
        await self._fill_gaps(held)
        await self._forget(stream, held)
        self.problem = None
        while True:
            self._wake.clear()
            if (newest := await self._newest_erasure()) > self.erased:
                await self._forget(stream, await self._held(stream))
                self.erased = newest
            await self._send(self.shipped + 1, self._reader.head().seq)
            try:
                await asyncio.wait_for(self._wake.wait(), GAP_CHECK_S)
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                if await self._shape_now(stream) != self._shape:
                    return  # Something was lost, or another wrote: look where it stands.

    async def _held(self, stream: str) -> list[Held]:
        """What is in the stream, by position in the log."""
        found = [_headers(message) async for message in _messages(self._client, stream, headers_only=True)]
        return sorted(found, key=lambda one: (one.first, one.last))

    async def _newest_erasure(self) -> Seq:
        return await self._journal.read(lambda hive: max(hive.erasures.done.rows, default=0))

    async def _forget(self, stream: str, held: list[Held]) -> None:
        """Replace the messages with texts that were erased since; the server overwrites the old ones."""
        done = await self._journal.read(lambda hive: list(hive.erasures.done))
        for one in held:
            rows = [row for erasure in done if erasure.seq > one.erasure for row in erasure.rows]
            if any(first <= one.last and last >= one.first for first, last in rows):
                await self._send(one.first, one.last)
                await self._js.delete_msg(stream, one.place)
                log.info("swarm.replica_erased", first=one.first, last=one.last)
        self._shape = await self._shape_now(stream)

    def _checked(self, held: list[Held]) -> Seq:
        """The newest event in the stream. Raises Behind: it is none of this log's."""
        newest = max(held, key=lambda one: one.last, default=None)
        seq, hash_ = (0, "") if newest is None else (newest.last, newest.hash)
        known = self._reader.hash_at(seq)
        if seq and (known is None or known.hex() != hash_):
            raise Behind(
                f"The replica of {self._hive} has event {seq}, which this log has not: an older copy of the log is in"
                f" its place. Rebuild it with: hive swarm restore {self._hive} --out NEW"
            )
        return seq

    async def _send(self, first: Seq, last: Seq) -> None:
        self._erasure = await self._newest_erasure()
        rows: list[Row] = []
        size = 0
        for row in self._reader.rows(first, last) if first <= last else ():
            if rows and (len(rows) == RUN_ROWS or size + len(row.data) > RUN_BYTES):
                await self._publish(rows)
                rows, size = [], 0
            rows.append(row)
            size += len(row.data)
        if rows:
            await self._publish(rows)

    async def _publish(self, rows: list[Row]) -> None:
        first, last = rows[0], rows[-1]
        headers = {
            FIRST: str(first.seq),
            LAST: str(last.seq),
            HASH: last.hash.hex(),
            ERASURE: str(self._erasure),
        }
        data = sealed_run(self._key, self._hive, rows)
        done = await self._js.publish(subjects.log(self._hive), data, headers=headers)
        messages = 1 if self._shape is None else self._shape[0] + 1
        self._shape = (messages, done.seq)
        self.shipped = max(self.shipped, last.seq)

    async def _fill_gaps(self, held: list[Held]) -> None:
        """Send again what the stream has lost before its end."""
        expected = 1
        for one in held:
            if one.first > expected:
                log.info("swarm.replica_gap", first=expected, last=one.first - 1)
                await self._send(expected, one.first - 1)
            expected = max(expected, one.last + 1)

    async def _shape_now(self, stream: str) -> tuple[int, int]:
        state = (await self._js.stream_info(stream)).state
        return state.messages, state.last_seq


def _headers(message: Msg) -> Held:
    headers = message.headers or {}
    return Held(
        int(headers[FIRST]),
        int(headers[LAST]),
        headers[HASH],
        int(headers.get(ERASURE, 0)),
        message.metadata.sequence.stream,
    )


async def _messages(client: Client, stream: str, *, headers_only: bool) -> AsyncIterator[Msg]:
    """Every message of a stream, oldest first."""
    js = client.jetstream()
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.NONE,
        headers_only=headers_only,
        inactive_threshold=READER_IDLE_S,
        mem_storage=True,
        num_replicas=1,
    )
    consumer = await js.add_consumer(stream, config)
    left = consumer.num_pending or 0
    puller = Puller(client, stream, consumer.name)
    try:
        while left > 0:
            found = await puller.batch(END_OF_STREAM_S)
            if not found:
                raise NatsError(f"nats: {stream} ended {left} messages early")
            for message in found:
                yield message
            left -= len(found)
    finally:
        await puller.close()


async def read(client: Client, hive: str, key: PeerKey) -> list[Row]:
    """The rows of a hive's log in the swarm, in order, each signed by it.

    Raises:
        NotFound: no replica. Forged: it is not that hive's. CorruptState: it has a gap, or two rows for one position.
    """
    rows: dict[Seq, Row] = {}
    try:
        async for message in _messages(client, subjects.log_stream(hive), headers_only=False):
            for row in opened_run(key, hive, message.data):
                known = rows.get(row.seq)
                if known is not None and known.hash != row.hash:
                    raise CorruptState(f"The replica of {hive} holds two different events {row.seq}.")
                if known is None or row.salt is None:  # The erased form of a row has the same hash.
                    rows[row.seq] = row
    except NotFoundError as error:
        raise NotFound(f"There is no replica of {hive} on these servers.") from error
    if not rows:
        raise NotFound(f"The replica of {hive} is empty.")
    missing = next((seq for seq in range(1, max(rows) + 1) if seq not in rows), None)
    if missing is not None:
        raise CorruptState(f"The replica of {hive} lacks event {missing}; its hive fills the gap when it is connected.")
    return [rows[seq] for seq in range(1, max(rows) + 1)]
