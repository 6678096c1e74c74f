"""The files of a small hive, written by the real log and store: a spawn, messages, a question, an approval, turns."""

from pathlib import Path

from hive.clock import rfc3339
from hive.events import AnyEvent
from hive.events.agents import AgentAdded, Killed, Spawned, Started, StatusSet
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId, MessageId, QuestionId
from hive.events.codec import Codec
from hive.events.daemon import Booted
from hive.events.log import EventLog
from hive.events.messages import MessageAcked, MessageDelivered, MessageSent
from hive.events.notices import ApprovalResolved as ApprovalTold
from hive.events.notices import OperatorAnswered, body
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.turns import TurnEnded, TurnStarted
from hive.projections.hive import Hive
from hive.projections.store import Store

BEGIN_MS = 1_769_851_800_000
"""2026-01-31T09:30:00Z; one event a second from there."""

Entry = tuple[str, AnyEvent]

EVENTS: list[Entry] = [
    ("actor:journal", Booted(hive_version="0.1.0", runtime="process")),
    ("actor:journal", AgentAdded(agent="manager", slot=1)),
    ("actor:agent", Started(agent="manager", incarnation="m1", reason="spawn")),
    ("actor:agent", Spawned(agent="manager")),
    ("agent:manager", ApprovalRequested(id=ApprovalId(1), agent="coder", kind="spawn", requester="manager")),
    ("operator:mara uid=0 way=cli", ApprovalResolved(id=ApprovalId(1), agent="coder", kind="spawn", status="approved")),
    ("operator:mara uid=0 way=cli", AgentAdded(agent="coder", slot=2, approval_id=ApprovalId(1))),
    (
        "operator:mara uid=0 way=cli",
        MessageSent(
            id=MessageId(1),
            sender="system",
            to="manager",
            body=body(ApprovalTold(id=ApprovalId(1), agent="coder", kind="spawn", status="approved", note=None)),
        ),
    ),
    ("actor:agent", Started(agent="coder", incarnation="c1", reason="spawn")),
    ("actor:agent", Spawned(agent="coder")),
    ("operator:mara uid=0 way=cli", MessageSent(id=MessageId(2), sender="operator", to="coder", body="write a parser")),
    ("agent:coder", MessageDelivered(id=MessageId(2), to="coder", incarnation="c1")),
    ("agent:coder", TurnStarted(agent="coder", wake_from="operator", message_ids=(MessageId(2),))),
    ("agent:coder", StatusSet(agent="coder", text="red \x1b[31m \u202e [bold]text[/bold]")),
    ("agent:coder", QuestionAdded(id=QuestionId(1), asker="coder", target=None, question="LL or LR?")),
    (
        "agent:coder",
        TurnEnded(
            agent="coder",
            model="claude-x",
            result_kind="ok",
            duration_ms=1500,
            input_tokens=100,
            output_tokens=20,
            tool_call_count=3,
            tool_calls_json='{"Read":2,"Bash":1}',
        ),
    ),
    ("agent:coder", MessageAcked(id=MessageId(2), to="coder")),
    (
        "operator:mara uid=0 way=cli",
        QuestionResolved(id=QuestionId(1), asker="coder", target=None, answer="LL", answerer="operator"),
    ),
    (
        "operator:mara uid=0 way=cli",
        MessageSent(
            id=MessageId(3),
            sender="system",
            to="coder",
            body=body(OperatorAnswered(id=QuestionId(1), question="LL or LR?", answer="LL", answerer="operator")),
        ),
    ),
    ("agent:manager", Killed(agent="coder")),
]


def append(log: EventLog, entries: list[Entry], begin_ms: int = BEGIN_MS) -> None:
    """Append one event per second."""
    encode = Codec().encode
    first = log.head.seq
    log.append(
        (rfc3339(begin_ms + 1000 * (first + number)), type(event).__name__, encode(event), by)
        for number, (by, event) in enumerate(entries)
    )


def write(state: Path, entries: list[Entry] | None = None, *, begin_ms: int = BEGIN_MS) -> None:
    """The files of a stopped hive."""
    state.mkdir(parents=True, exist_ok=True)
    log = EventLog(state)
    append(log, EVENTS if entries is None else entries, begin_ms)
    store, hive = Store(state), Hive()
    store.load(hive, log, Codec())
    store.write(hive, log.head.hash)
    store.close()
    log.close()
