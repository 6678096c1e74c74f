"""The complete state: all projections at one position. Used by deciders and screens."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from hive.events.base import Seq
from hive.events.codec import Codec
from hive.events.log import GENESIS, Row
from hive.projections.agents import Agents
from hive.projections.approvals import Approvals
from hive.projections.disk import Disk
from hive.projections.egress import Egress
from hive.projections.erasures import Erasures
from hive.projections.ids import Ids
from hive.projections.messages import Messages
from hive.projections.notifications import Notifications
from hive.projections.operators import Operators
from hive.projections.questions import Questions
from hive.projections.reminders import Reminders
from hive.projections.swarm import Swarm
from hive.projections.table import Projection, Recorded
from hive.projections.transient import Transient
from hive.projections.turns import Turns
from hive.projections.usage import Usage

Handler = Callable[[Any, Recorded], None]


class Hive:
    """All projections at one position of the log. Not thread-safe: one thread folds and returns frozen rows."""

    def __init__(self) -> None:
        self.ids = Ids()
        self.agents = Agents()
        self.messages = Messages()
        self.questions = Questions()
        self.approvals = Approvals()
        self.reminders = Reminders()
        self.transient = Transient()
        self.turns = Turns()
        self.usage = Usage()
        self.egress = Egress()
        self.operators = Operators()
        self.notifications = Notifications()
        self.swarm = Swarm()
        self.erasures = Erasures()
        self.disk = Disk()
        self.seq: Seq = 0
        """The newest folded event."""
        self._handlers = dispatch(self.projections())

    def projections(self) -> list[Projection]:
        """Every projection, in a fixed order."""
        return [value for value in vars(self).values() if isinstance(value, Projection)]

    def evolve(self, recorded: Recorded) -> None:
        """Fold one event. Never refuses."""
        for handler in self._handlers.get(type(recorded.event), ()):
            handler(recorded.event, recorded)
        self.seq = recorded.seq


def dispatch(projections: Iterable[Projection]) -> dict[type, tuple[Handler, ...]]:
    """The handlers of all projections by event class; a dict lookup is fast enough for the fold."""
    table: dict[type, list[Handler]] = {}
    for projection in projections:
        for event_type, handler in projection.handlers().items():
            table.setdefault(event_type, []).append(handler)
    return {event_type: tuple(handlers) for event_type, handlers in table.items()}


def recorded(row: Row, codec: Codec) -> Recorded:
    """A row of the log, decoded."""
    return Recorded(row.seq, row.at, row.by, codec.decode(row.type, row.data))


def fold(rows: Iterable[Row], codec: Codec) -> tuple[Hive, bytes]:
    """The state after these rows and the chain's hash there."""
    hive, last = Hive(), GENESIS
    for row in rows:
        hive.evolve(recorded(row, codec))
        last = row.hash
    return hive, last


def digest(projection: Projection) -> str:
    """SHA-256 over a projection's rows in key order: equal states have equal digests."""
    sha = hashlib.sha256(f"{projection.NAME} {projection.VERSION}\n".encode())
    encode = msgspec.json.Encoder(order="sorted").encode
    for table in projection.tables():
        sha.update(f"{table.name}\n".encode())
        for key in sorted(table.rows):
            sha.update(encode(table.rows[key]) + b"\n")
    return sha.hexdigest()
