"""Reads the envelopes to this hive: checks each signature, has the journal decide, sends the receipt, acknowledges."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType

from hive.config.proposals import Proposals
from hive.deciders.swarm import ACCEPTED, GAP, SEEN, Receive, RefuseEnvelope, TakeReceipt
from hive.errors import HiveError
from hive.events import envelopes
from hive.events.base import ApprovalId, By, actor
from hive.names import is_hive_name
from hive.swarm import subjects
from hive.swarm.connection import CONNECTION_ERRORS, Journal, Puller, ensure_stream
from hive.swarm.envelope import Envelope, Forged, Receipt, Wire, opened, seal
from hive.swarm.keys import HiveKey, PeerKey
from hive.swarm.outbox import Outbox

log = structlog.get_logger()

BY: Final = actor("swarm")
ACK_WAIT_S: Final = 30
KEPT_S: Final = 7 * 24 * 3_600
"""How long a stream keeps an envelope that its hive does not read; its sender still owes it then."""
DIGESTS_KEPT: Final = 4_096
"""Envelopes of which a copy shows as a replay."""
REFUSALS_EVERY_S: Final = 60.0
"""One event for each sender and reason: who floods the inbox must not flood the log."""
REFUSALS_KEPT: Final = 200
PAUSE_S: Final = 1.0


class Inbox:
    """Every step may be killed and repeated: what was decided before is seen again, and receipted again."""

    def __init__(
        self,
        client: Client,
        hive: str,
        key: HiveKey,
        peers: dict[str, PeerKey],
        journal: Journal,
        outbox: Outbox,
        proposals: Proposals,
        drained: Callable[[], None],
    ):
        self._client = client
        self._js = client.jetstream()
        self._hive = hive
        self._key = key
        self._peers = peers
        self._journal = journal
        self._outbox = outbox
        self._proposals = proposals
        self._drained = drained
        self._digests: OrderedDict[bytes, int] = OrderedDict()
        """Stream positions by digest of the bytes."""
        self._refused: dict[tuple[str, str], tuple[float, int]] = {}
        """When a refusal was recorded, and how many came since."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._read()
            except CONNECTION_ERRORS as error:
                log.info("swarm.inbox_waits", error=str(error))
                await asyncio.sleep(PAUSE_S)

    async def _read(self) -> None:
        stream = subjects.inbox_stream(self._hive)
        await ensure_stream(
            self._js,
            name=stream,
            subjects=[subjects.inbox_subjects(self._hive)],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            max_age=KEPT_S,
        )
        await self._js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name=subjects.INBOX_CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S,
                max_ack_pending=5_000,
            ),
        )
        info = await self._js.consumer_info(stream, subjects.INBOX_CONSUMER)
        left = (info.num_pending or 0) + (info.num_ack_pending or 0)
        if left == 0:
            self._drained()
        await self._tell_all_where_this_hive_stands()
        puller = Puller(self._client, stream, subjects.INBOX_CONSUMER)
        try:
            while True:
                if messages := await puller.batch():
                    await self._take(messages)
                    left -= len(messages)
                    if left <= 0:
                        self._drained()
                else:
                    await self._js.stream_info(stream)  # Raises when it was deleted.
                await self._record_refusals()
        finally:
            await puller.close()

    async def _tell_all_where_this_hive_stands(self) -> None:
        """Whoever owes something sends it at once, instead of when its patience ends."""
        rows = await self._journal.read(lambda hive: {name: hive.swarm.peer(name).received for name in self._peers})
        for peer, received in rows.items():
            await self._send_receipt(peer, received, gap=True)

    async def _take(self, messages: list[Msg]) -> None:
        receipts: dict[str, Receipt] = {}
        received: list[tuple[Msg, Envelope]] = []
        for message in messages:
            wire = self._opened(message)
            if isinstance(wire, Receipt):
                receipts[wire.sender] = _newer(receipts.get(wire.sender), wire)
            elif wire is not None:
                received.append((message, wire))
        for peer, receipt in receipts.items():
            await self._journal.ask(TakeReceipt(by=BY, peer=peer, number=receipt.received))
            self._outbox.receipted(peer, receipt.received, gap=receipt.gap)
        commands = [await self._checked(_command(wire)) for _, wire in received]
        outcomes = await asyncio.gather(*(self._journal.ask(one) for one in commands), return_exceptions=True)
        peers: dict[str, bool] = {}
        for (message, wire), outcome in zip(received, outcomes, strict=True):
            if isinstance(outcome, HiveError):
                self._refuse(wire.sender, str(outcome))
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            peers[wire.sender] = peers.get(wire.sender, False) or outcome.answer == GAP
            self._look_for_replay(message, wire, outcome.answer)
        rows = await self._journal.read(lambda hive: {name: hive.swarm.peer(name).received for name in peers})
        for peer, gap in peers.items():
            await self._send_receipt(peer, rows[peer], gap=gap)
        for message in messages:
            await self._client.publish(message.reply, b"+ACK")

    async def _checked(self, command: Receive) -> Receive:
        """An approval of a commit is checked against the repository, as one that is made here."""
        verdict = command.payload
        if not isinstance(verdict, envelopes.Decision) or verdict.verdict != "approve":
            return command
        id = ApprovalId(verdict.subject)
        if (commit := await self._journal.read(lambda hive: hive.approvals.pending_commit(id))) is None:
            return command
        agent, pinned = commit
        try:
            await asyncio.to_thread(self._proposals.check_approvable, agent, id, pinned)
        except (HiveError, OSError) as error:
            return msgspec.structs.replace(command, refusal=str(error))
        return command

    def _opened(self, message: Msg) -> Wire | None:
        sender = message.subject.rpartition(".")[2]
        if not is_hive_name(sender):
            sender = "?"
        peer = self._peers.get(sender)
        if peer is None:
            self._refuse(sender, "it is not a peer of this hive")
            return None
        try:
            return opened(message.data, peer, sender, self._hive)
        except Forged as error:
            self._refuse(sender, str(error))
            return None

    def _look_for_replay(self, message: Msg, wire: Envelope, answer: str) -> None:
        """A sender marks what it sends again; a copy without that mark, or of the same bytes, is a replay."""
        digest, position = hashlib.sha256(message.data).digest(), message.metadata.sequence.stream
        known = self._digests.get(digest)
        self._digests[digest] = position
        if len(self._digests) > DIGESTS_KEPT:
            self._digests.popitem(last=False)
        is_copy = known is not None and known != position
        is_first = message.metadata.num_delivered == 1 and wire.attempt == 0
        if answer == SEEN and (is_copy or is_first):
            self._refuse(wire.sender, "it is a replay of one that was accepted before")
        elif answer != ACCEPTED and known is None:
            del self._digests[digest]

    def _refuse(self, peer: str, reason: str) -> None:
        log.warning("swarm.envelope_refused", peer=peer, reason=reason)
        if (peer, reason) in self._refused or len(self._refused) < REFUSALS_KEPT:
            recorded, count = self._refused.get((peer, reason), (0.0, 0))
            self._refused[peer, reason] = (recorded, count + 1)

    async def _record_refusals(self) -> None:
        now = time.monotonic()
        for (peer, reason), (recorded, count) in list(self._refused.items()):
            if count and (recorded == 0 or now - recorded > REFUSALS_EVERY_S):
                await self._journal.ask(RefuseEnvelope(by=BY, peer=peer, reason=reason, count=count))
                self._refused[peer, reason] = (now, 0)
            elif not count and now - recorded > REFUSALS_EVERY_S:
                del self._refused[peer, reason]

    async def _send_receipt(self, peer: str, received: int, *, gap: bool) -> None:
        receipt = Receipt(sender=self._hive, to=peer, received=received, gap=gap)
        await self._client.publish(subjects.envelope(peer, self._hive), seal(self._key, receipt))


def _newer(known: Receipt | None, receipt: Receipt) -> Receipt:
    return receipt if known is None or receipt.received >= known.received else known


def _command(wire: Envelope) -> Receive:
    """A decision is recorded as made by its operator; whether that one may decide is the rule's to say."""
    by = BY
    if isinstance(wire.payload, envelopes.Decision):
        by = By("operator", f"{wire.payload.operator}@{wire.sender}", way="swarm")
    return Receive(by=by, peer=wire.sender, number=wire.number, base=wire.base, payload=wire.payload)
