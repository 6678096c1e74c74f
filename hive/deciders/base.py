"""The base of all rules: commands, decisions, and checks of texts and names."""

from typing import Any, NamedTuple

import msgspec

from hive.clock import TimeMs
from hive.errors import BadRequest, NotFound
from hive.events import AnyEvent
from hive.events.base import By, MessageId
from hive.events.messages import MessageSent
from hive.events.notices import Notice, body
from hive.names import AT, OPERATOR, SYSTEM, AgentName, address, is_agent_name
from hive.projections.agents import Agent
from hive.projections.hive import Hive

TEXT_MAX_BYTES = 256 * 1024
"""Maximum size of a message body."""
QUESTION_MAX_BYTES = 16 * 1024
"""Maximum size of a question, answer, reminder or description; thousands are kept in memory."""
LABEL_MAX_CHARS = 500
"""Maximum length of an option, status or note."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all commands. Rules are pure: no clock, no I/O, no randomness."""

    by: By


class Answered(NamedTuple):
    """A decision with an explicit answer.

    If the answer is a HiveError, the command is refused but the events are still written.
    """

    events: list[AnyEvent]
    answer: Any = None


Decision = list[AnyEvent] | Answered


class DecisionBuilder:
    """Collects the events of one decision and numbers its messages."""

    def __init__(self, hive: Hive, now: TimeMs):
        self.hive = hive
        self.now = now
        self.events: list[AnyEvent] = []
        self._next_message = hive.messages.next_id()

    def add(self, *events: AnyEvent) -> None:
        self.events += events

    def send(
        self,
        sender: str,
        to: str,
        text: str,
        in_reply_to: MessageId | None = None,
        origin_id: MessageId | None = None,
    ) -> MessageId:
        """Add a message without checking limits: consequences of a decision must not fail."""
        id = self._next_message
        self._next_message = MessageId(id + 1)
        self.events.append(
            MessageSent(id=id, sender=sender, to=to, body=text, in_reply_to=in_reply_to, origin_id=origin_id)
        )
        return id

    def tell(self, to: str, notice: Notice) -> MessageId:
        """Add a message from `system`."""
        return self.send(SYSTEM, to, body(notice))


def checked_text(text: str, what: str, max_bytes: int = QUESTION_MAX_BYTES) -> str:
    """Raises BadRequest for an empty or oversized text."""
    if not text.strip():
        raise BadRequest(f"The {what} is empty.")
    if len(text) * 4 > max_bytes and len(text.encode(errors="surrogatepass")) > max_bytes:
        raise BadRequest(f"The {what} is over {max_bytes} bytes; put it into a file and send its path.")
    return text


def checked_label(text: str, what: str) -> str:
    """Raises BadRequest for a text that is too long for one line."""
    if len(text) > LABEL_MAX_CHARS:
        raise BadRequest(f"The {what} is over {LABEL_MAX_CHARS} characters; make it shorter.")
    return text


def checked_name(name: str) -> AgentName:
    """Raises BadRequest for an invalid agent name."""
    if not is_agent_name(name):
        raise BadRequest(
            f"{name!r} is not a valid agent name. Use 1 to 32 of a-z, 0-9 and -, not starting with -,"
            " and not `operator` or `system`."
        )
    return name


def living(hive: Hive, name: str) -> Agent:
    """The agent of this name.

    Raises:
        NotFound: unknown, or a tombstone.
    """
    row = hive.agents.living_one(name)
    if row is None:
        raise NotFound(f'agent "{name}" is not managed by this hive')
    return row


def local(hive: Hive, to: str) -> str:
    """Where a recipient is: `coder@berlin` is `coder` in berlin itself, and `coder` may have moved to a peer."""
    if AT not in to and to not in hive.swarm.moves.rows and to not in hive.swarm.moved.rows:
        return to
    name, where = address(to)
    if where is not None and where != hive.swarm.name:
        return to
    move, left = hive.swarm.moves.get(name), hive.swarm.moved.get(name)
    if move is not None and move.sent:
        return f"{name}@{move.hive}"
    return f"{name}@{left.hive}" if left is not None and hive.agents.living_one(name) is None else name


def check_peer(hive: Hive, to: str) -> None:
    """The recipient is an agent or the operator of a known hive.

    Raises:
        NotFound: no such peer. BadRequest: not a name.
    """
    name, where = address(to)
    if hive.swarm.name is None:
        raise NotFound(f"{to} is in another hive, but this hive is in no swarm. Run: hive swarm init NAME --server URL")
    if where is None or not hive.swarm.peer(where).trusted:
        known = ", ".join(sorted(row.hive for row in hive.swarm.peers if row.trusted)) or "none"
        raise NotFound(f'hive "{where}" is not a peer of this hive; peers: {known}')
    if not is_agent_name(name) and name != OPERATOR:
        raise BadRequest(f"{name!r} is not the name of an agent. An address is AGENT@HIVE or operator@HIVE.")


def reachable(hive: Hive, name: str) -> bool:
    """Whether a notice can be sent to this sender or asker: a living agent here, or a peer's agent."""
    _, where = address(name)
    return hive.agents.living_one(name) is not None if where is None else hive.swarm.peer(where).trusted
