"""Facts about questions. Written by the question deciders; read by the questions projection and the watchdog."""

from hive.clock import TimeMs
from hive.events.base import Event, QuestionId
from hive.names import AgentName


class QuestionAdded(Event, frozen=True, kw_only=True):
    """An agent asked the operator or a peer."""

    id: QuestionId
    asker: AgentName
    target: AgentName | None
    """The peer asked, or None for the operator; always written."""
    question: str
    options: tuple[str, ...] = ()
    multi: bool = False
    deadline_ms: TimeMs | None = None
    """When the watchdog answers `[expired]`; None waits for ever."""


class QuestionResolved(Event, frozen=True, kw_only=True):
    """The one resolution a question has; its asker was told in the same commit."""

    id: QuestionId
    asker: AgentName
    target: AgentName | None
    answer: str
    """`[expired]` and `[cancelled]` are answers too."""
    answerer: str
    """`operator`, an agent, `watchdog`, or `system` when an agent in it was destroyed."""
