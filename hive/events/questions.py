"""Facts about questions. Written by the question deciders; read by the questions projection and the watchdog."""

from hive.clock import TimeMs
from hive.events.base import Event, QuestionId
from hive.names import AgentName


class QuestionAdded(Event, frozen=True, kw_only=True):
    """An agent asked the operator or a peer."""

    id: QuestionId
    asker: AgentName
    target: AgentName | None
    """The peer that is asked, or None for the operator; always written."""
    question: str
    options: tuple[str, ...] = ()
    multi: bool = False
    deadline_ms: TimeMs | None = None
    """When the watchdog answers `[expired]`; None means no deadline."""
    origin_id: QuestionId | None = None
    """For a question from another hive: its id there. That hive keeps the deadline."""


class QuestionResolved(Event, frozen=True, kw_only=True):
    """The only resolution of a question; the same commit tells the asker."""

    id: QuestionId
    asker: AgentName
    target: AgentName | None
    answer: str
    """Also `[expired]` and `[cancelled]`."""
    answerer: str
    """`operator`, an agent, `watchdog`, or `system` if the asker or target was destroyed."""
