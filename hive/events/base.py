"""What every event is: a frozen, past-tense fact. Knows who can cause one."""

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
    """Base of the closed union. Its type in the log is the class name; a field that has its default is not written."""

    version: ClassVar[int] = 1
    """Raised when the stored shape changes in a way that defaults cannot bridge; see `codec.UPCASTS`."""


class By(msgspec.Struct, frozen=True):
    """Who caused an event."""

    kind: Literal["operator", "agent", "actor"]
    name: str
    """The operator's name, the agent's, or the actor's."""
    uid: int | None = None
    """The host user behind an operator (SO_PEERCRED)."""
    way: str | None = None
    """How an operator came in: `host` (the socket), `dashboard`."""

    def __str__(self) -> str:
        """`agent:coder`, `operator:mara uid=1000 way=dashboard`; the `by` column of the log."""
        return _written(self)


@functools.lru_cache(maxsize=1024)
def _written(by: By) -> str:
    uid = "" if by.uid is None else f" uid={by.uid}"
    way = "" if by.way is None else f" way={by.way}"
    return f"{by.kind}:{by.name}{uid}{way}"


def agent(name: AgentName) -> By:
    """The agent who speaks on its own socket."""
    return By("agent", name)


def actor(name: str) -> By:
    """A part of the daemon acting on its own."""
    return By("actor", name)
