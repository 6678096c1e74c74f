"""One valid history with every event type."""

from typing import Final

from hive.events import AnyEvent
from hive.events.agents import (
    ActDecided,
    ActFailed,
    AgentAdded,
    AxesSeeded,
    Budget,
    BudgetFreed,
    BudgetReached,
    BudgetSet,
    ContainerLimits,
    Crashed,
    Destroyed,
    DiskFull,
    DiskNearlyFull,
    DiskNoLongerFull,
    IncarnationSeen,
    Killed,
    LimitsSet,
    LoggedIn,
    ModelSet,
    Mounted,
    NeedsLogin,
    NeedsUpdate,
    Paused,
    Purged,
    RateLimited,
    Rebuilt,
    RecipientsAllowed,
    Responsive,
    Resumed,
    Revived,
    Share,
    ShareSet,
    Spawned,
    Started,
    StatusSet,
    Stopped,
    Throttled,
    Unmounted,
    Unresponsive,
)
from hive.events.approvals import ApprovalFailed, ApprovalRequested, ApprovalResolved, ProposalPinned
from hive.events.base import ApprovalId, MessageId, QuestionId, ReminderId
from hive.events.daemon import Booted, CommandKeyed, DiskFreed, DiskLow, LogCarriedOver, ShutDown, Warned
from hive.events.egress import EgressAllowed, EgressDenied, EgressRevoked, ModelUsed, Price, PricesSet
from hive.events.erasing import Erased, ErasureFinished
from hive.events.messages import MessageAcked, MessageDead, MessageDelivered, MessageRequeued, MessageSent, SendRefused
from hive.events.notifications import NotificationDelivered, NotificationFailed
from hive.events.operators import OperatorAdded, OperatorRevoked, SignedIn, SignInRefused
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.events.reminders import ReminderDropped, ReminderFired, ReminderSet
from hive.events.swarm import (
    DecisionAnswered,
    DecisionDone,
    DecisionSent,
    EnvelopeReceived,
    EnvelopeRefused,
    PeerAhead,
    PeersSet,
    ReceiptTaken,
)
from hive.events.transient import TransientCleared, TransientSet
from hive.events.turns import TurnEnded, TurnStarted

SOON_MS: Final = 1_769_851_900_000
"""A hundred seconds after the other events."""
SHA: Final = "0123456789abcdef0123456789abcdef01234567"
HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _message(id: int, to: str, text: str, sender: str = "operator") -> MessageSent:
    return MessageSent(id=MessageId(id), sender=sender, to=to, body=text)


