"""What the journal's clients send to it, and what they get."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from hive.deciders.base import Command
from hive.events import AnyEvent
from hive.events.base import Seq
from hive.projections.hive import Hive

KEY_MAX_CHARS: Final = 64
"""Maximum length of an idempotency key."""


class Decided(msgspec.Struct, frozen=True):
    """The durable result of a command."""

    events: tuple[AnyEvent, ...]
    seq: Seq
    """Position of the first event; the log's head if there is none."""
    answer: Any = None

    def first(self) -> Any:
        """The first event. For a command that creates something, it has the new id."""
        return self.events[0]


class JournalClient(Protocol):
    """Delivers answers to callers on their own thread."""

    def deliver(self, answers: list[tuple[Any, Any]]) -> None:
        """Deliver the (ticket, outcome) pairs of one batch. An exception is raised in the caller."""
        ...


class Submission(msgspec.Struct, frozen=True, gc=False):
    """A command and the ticket for its answer."""

    command: Command
    ticket: Any
    key: str | None = None
    """Idempotency key: a repeated key of the same caller gets the first answer."""


class Submit(msgspec.Struct, frozen=True, gc=False):
    """Message: decide these commands in order."""

    client: JournalClient
    submissions: list[Submission]


class Read(msgspec.Struct, frozen=True, gc=False):
    """Message: call `query` with the committed state. It must return frozen rows or copies."""

    client: JournalClient
    query: Callable[[Hive], Any]
    ticket: Any


class Adopt(msgspec.Struct, frozen=True, gc=False):
    """Message: adopt the file of a finished rebuild. The answer is its position."""

    client: JournalClient
    ticket: Any
