"""Creates hives for measurements: a roster of stopped agents, and a long log produced by the deciders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.payload import bodies
from hive.clock import TimeMs
from hive.deciders import decide
from hive.deciders.base import Answered, Command
from hive.deciders.messages import Ack, Recv, Send
from hive.deciders.questions import Answer, Ask
from hive.deciders.record import EndTurn, StartTurn
from hive.events import AnyEvent
from hive.events.agents import ActDecided, AgentAdded, Spawned, Started, Stopped
from hive.events.base import By, MessageId, agent
from hive.events.codec import Codec
from hive.events.log import EventLog, stamp
from hive.events.turns import TurnEnded
from hive.names import MANAGER, OPERATOR
from hive.projections.hive import Hive
from hive.projections.store import Store
from hive.projections.table import Recorded

BEGIN_MS: Final = 1_769_851_800_000
AGENTS: Final = 32
BETWEEN_MS: Final = 7
"""From one message to the next."""
TURN_MS: Final = 30_000
"""From one turn to the next."""
TO_AGENTS_PERCENT: Final = 28
"""Share of messages to agents; the others go to the operator."""
BATCH: Final = 2_000
OPERATOR_BY: Final = By("operator", "mara", uid=1000, way="host")
ANSWERED_TURNS: Final = 20
"""One turn in this many asks the operator a question."""
LEFT_WAITING: Final = 10
"""One message in this many is never received, so that live rows remain."""
WAITING_MAX: Final = 5_000
"""Per agent; the deciders refuse more than 10,000."""


def names(agents: int) -> list[str]:
    """The manager and the others."""
    return [MANAGER, *(f"agent-{nth}" for nth in range(1, agents))]


def roster(state: Path, agents: int) -> None:
    """Agents that were spawned and stopped: a daemon serves their sockets and starts none."""
    writer = _Writer(state)
    for slot, name in enumerate(names(agents), 1):
        writer.add(OPERATOR_BY, *_stopped(name, slot))
    writer.close()


def messages(state: Path, events: int, agents: int = AGENTS) -> None:
    """A log of messages only; messages to agents are never received."""
    roster(state, agents)
    writer = _Writer(state)
    texts, all_names = bodies(), names(agents)
    for nth in range(events - writer.seq):
        sender = all_names[nth % agents]
        to = all_names[(nth * 7 + 1) % agents] if nth % 100 < TO_AGENTS_PERCENT else OPERATOR
        writer.decide(Send(by=agent(sender), sender=sender, to=to, body=texts[nth % len(texts)]))
        writer.now += BETWEEN_MS
    writer.close()


def turns(state: Path, events: int, agents: int = AGENTS) -> None:
    """A log as a busy hive writes it: messages sent, taken, worked on in turns and acknowledged; some questions."""
    roster(state, agents)
    writer = _Writer(state)
    texts, all_names = bodies(), names(agents)
    turn = 0
    while writer.seq < events:
        turn += 1
        sender, name = all_names[turn % agents], all_names[(turn * 7 + 1) % agents]
        writer.decide(Send(by=agent(sender), sender=sender, to=name, body=texts[turn % len(texts)]))
        if turn % LEFT_WAITING == 0 and writer.hive.messages.waiting_count(name) < WAITING_MAX:
            continue
        ids = writer.take(name)
        writer.work(name, ids, turn)
        writer.decide(Ack(by=agent(name), agent=name, ids=ids))
        writer.now += TURN_MS
    writer.close()


class _Writer:
    """Decides and appends without a daemon."""

    def __init__(self, state: Path):
        state.mkdir(parents=True, exist_ok=True)
        self._log = EventLog(state)
        self._store = Store(state)
        self._codec = Codec()
        self._rows: list[tuple[str, str, str, str]] = []
        self.hive = Hive()
        self._store.load(self.hive, self._log, self._codec)
        self.now: TimeMs = BEGIN_MS

    @property
    def seq(self) -> int:
        return self.hive.seq

    def decide(self, command: Command) -> object:
        decision = decide(command, self.hive, self.now)
        events, answer = decision if isinstance(decision, Answered) else (decision, None)
        self.add(command.by, *events)
        return answer

    def take(self, name: str) -> tuple[MessageId, ...]:
        """The next message. An answered question tells its asker, so an agent with many waiting takes two."""
        limit = 1 if self.hive.messages.waiting_count(name) <= WAITING_MAX else 2
        answer = self.decide(Recv(by=agent(name), agent=name, limit=limit, incarnation="c1"))
        assert isinstance(answer, tuple)
        return tuple(message.id for message in answer[0])

    def work(self, name: str, ids: tuple[MessageId, ...], turn: int) -> None:
        """One turn, as the harness reports it."""
        by = agent(name)
        self.decide(StartTurn(by=by, agent=name, model="claude-x", wake_from="manager", message_ids=ids))
        if turn % ANSWERED_TURNS == 0:
            self.decide(Ask(by=by, asker=name, target=None, question="Left or right?", options=("left", "right")))
            id = self.hive.questions.pending()[0].id
            self.decide(Answer(by=OPERATOR_BY, id=id, answer="left", answerer="operator"))
        report = TurnEnded(
            agent=name,
            model="claude-x",
            wake_from="manager",
            result_kind="ok",
            started_at=stamp(self.now),
            ended_at=stamp(self.now + TURN_MS),
            duration_ms=TURN_MS,
            input_tokens=1_200 + turn % 700,
            output_tokens=300 + turn % 90,
            cache_read_tokens=15_000,
            tool_call_count=3,
            tool_calls_json='{"Read":2,"Bash":1}',
        )
        self.decide(EndTurn(by=by, report=report))

    def add(self, by: By, *events: AnyEvent) -> None:
        at = stamp(self.now)
        for event in events:
            self.hive.evolve(Recorded(self.hive.seq + 1, at, str(by), event))
            self._rows.append((at, type(event).__name__, self._codec.encode(event), str(by)))
        if len(self._rows) >= BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._store.write(self.hive, self._log.head.hash)
        self._store.close()
        self._log.close()

    def _flush(self) -> None:
        self._log.append(self._rows)
        self._rows = []


def _stopped(name: str, slot: int) -> Iterator[AnyEvent]:
    yield AgentAdded(agent=name, slot=slot)
    yield Started(agent=name, incarnation=f"{name}-1", reason="spawn")
    yield Spawned(agent=name)
    yield ActDecided(agent=name, act="stop")
    yield Stopped(agent=name, exit="exit code 0")
