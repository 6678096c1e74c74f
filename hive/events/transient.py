"""Facts about what an agent is in the middle of. Written for the TransientGuard; read by the transient projection."""

from typing import Literal

from hive.events.base import Event
from hive.names import AgentName

TransientKind = Literal["spawning", "starting", "stopping", "restarting", "rebuilding", "destroying", "migrating"]


class TransientSet(Event, frozen=True, kw_only=True):
    """A guard began to hold the state."""

    agent: AgentName
    kind: TransientKind


class TransientCleared(Event, frozen=True, kw_only=True):
    """The guard let go, for whatever reason."""

    agent: AgentName
    kind: TransientKind
