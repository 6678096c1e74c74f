"""Facts about the daemon and the log itself. Written by the journal and the supervisor."""

from hive.events.base import Event, Seq


class Booted(Event, frozen=True, kw_only=True):
    """A daemon started. All transient states end here."""

    hive_version: str
    runtime: str


class ShutDown(Event, frozen=True, kw_only=True):
    """The daemon stopped on request."""

    keep_agents: bool = False


class LogCarriedOver(Event, frozen=True, kw_only=True):
    """The events before this one were imported from a log of an older schema; that file is kept beside the log."""

    schema: int
    events: Seq
    head: str
    """Hash of the last event in the old log, hex."""


class DiskLow(Event, frozen=True, kw_only=True):
    """The disk has less room than agents must leave. Their requests are refused until there is more."""

    free_mb: int
    floor_mb: int
    """`limits.free_mb`, or its default."""


class DiskFreed(Event, frozen=True, kw_only=True):
    """There is room again."""

    free_mb: int


class CommandKeyed(Event, frozen=True, kw_only=True):
    """A command had an idempotency key. A command with the same key gets these events as its answer."""

    key: str
    """The caller and its key, separated by a space."""
    first_seq: Seq
    count: int
    digest: str | None = None
    """Of the command, 32 bits in hex: tells another request with the same key. Too short to recover an erased text."""


class Warned(Event, frozen=True, kw_only=True):
    """A component failed at something that blocks nothing; shown to the operator."""

    source: str
    text: str
