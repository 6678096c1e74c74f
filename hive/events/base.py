"""The base class of events, their id types, and who can cause an event."""

import functools
from typing import ClassVar, Literal, NewType

import msgspec

from hive.names import AgentName

MessageId = NewType("MessageId", int)
QuestionId = NewType("QuestionId", int)
ApprovalId = NewType("ApprovalId", int)
ReminderId = NewType("ReminderId", int)
Seq = int
"""Position in the log, from 1, without gaps."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the closed union. The class name is the type in the log; fields with default values are not written."""

    version: ClassVar[int] = 1
    """Increased when defaults cannot express a change of the stored fields; see `codec.UPCASTS`."""


class By(msgspec.Struct, frozen=True, cache_hash=True):
    """The cause of an event."""

    kind: Literal["operator", "agent", "actor"]
    name: str
    """The operator's name, the agent's, or the actor's."""
    uid: int | None = None
    """The host user behind an operator (SO_PEERCRED)."""
    way: str | None = None
    """How an operator connected: `host` (the socket) or `dashboard`."""

    def __str__(self) -> str:
        """`agent:coder`, `operator:mara uid=1000 way=dashboard`; the `by` column of the log."""
        return _written(self)


@functools.lru_cache(maxsize=1024)
def _written(by: By) -> str:
    uid = "" if by.uid is None else f" uid={by.uid}"
    way = "" if by.way is None else f" way={by.way}"
    return f"{by.kind}:{by.name}{uid}{way}"


@functools.lru_cache(maxsize=1024)
def agent(name: AgentName) -> By:
    """An agent, identified by its socket."""
    return By("agent", name)


def actor(name: str) -> By:
    """A component of the daemon."""
    return By("actor", name)