_ROSTER: list[AnyEvent] = [
    Booted(hive_version="0.1.0", runtime="bubblewrap"),
    AgentAdded(agent="manager", slot=1),
    TransientSet(agent="manager", kind="spawning"),
    Started(agent="manager", incarnation="m1", reason="spawn", revision=SHA, harness_version="0.1.0"),
    Spawned(agent="manager"),
    TransientCleared(agent="manager", kind="spawning"),
    AxesSeeded(agent="manager", needs_login=False, needs_update=True),
    ApprovalRequested(id=ApprovalId(1), agent="a", kind="spawn", requester="manager", description="parses"),
    ApprovalResolved(id=ApprovalId(1), agent="a", kind="spawn", status="approved"),
    AgentAdded(agent="a", slot=2, approval_id=ApprovalId(1)),
    Started(agent="a", incarnation="a1", reason="spawn", revision=SHA),
    RecipientsAllowed(agent="a", recipients=("b",)),
    BudgetSet(agent="a", budget=Budget(hours=24, turns=3)),
    BudgetReached(agent="a", budget=Budget(hours=24, turns=3), turns=3, tokens=9, until_ms=SOON_MS),
    BudgetFreed(agent="a"),
    LimitsSet(agent="a", limits=ContainerLimits(memory_mb=1024, processes=64, disk_mb=100, not_enforced=("No.",))),
    DiskNearlyFull(agent="a", used_mb=91, limit_mb=100),
    DiskFull(agent="a", used_mb=100, limit_mb=100),
    DiskNoLongerFull(agent="a", used_mb=95, limit_mb=100),
    Spawned(agent="a"),
    AgentAdded(agent="b", slot=3),
    Started(agent="b", incarnation="b1", reason="spawn"),
    Spawned(agent="b"),
    AgentAdded(agent="c", slot=4),
    ActFailed(agent="c", act="spawn", error="no space left"),
    Mounted(agent="a", host_path="/srv/project", folder="project", read_only=True),
    Mounted(agent="a", host_path="/srv/q", folder="q"),
    Unmounted(agent="a", folder="project"),
    ModelSet(agent="a", model="claude-x"),
    Paused(agent="b"),
    Resumed(agent="b"),
]
_WORK: list[AnyEvent] = [
    IncarnationSeen(agent="a", incarnation="one"),
    _message(1, "a", "write a parser"),
    _message(2, "a", "and a printer"),
    _message(3, "b", "test both", "a"),
    _message(4, "operator", "started", "a"),
    CommandKeyed(key="agent:a k1", first_seq=28, count=1),
    SendRefused(sender="a", to="c", reason="a may not send to c, only to: b, manager, operator."),
    MessageDelivered(id=MessageId(1), to="a", incarnation="one"),
    MessageDelivered(id=MessageId(2), to="a", incarnation="one"),
    TurnStarted(agent="a", model="claude-x", wake_from="operator", message_ids=(MessageId(1), MessageId(2))),
    StatusSet(agent="a", text="parsing é \u202e \U0001f41d"),
    QuestionAdded(id=QuestionId(1), asker="a", target=None, question="LL or LR?", options=("LL", "LR")),
    QuestionAdded(
        id=QuestionId(2), asker="a", target="b", question="Which?", options=("x", "y"), multi=True, deadline_ms=SOON_MS
    ),
    QuestionAdded(id=QuestionId(3), asker="b", target="a", question="Ready?"),
    ReminderSet(id=ReminderId(1), agent="a", message="look again", due_ms=SOON_MS),
    ReminderSet(id=ReminderId(2), agent="b", message="rest", due_ms=1),
    ReminderSet(id=ReminderId(3), agent="c", message="never", due_ms=10**13),
    ReminderFired(id=ReminderId(2), agent="b"),
    ReminderDropped(id=ReminderId(3), agent="c"),
    RateLimited(agent="a", until_ms=10**13),
    RateLimited(agent="a", until_ms=None),
    TurnEnded(
        agent="a",
        model="claude-x",
        wake_from="operator",
        result_kind="ok",
        started_at="2026-01-31T09:30:00.000Z",
        ended_at="2026-01-31T09:30:01.500Z",
        duration_ms=1500,
        input_tokens=100,
        output_tokens=20,
        tool_call_count=3,
        tool_calls_json='{"Read":2,"Bash":1}',
    ),
    MessageAcked(id=MessageId(1), to="a"),
    MessageRequeued(id=MessageId(2), to="a", reason="failed", counts=True),
    MessageDelivered(id=MessageId(3), to="b"),
    MessageRequeued(id=MessageId(3), to="b", reason="crashed", counts=True),
    MessageDead(id=MessageId(3), to="b", reason="5 deliveries ended in a failed turn or a dead harness"),
    TurnEnded(agent="b", result_kind="failed", note="overloaded"),
    PricesSet(prices={"claude-x": Price(input=3.0, output=15.0, cache_read=0.3), "claude-y": Price(input=1.0)}),
    PricesSet(prices={"claude-x": Price(input=3.0, output=15.0, cache_read=0.3, cache_write=3.75)}),
    ModelUsed(
        agent="a", model="claude-x", requests=3, input_tokens=90, output_tokens=30, cache_read_tokens=7, errors=1
    ),
    ModelUsed(agent="a", model="claude-z", requests=1, input_tokens=9, cache_creation_tokens=4),
    QuestionResolved(id=QuestionId(1), asker="a", target=None, answer="LL", answerer="operator"),
]
_TROUBLE: list[AnyEvent] = [
    ApprovalRequested(id=ApprovalId(2), agent="a", kind="apply_commit", requester="manager", commit_ref="0123"),
    ProposalPinned(id=ApprovalId(2), agent="a", fetched_sha=SHA),
    ApprovalResolved(id=ApprovalId(2), agent="a", kind="apply_commit", status="approved"),
    ShareSet(agent="a", share=Share(events_per_minute=1_200)),
    Throttled(agent="a", refused=7, share="events", told=True),
    DiskLow(free_mb=500, floor_mb=512),
    DiskFreed(free_mb=600),
    ActDecided(agent="a", act="rebuild"),
    Rebuilt(agent="a", ok=False, revision=SHA, error="does not build"),
    ApprovalFailed(id=ApprovalId(2), agent="a", error="does not build"),
    ApprovalRequested(id=ApprovalId(3), agent="b", kind="apply_commit", requester="manager", commit_ref="main"),
    ProposalPinned(id=ApprovalId(3), agent="b", fetched_sha=SHA),
    ApprovalRequested(id=ApprovalId(4), agent="b", kind="apply_commit", requester="operator", commit_ref="main"),
    ApprovalResolved(id=ApprovalId(4), agent="b", kind="apply_commit", status="denied", note="not now"),
    ApprovalRequested(id=ApprovalId(5), agent="e", kind="spawn", requester="manager"),
    ApprovalRequested(
        id=ApprovalId(6), agent="a", kind="egress", requester="a", description="docs", host="example.org", port=443
    ),
    ApprovalResolved(id=ApprovalId(6), agent="a", kind="egress", status="approved"),
    EgressAllowed(agent="a", host="example.org", port=443, approval_id=ApprovalId(6)),
    ApprovalRequested(id=ApprovalId(7), agent="b", kind="egress", requester="b", host="192.0.2.7", port=22),
    ApprovalResolved(id=ApprovalId(7), agent="b", kind="egress", status="denied", note="no"),
    EgressDenied(agent="b", host="192.0.2.7", port=22, until_ms=SOON_MS, approval_id=ApprovalId(7)),
    ApprovalRequested(id=ApprovalId(8), agent="b", kind="egress", requester="b", host="www.example.org", port=443),
    EgressAllowed(host="*.example.net"),
    EgressDenied(agent="d", host="example.com"),
    EgressDenied(host="example.com", port=25),
    EgressRevoked(host="*.example.net"),
    NeedsUpdate(agent="b"),
    NeedsLogin(agent="b", refused=True),
    LoggedIn(agent="b"),
    Unresponsive(agent="b"),
    Responsive(agent="b"),
    Crashed(agent="b", incarnation="b1", reason="signal 9 (SIGKILL)", signal=9, ended_ms=5, restart_ms=10**13),
    Started(agent="b", incarnation="b2", reason="crash"),
    Killed(agent="b"),
    ActDecided(agent="b", act="stop"),
    Stopped(agent="b", exit="was not running"),
    AgentAdded(agent="d", slot=5),
    Destroyed(agent="d"),
    Revived(agent="d"),
    Destroyed(agent="d"),
    Purged(agent="d"),
    AgentAdded(agent="f", slot=6),
    Destroyed(agent="f"),
    OperatorAdded(name="mara", token_hash=HASH),
    OperatorAdded(name="ada", token_hash=HASH),
    OperatorRevoked(name="ada"),
    SignedIn(name="mara", source="127.0.0.1"),
    SignInRefused(source="127.0.0.1", attempts=2),
    Warned(source="config_pipeline", text="the meta flake does not pin it"),
    NotificationDelivered(topic="question", subject="2", attempts=2),
    NotificationFailed(topic="crash", subject="b", error="no answer", attempts=3),
    TransientSet(agent="b", kind="stopping"),
    TurnStarted(agent="manager", wake_from="system"),
    LogCarriedOver(schema=1, events=20, head=HASH),
    Erased(
        subject="agent",
        name="a",
        why="holds a key",
        rows=((8, 8), (40, 60)),
        messages=((1, 2),),
        questions=((1, 2),),
        answers=((1, 1),),
        approvals=((1, 1),),
        decisions=((2, 4),),
        reminders=((1, 1),),
        statuses=("a",),
        failures=("c",),
    ),
    ErasureFinished(of=1, rows=3),
    ShutDown(keep_agents=True),
]
_SWARM: list[AnyEvent] = [
    PeersSet(hive="tokyo", peers={"berlin": ("mara",), "oslo": ()}),
    _message(5, "coder@berlin", "and you?", "a"),
    _message(6, "operator@berlin", "hello"),
    QuestionAdded(id=QuestionId(4), asker="a", target="coder@berlin", question="Tabs?"),
    QuestionAdded(id=QuestionId(5), asker="b", target="coder@berlin", question="Spaces?"),
    EnvelopeReceived(peer="berlin", number=1),
    MessageSent(
        id=MessageId(7), sender="coder@berlin", to="a", body="fine", in_reply_to=MessageId(5), origin_id=MessageId(31)
    ),
    MessageSent(id=MessageId(8), sender="a", to="coder@berlin", body="good", in_reply_to=MessageId(7)),
    EnvelopeReceived(peer="berlin", number=2),
    QuestionAdded(
        id=QuestionId(6), asker="coder@berlin", target="a", question="Vim?", options=("yes",), origin_id=QuestionId(9)
    ),
    QuestionAdded(id=QuestionId(7), asker="coder@berlin", target="b", question="Ed?", origin_id=QuestionId(10)),
    QuestionResolved(id=QuestionId(6), asker="coder@berlin", target="a", answer="yes", answerer="a"),
    QuestionResolved(id=QuestionId(4), asker="a", target="coder@berlin", answer="No.", answerer="coder@berlin"),
    QuestionResolved(id=QuestionId(5), asker="b", target="coder@berlin", answer="[expired]", answerer="watchdog"),
    DecisionSent(id=1, hive="berlin", verdict="approve", subject=3, operator="mara", sha=SHA),
    DecisionSent(id=2, hive="berlin", verdict="answer", subject=4, operator="mara", text="Yes."),
    DecisionDone(id=1, hive="berlin", error="There is no approval 3."),
    DecisionAnswered(peer="berlin", decision=7),
    ReceiptTaken(peer="berlin", number=1),
    MessageAcked(id=MessageId(5), to="coder@berlin"),
    EnvelopeRefused(peer="oslo", reason="its signature is wrong", count=3),
    PeerAhead(peer="oslo", number=4),
    PeersSet(hive="tokyo", peers={"berlin": ("mara",)}),
]
EVERYTHING: Final[list[AnyEvent]] = [*_ROSTER, *_WORK, *_TROUBLE, *_SWARM]
