"""Facts about transient states. Written for the TransientGuard; read by the transient projection."""

from typing import Literal

from hive.events.base import Event
from hive.names import AgentName

TransientKind = Literal["spawning", "starting", "stopping", "restarting", "rebuilding", "destroying", "migrating"]


class TransientSet(Event, frozen=True, kw_only=True):
    """A guard entered the state."""

    agent: AgentName
    kind: TransientKind


class TransientCleared(Event, frozen=True, kw_only=True):
    """The guard left the state, for any reason."""

    agent: AgentName
    kind: TransientKind
