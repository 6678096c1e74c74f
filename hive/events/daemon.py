"""Facts about the daemon and the log itself. Written by the journal and the supervisor."""

from hive.events.base import Event, Seq


class Booted(Event, frozen=True, kw_only=True):
    """A daemon took over the log; whatever was transient is over."""

    hive_version: str
    runtime: str


class ShutDown(Event, frozen=True, kw_only=True):
    """The daemon ended by request."""

    keep_agents: bool = False


class CommandKeyed(Event, frozen=True, kw_only=True):
    """A command came with an idempotency key: the same key again is answered with these events."""

    key: str
    """The caller and its key."""
    first_seq: Seq
    count: int


class Warned(Event, frozen=True, kw_only=True):
    """A part of the daemon could not do something that blocks nothing; a person may want to know."""

    source: str
    text: str
