"""Facts about erased texts. Written by the erasing decider; read by every projection that holds texts."""

import bisect
from typing import Literal

from hive.events.base import Event, Seq
from hive.names import AgentName

Subject = Literal["message", "question", "approval", "agent", "older_than"]
Span = tuple[int, int]
"""The first and the last of consecutive numbers."""
Spans = tuple[Span, ...]


class Erased(Event, frozen=True, kw_only=True):
    """The texts of these rows are erased. Until `ErasureFinished`, a start of the daemon continues it."""

    subject: Subject
    name: str
    """An id, an agent's name, or a time in RFC 3339."""
    why: str
    rows: Spans
    """Positions. Rows without text among them do not change."""
    messages: Spans = ()
    """Ids of the messages in these rows; so the next ones."""
    questions: Spans = ()
    answers: Spans = ()
    approvals: Spans = ()
    decisions: Spans = ()
    """Approvals whose note or error is erased."""
    reminders: Spans = ()
    statuses: tuple[AgentName, ...] = ()
    """Agents whose current status text is erased."""
    failures: tuple[AgentName, ...] = ()
    """Agents whose current failure text is erased."""
    backups: bool = False
    """The backups that hive made are replaced, too."""


class ErasureFinished(Event, frozen=True, kw_only=True):
    """No file of the state holds the texts any more."""

    of: Seq
    """The `Erased` event."""
    rows: int
    """Rows whose text was erased."""


def spans(numbers: set[int]) -> Spans:
    """The numbers as consecutive spans, in order."""
    found: list[Span] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def covers(covered: Spans, number: int) -> bool:
    """Whether one of the spans, which are in order, has the number."""
    place = bisect.bisect_right(covered, number, key=lambda span: span[0])
    return place > 0 and covered[place - 1][1] >= number
