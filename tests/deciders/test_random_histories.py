"""Random command sequences: the invariants of messages, questions and approvals hold after each command."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hive.clock import rfc3339
from hive.deciders import decide
from hive.deciders.approvals import RequestCommit, RequestSpawn
from hive.deciders.base import Answered, Command
from hive.deciders.destroy import RecordDestroyed
from hive.deciders.lifecycle import RecordStarted
from hive.deciders.messages import Ack, Recv, Requeue, Send
from hive.deciders.questions import Ask, Expire
from hive.deciders.record import SetTransient
from hive.deciders.reminders import Fire, Remind
from hive.deciders.roster import Spawn
from hive.errors import HiveError
from hive.events import AnyEvent
from hive.events.approvals import ApprovalFailed, ApprovalRequested, ApprovalResolved
from hive.events.log import EventLog
from hive.events.messages import MessageAcked, MessageDead, MessageDelivered, MessageRequeued, MessageSent
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.names import OPERATOR, is_remote
from hive.projections.hive import Hive, fold
from hive.projections.store import Store
from hive.projections.table import Recorded

from .aim import AIMED, aim
from .check import CODEC, DAEMON_BY, NOW, digests
from .commands import NAMES, any_fitting, fitting
from .everything import EVERYTHING

OPENING = (Send, Ask, Remind, RequestSpawn, RequestCommit, Spawn, RecordStarted, RecordDestroyed, SetTransient)
EXAMPLES = 200
STEPS = 60


class RandomHistories(RuleBasedStateMachine):
    """Keeps a separate ledger of the events, independent of the projections."""

    def __init__(self) -> None:
        super().__init__()
        self.hive = Hive()
        self.now = NOW
        self.folder = tempfile.TemporaryDirectory(prefix="history-")
        self.log = EventLog(Path(self.folder.name))
        self.store = Store(Path(self.folder.name))
        self.store.load(Hive(), self.log, CODEC)
        self.written = 0
        self.pending: list[tuple[str, str, str, str]] = []
        self.waiting: dict[int, str] = {}
        self.in_flight: dict[int, str] = {}
        self.acked: set[int] = set()
        self.dead: set[int] = set()
        self.sent = 0
        self.resolutions: Counter[tuple[str, int]] = Counter()
        self.asked: set[tuple[str, int]] = set()

    @initialize()
    def much_has_happened(self) -> None:
        for event in EVERYTHING:
            self.record(event)

    @rule(command=any_fitting())
    def anything_is_asked_for(self, command: Command) -> None:
        self.decided(command)

    @rule(command=st.sampled_from(AIMED).flatmap(fitting), pick=st.integers(0, 20))
    def something_that_is_there_is_acted_on(self, command: Command, pick: int) -> None:
        self.decided(aim(command, self.hive, pick))

    @rule(command=st.sampled_from(OPENING).flatmap(fitting))
    def something_is_begun(self, command: Command) -> None:
        self.decided(command)

    @rule(command=st.sampled_from((Send, Recv, Ack, Requeue)).flatmap(fitting), pick=st.integers(0, 20))
    def a_message_moves(self, command: Command, pick: int) -> None:
        self.decided(aim(command, self.hive, pick))

    @rule(pick=st.integers(0, 20))
    def a_deadline_passes(self, pick: int) -> None:
        due = [(row.deadline_ms, Expire(by=DAEMON_BY, id=row.id)) for row in self.hive.questions.pending()]
        due += [(row.due_ms, Fire(by=DAEMON_BY, id=row.id)) for row in self.hive.reminders.pending]
        if due:
            at, command = due[pick % len(due)]
            self.now = max(self.now, min(at or 0, self.now + 1_000_000))
            self.decided(command)

    @rule(passed_ms=st.integers(min_value=0, max_value=100_000))
    def time_passes(self, passed_ms: int) -> None:
        self.now += passed_ms

    @rule()
    def everything_is_written_behind(self) -> None:
        self.commit()
        self.store.write(self.hive, self.log.head.hash)
        self.written = self.hive.seq

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        places = [set(self.waiting), set(self.in_flight), self.acked, self.dead]
        assert sum(map(len, places)) == len(set().union(*places)) == self.sent
        messages = self.hive.messages
        assert len(messages.open) == len(self.waiting) + len(self.in_flight)

    @invariant()
    def requeued_messages_come_first_in_their_old_order(self) -> None:
        for name in NAMES:
            waiting = [message.id for message in self.hive.messages.waiting(name)]
            assert waiting == sorted(id for id, to in self.waiting.items() if to == name)
            assert len(waiting) == self.hive.messages.waiting_count(name)
            in_flight = [message.id for message in self.hive.messages.in_flight(name)]
            assert in_flight == sorted(id for id, to in self.in_flight.items() if to == name)

    @invariant()
    def whatever_is_open_belongs_to_somebody_who_lives(self) -> None:
        living = {row.name for row in self.hive.agents.living()}
        for question in self.hive.questions.pending():
            assert {one for one in (question.asker, question.target) if one and not is_remote(one)} <= living
        assert {row.agent for row in self.hive.reminders.pending} <= living
        assert {message.to for message in self.hive.messages.open if not is_remote(message.to)} <= living

    def teardown(self) -> None:
        self.commit()
        self.store.close()
        self.equal(fold(self.log.rows(1), CODEC)[0])
        started, store = Hive(), Store(Path(self.folder.name))
        refolded = store.load(started, self.log, CODEC)
        assert bool(refolded) == (self.written == 0), "what was written is read, and only the tail is folded"
        self.equal(started)
        store.close()
        self.log.close()
        self.folder.cleanup()

    def equal(self, again: Hive) -> None:
        """Loading, replaying and folding all give the live state."""
        assert digests(again) == digests(self.hive)
        assert again.seq == self.hive.seq
        for live, other in zip(self.hive.projections(), again.projections(), strict=True):
            assert derived(live) == derived(other), f"{live.NAME} derives something else from its rows"

    def decided(self, command: Command) -> None:
        try:
            decision = decide(command, self.hive, self.now)
        except HiveError:
            return
        for event in decision.events if isinstance(decision, Answered) else decision:
            self.record(event)

    def record(self, event: AnyEvent) -> None:
        name, text = type(event).__name__, CODEC.encode(event)
        self.pending.append((rfc3339(self.now), name, text, "actor:test"))
        self.note(event)
        self.hive.evolve(Recorded(self.hive.seq + 1, rfc3339(self.now), "actor:test", CODEC.decode(name, text)))

    def commit(self) -> None:
        self.log.append(self.pending)
        self.pending = []

    def note(self, event: AnyEvent) -> None:
        match event:
            case MessageSent(id=id, to=to) if to != OPERATOR:
                assert id not in self.waiting
                self.waiting[id] = to
                self.sent += 1
            case MessageDelivered(id=id, to=to):
                assert self.waiting.pop(id) == to
                self.in_flight[id] = to
            case MessageRequeued(id=id, to=to):
                assert self.in_flight.pop(id) == to
                self.waiting[id] = to
            case MessageAcked(id=id, to=to):
                place = self.waiting if is_remote(to) else self.in_flight  # A receipt acks what left.
                assert place.pop(id) == to, "acked, so it was in flight"
                self.acked.add(id)
            case MessageDead(id=id, to=to):
                assert (self.waiting.pop(id, None) or self.in_flight.pop(id, None)) == to
                self.dead.add(id)
            case QuestionAdded(id=id):
                self.asked.add(("question", id))
            case ApprovalRequested(id=id):
                self.asked.add(("approval", id))
            case QuestionResolved(id=id):
                self.settled("question", id)
            case ApprovalResolved(id=id):
                self.settled("approval", id)
            case ApprovalFailed(id=id):
                assert self.resolutions["approval", id] == 1, "only what was approved can fail afterwards"
                self.settled("carrying out", id)
            case _:
                pass  # Moves nothing that is counted here.

    def settled(self, kind: str, id: int) -> None:
        self.resolutions[kind, id] += 1
        assert self.resolutions[kind, id] == 1, f"{kind} {id} was settled twice"
        assert kind == "carrying out" or (kind, id) in self.asked


def derived(projection: Any) -> dict[str, Any]:
    """Derived values of a projection, without empty ones."""
    kept = {name: value for name, value in vars(projection).items() if name.startswith("_")}
    return {name: _without_empty(value) for name, value in kept.items()}


def _without_empty(value: Any) -> Any:
    return {key: one for key, one in value.items() if one} if isinstance(value, dict) else value


TestRandomHistories = RandomHistories.TestCase
TestRandomHistories.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # Shrinking a history takes minutes; without it the first one found is shown.
    suppress_health_check=list(HealthCheck),
)
