"""Given these events, when this command is decided, then these events or this refusal. Used by every rule's test."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from hive.clock import TimeMs
from hive.deciders import decide
from hive.deciders.base import Answered, Command
from hive.errors import HiveError, Refused
from hive.events import AnyEvent
from hive.events.agents import AgentAdded, Destroyed, Spawned, Started
from hive.events.base import By, MessageId, actor
from hive.events.base import agent as agent_by
from hive.events.codec import Codec
from hive.events.log import EventLog, stamp
from hive.events.messages import MessageSent, SendRefused
from hive.events.notices import Notice, body
from hive.names import MANAGER, SYSTEM
from hive.projections.hive import Hive, digest
from hive.projections.store import Store, read_rows
from hive.projections.table import Recorded

NOW: Final[TimeMs] = 1_769_851_800_000
"""2026-01-31T09:30:00Z: the time of given events and, by default, of the command."""
OPERATOR_BY: Final = By("operator", "mara", uid=1000, way="host")
DAEMON_BY: Final = actor("daemon")
CODEC: Final = Codec()

_SLOTS = {MANAGER: 1, "coder": 2, "tester": 3, "writer": 4}


def spawned(name: str, slot: int | None = None) -> list[AnyEvent]:
    """Events of an agent that runs as incarnation `<name>-1`."""
    return [
        AgentAdded(agent=name, slot=_SLOTS[name] if slot is None else slot),
        Started(agent=name, incarnation=f"{name}-1", reason="spawn"),
        Spawned(agent=name),
    ]


def tombstone(name: str, slot: int | None = None) -> list[AnyEvent]:
    """Events of a destroyed agent with kept state."""
    return [*spawned(name, slot), Destroyed(agent=name)]


MANAGED: Final = [*spawned(MANAGER), *spawned("coder"), *spawned("tester")]
"""A hive with its manager and two agents."""


def by(name: str) -> By:
    """An agent on its own socket."""
    return agent_by(name)


def sent(
    id: int, to: str, text: str = "hello", sender: str = "operator", in_reply_to: int | None = None
) -> MessageSent:
    """A message with defaults."""
    reply = None if in_reply_to is None else MessageId(in_reply_to)
    return MessageSent(id=MessageId(id), sender=sender, to=to, body=text, in_reply_to=reply)


def told(id: int, to: str, notice: Notice) -> MessageSent:
    """A message from `system`."""
    return sent(id, to, body(notice), SYSTEM)


def folded(events: Iterable[AnyEvent], at: TimeMs = NOW) -> Hive:
    """The state after these events, each encoded and decoded as in the log."""
    hive = Hive()
    for event in events:
        grow(hive, event, at)
    return hive


def grow(hive: Hive, event: AnyEvent, at: TimeMs = NOW) -> None:
    """Fold one more event through its encoded text."""
    read = CODEC.decode(type(event).__name__, CODEC.encode(event))
    assert read == event, "an event is the same after it was written and read"
    hive.evolve(Recorded(hive.seq + 1, stamp(at), str(DAEMON_BY), read))


def digests(hive: Hive) -> dict[str, str]:
    """Digest by projection."""
    return {one.NAME: digest(one) for one in hive.projections()}


class Shelf:
    """A reused state folder, since creating one is slower than the test."""

    def __init__(self, folder: Path):
        self._log = EventLog(folder)
        self._store = Store(folder)
        self._store.load(Hive(), self._log, CODEC)

    def put_and_take(self, hive: Hive) -> Hive:
        """The state that a starting daemon loads from the stored rows."""
        self._store.write(hive, self._log.head.hash)
        found = Hive()
        db = apsw.Connection(str(self._store.path))
        for one in found.projections():
            read_rows(db, one)
            for table in one.tables():
                db.execute(f"DELETE FROM {table.name}")
        db.close()
        return found


def check(
    *,
    given: Sequence[AnyEvent] = (),
    when: Command,
    then: Sequence[AnyEvent] | type[HiveError],
    answer: Any = msgspec.UNSET,
    at: TimeMs = NOW,
    says: str = "",
) -> Hive:
    """Decide one command in the state after the given events, and compare.

    `answer` is compared where a rule gives one; `says` stands in the refusal's text. Returns the state after it.
    """
    hive = folded(given)
    try:
        decision = decide(when, hive, at)
    except HiveError as refusal:
        assert then is type(refusal), f"refused: {type(refusal).__name__}: {refusal}"
        assert says in str(refusal)
        assert "\n" not in str(refusal), "a refusal is one line"
        return hive
    events, given_answer = decision if isinstance(decision, Answered) else Answered(decision)
    assert not isinstance(then, type), f"not refused: {events}"
    assert list(then) == events
    assert isinstance(given_answer, Refused) == any(isinstance(event, SendRefused) for event in events)
    if answer is not msgspec.UNSET:
        assert given_answer == answer
    for event in events:
        grow(hive, event, at)
    return hive
