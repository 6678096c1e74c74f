"""Envelopes and receipts as signed bytes, and the payload that an event of the log becomes."""

from typing import Final

import msgspec

from hive.errors import Refused
from hive.events import AnyEvent, envelopes
from hive.events.base import MessageId, QuestionId
from hive.events.envelopes import AnyPayload
from hive.events.messages import MessageSent
from hive.events.moves import Adopted, AdoptionEnded, AdoptionRefused, Moved, MoveRefused, MoveSent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.swarm import DecisionAnswered, DecisionSent
from hive.names import address
from hive.projections.swarm import Outgoing
from hive.swarm.keys import SIGNATURE_BYTES, HiveKey, PeerKey

CONTEXT: Final = b"hive swarm 1\n"
"""Signed in front of the bytes, so that no other signature of the key can pass for one."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="envelope"):
    """One payload on its way. It is sent again, with a higher `attempt`, until its receipt."""

    sender: str = msgspec.field(name="from")
    to: str
    number: int
    base: int
    """The lowest number that the sender still owes."""
    attempt: int
    payload: AnyPayload


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="receipt"):
    """The sender of the receipt has committed every envelope up to a number."""

    sender: str = msgspec.field(name="from")
    to: str
    received: int
    gap: bool = False
    """An envelope came whose predecessors are missing: send them again now."""


Wire = Envelope | Receipt

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Wire).decode


class Forged(Refused):
    """What came is not from the hive that it names, or not to this one."""


def seal(key: HiveKey, wire: Wire) -> bytes:
    """The signed bytes."""
    return sealed(key, _encode(wire))


def sealed(key: HiveKey, body: bytes) -> bytes:
    """Any bytes with this hive's signature in front."""
    return key.sign(CONTEXT + body) + body


def unsealed(key: PeerKey, data: bytes) -> bytes:
    """The bytes that a hive has signed.

    Raises:
        Forged.
    """
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    if not key.verifies(signature, CONTEXT + body):
        raise Forged("its signature is wrong")
    return body


def opened(data: bytes, key: PeerKey, sender: str, to: str) -> Wire:
    """What a peer has sealed for this hive.

    Raises:
        Forged: altered, from another hive, or for another one.
    """
    try:
        wire: Wire = _decode(unsealed(key, data))
    except msgspec.MsgspecError as error:
        raise Forged(f"it cannot be read: {error}") from error
    if wire.sender != sender:
        raise Forged("it names another sender than the subject that it came on")
    if wire.to != to:
        raise Forged("it is for another hive")
    return wire


def payload(outgoing: Outgoing, event: AnyEvent) -> AnyPayload:
    """What leaves of an event that the outbox refers to."""
    match event:
        case MessageSent(id=id, sender=sender, to=to, body=body):
            reply = None if outgoing.reference is None else MessageId(outgoing.reference)
            return envelopes.Message(id=id, sender=sender, to=address(to).name, body=body, in_reply_to=reply)
        case QuestionAdded(id=id, asker=asker, question=text):
            return envelopes.Question(
                id=id,
                asker=asker,
                target=address(event.target or "").name,
                question=text,
                options=event.options,
                multi=event.multi,
                deadline_ms=event.deadline_ms,
            )
        case QuestionResolved(id=id, answer=answer, answerer=answerer):
            if outgoing.reference is None:
                return envelopes.Closed(question=id, answer=answer, answerer=address(answerer).name)
            origin = QuestionId(outgoing.reference)
            return envelopes.Answer(question=origin, answer=answer, answerer=address(answerer).name)
        case DecisionSent():
            return envelopes.Decision(id=event.id, **event.decision())
        case DecisionAnswered(decision=id, error=error):
            return envelopes.Outcome(decision=id, error=error)
        case _:
            return _about_an_agent(event)


def _about_an_agent(event: AnyEvent) -> AnyPayload:
    match event:
        case MoveSent():
            return envelopes.Move(agent=event.agent, **event.handover())
        case Adopted(agent=agent, operator=operator, until=until):
            return envelopes.Adopted(
                agent=agent, operator=operator, until=until, origin=event.origin, epoch=event.epoch
            )
        case AdoptionEnded(given_up=agents):
            return envelopes.Unclaimed(agents=agents)
        case AdoptionRefused(agent=agent, hive=hive, error=error):
            return envelopes.AdoptionRefused(
                agent=agent, hive=hive, error=error, origin=event.origin, epoch=event.epoch
            )
        case MoveRefused(agent=agent, error=error):
            return envelopes.MoveOutcome(agent=agent, error=error)
        case Moved(agent=agent):
            return envelopes.MoveOutcome(agent=agent)
        case _:
            raise AssertionError(f"a {type(event).__name__} does not leave")
