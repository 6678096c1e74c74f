"""Asks another hive for something that is needed now, and answers others: the diff of an approval. Nothing is recorded.

An answer that does not come is asked for again by whoever needs it; so this has no receipts and no numbers.
"""

import asyncio
import secrets
import zlib
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from hive.config.proposals import Proposals
from hive.errors import HiveError, NotFound, Refused, Unavailable
from hive.events.base import ApprovalId
from hive.projections.hive import Hive
from hive.swarm import subjects
from hive.swarm.connection import Journal
from hive.swarm.envelope import Forged, sealed, unsealed
from hive.swarm.keys import HiveKey, PeerKey

log = structlog.get_logger()

ANSWER_TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 4
"""Answers under way; a further request is dropped, and asked again."""
TEXT_MAX_CHARS: Final = 500_000
"""Of a diff; below the payload limit of a NATS server as it comes."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ask"):
    """An operator of the sender wants to see the diff of an approval."""

    sender: str = msgspec.field(name="from")
    to: str
    nonce: str
    operator: str
    approval: ApprovalId


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="told"):
    """The answer, or a refusal."""

    sender: str = msgspec.field(name="from")
    to: str
    nonce: str
    reply: dict[str, Any] | None = None
    error: str | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Ask | Told).decode


class Asking:
    """One for all peers."""

    def __init__(
        self,
        client: Client,
        hive: str,
        key: HiveKey,
        peers: dict[str, PeerKey],
        journal: Journal,
        proposals: Proposals,
    ):
        self._client = client
        self._hive = hive
        self._key = key
        self._peers = peers
        self._journal = journal
        self._proposals = proposals
        self._waiting: dict[str, asyncio.Future[Told]] = {}
        """By nonce."""
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._client.subscribe(subjects.ask(self._hive, "*"), cb=self._on_message)
        await self._client.subscribe(subjects.told(self._hive, "*"), cb=self._on_message)
        try:
            await asyncio.Event().wait()
        finally:
            for task in self._answering:
                task.cancel()

    async def diff(self, hive: str, approval: ApprovalId, operator: str) -> dict[str, Any]:
        """The diff of an approval of a peer.

        Raises:
            Refused: it does not show it. Unavailable: no answer in time.
        """
        if hive not in self._peers:
            raise NotFound(f'hive "{hive}" is not a peer of this hive')
        nonce = secrets.token_hex(16)
        ask = Ask(sender=self._hive, to=hive, nonce=nonce, operator=operator, approval=approval)
        self._waiting[nonce] = asyncio.get_running_loop().create_future()
        try:
            await self._client.publish(subjects.ask(hive, self._hive), sealed(self._key, zlib.compress(_encode(ask))))
            told = await asyncio.wait_for(self._waiting[nonce], ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            raise Unavailable(f"{hive} does not answer. Try again when it is connected.") from error
        finally:
            del self._waiting[nonce]
        if told.reply is None:
            raise Refused(f"{hive}: {told.error}")
        return told.reply

    async def _on_message(self, message: Msg) -> None:
        sender = message.subject.rpartition(".")[2]
        try:
            wire = _decode(zlib.decompress(unsealed(self._peers[sender], message.data)))
        except (KeyError, Forged, zlib.error, msgspec.MsgspecError) as error:
            log.warning("swarm.question_refused", peer=sender, error=str(error))
            return
        if wire.sender != sender or wire.to != self._hive:
            log.warning("swarm.question_refused", peer=sender, error="it is of or for another hive")
        elif isinstance(wire, Told):
            waiting = self._waiting.get(wire.nonce)
            if waiting is not None and not waiting.done():
                waiting.set_result(wire)
        elif len(self._answering) < AT_ONCE:
            task = asyncio.create_task(self._answer(wire))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, ask: Ask) -> None:
        reply, refusal = None, None
        try:
            reply = await self._diff(ask)
        except (HiveError, OSError) as error:
            refusal = str(error)
        told = Told(sender=self._hive, to=ask.sender, nonce=ask.nonce, reply=reply, error=refusal)
        data = sealed(self._key, zlib.compress(_encode(told)))
        await self._client.publish(subjects.told(ask.sender, self._hive), data)

    async def _diff(self, ask: Ask) -> dict[str, Any]:
        """Raises HiveError: the operator may not decide here, or there is no such approval."""

        def read(hive: Hive) -> tuple[tuple[str, ...], Any]:
            return hive.swarm.peer(ask.sender).operators, hive.approvals.all.get(ask.approval)

        operators, row = await self._journal.read(read)
        if ask.operator not in operators:
            raise Refused(f"{ask.operator[:40]!r} of {ask.sender} may not decide here, and sees no diff.")
        if row is None:
            raise NotFound(f"There is no approval {ask.approval}.")
        if row.fetched_sha is None:
            return {"id": row.id, "agent": row.agent, "diff": ""}
        found = await asyncio.to_thread(self._proposals.diff, row.agent, row.fetched_sha)
        is_cut = found.cut or len(found.text) > TEXT_MAX_CHARS
        text = found.text[:TEXT_MAX_CHARS]
        if is_cut:
            text += "\n(The diff is longer; the rest is not shown.)\n"
        reply = {"id": row.id, "agent": row.agent, "diff": text, "base": found.base, "sha": found.sha}
        return {**reply, "cut": is_cut, "stale": found.stale}
