"""Starts the other actors from a list, routes committed events to them, and restarts crashed ones."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import blinker
import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.agent import ContainerEnded, Do, GoDown, Settle, Ticket
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock, DurationMs
from hive.errors import NotFound, Unavailable
from hive.events.agents import AgentAdded, Destroyed, Revived
from hive.names import AgentName
from hive.projections.table import Recorded

log = structlog.get_logger()

LOOK_EVERY_MS: DurationMs = 1_000
STOP_TIMEOUT_S = 30.0
"""For children to finish. The next daemon repeats an interrupted lifecycle act."""
RESTARTS_MAX = 5
"""Restarts of one actor within the window. After that the daemon ends."""
RESTART_WINDOW_MS: DurationMs = 60_000


ENDING: Final = frozenset({"stop", "kill"})
"""Acts that need no room: an agent that runs can be ended on a full disk."""


class Child(msgspec.Struct, frozen=True):
    """An actor that the supervisor keeps running."""

    name: str
    start: Callable[[], "pykka.ActorRef[Any]"]
    listens: tuple[type, ...] = ()
    """Event types that it receives after their commit."""
    writes: bool = True
    """False: it also starts while the disk is full."""


class GoDownAll(msgspec.Struct, frozen=True):
    """Message: stop every agent but keep it wanted. The reply is one ticket per agent."""


class Begin(msgspec.Struct, frozen=True):
    """Message: the disk has room again. Start what was held back."""


class _RosterChanged(msgspec.Struct, frozen=True):
    event: AgentAdded | Revived | Destroyed


_ROSTER_EVENTS: Final = (AgentAdded, Revived, Destroyed)

Message = Do | Settle | ContainerEnded | GoDownAll | Begin | _RosterChanged | Literal["look"]


class Supervisor(pykka.ThreadingActor):
    """Children start in the order of the list and stop in reverse; agents start after them.

    If the supervisor crashes, the daemon ends with an error and must be started again.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: "pykka.ActorRef[Any]",
        children: Sequence[Child],
        client: BlockingJournalClient,
        start_agent: Callable[[AgentName], "pykka.ActorRef[Any]"],
        clock: Clock,
        give_up: Callable[[str], None],
        committed: blinker.Signal,
        *,
        is_held: bool = False,
    ):
        """`is_held`: the disk is full. Agents and children that write start with `Begin`."""
        super().__init__()
        self._journal = journal
        self._children = {child.name: child for child in children}
        self._listeners: dict[type, list[Child]] = {}
        for child in children:
            for event_type in child.listens:
                self._listeners.setdefault(event_type, []).append(child)
        self._client = client
        self._new_agent = start_agent
        self._clock = clock
        self._give_up = give_up
        self._committed = committed
        self._is_held = is_held
        self._refs: dict[str, pykka.ActorRef[Any]] = {}
        self._agents: dict[AgentName, pykka.ActorRef[Any]] = {}
        self._routing = threading.Lock()
        """Serialises starts of children and routing. A child gets every event committed after it read the state."""
        self._crashes: dict[str, deque[int]] = {}
        self._cancel_look: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        try:
            self._start_all()
        except Exception as bug:  # pykka does not call on_failure for on_start.
            self._give_up(f"The supervisor could not start: {bug!r}.")
            raise

    def _start_all(self) -> None:
        self._committed.connect(self.on_committed)
        self._start_missing()
        self._look_later()

    def _start_missing(self) -> None:
        for child in self._children.values():
            if child.name not in self._refs and not (self._is_held and child.writes):
                self._start_child(child)
        if not self._is_held:
            for row in self._client.read(lambda hive: hive.agents.living()):
                self._start_agent(row.name)

    def on_committed(self, _journal: object, batch: list[Recorded]) -> None:
        """Receiver of the journal's signal. Runs on a thread of the journal and only tells."""
        for recorded in batch:
            event = recorded.event
            for child in self._listeners.get(type(event), ()):
                with self._routing:
                    ref = self._refs.get(child.name)
                if ref is not None:
                    mail.tell(ref, event)
            if isinstance(event, _ROSTER_EVENTS):
                mail.tell(self.actor_ref, _RosterChanged(event))

    def on_receive(self, message: Message) -> Any:
        match message:
            case Begin():
                self._is_held = False
                self._start_missing()
            case Do() | Settle() if self._is_held and not self._needs_no_room(message):
                what = "its start" if isinstance(message, Settle) else f"its {message.act}"
                text = f"The disk is full. {message.agent} has to wait with {what}. Free disk space."
                message.ticket.set_exception(Unavailable(text))
            case Do(agent=name, ticket=ticket) | Settle(agent=name, ticket=ticket):
                ref = self._agents.get(name)
                if ref is None or not mail.tell(ref, message):
                    ticket.set_exception(NotFound(f'agent "{name}" is not managed by this hive'))
            case ContainerEnded(agent=name):
                if (ref := self._agents.get(name)) is not None:
                    mail.tell(ref, message)
            case GoDownAll():
                if self._is_held:
                    for row in self._client.read(lambda hive: hive.agents.living()):
                        self._started_if_running(row.name)
                return [self._go_down(name) for name in self._agents]
            case _RosterChanged(event=event) if isinstance(event, Destroyed):
                if (ref := self._agents.pop(event.agent, None)) is not None:
                    ref.stop(block=False)
            case _RosterChanged(event=event):
                if not self._is_held:  # Begin starts every living agent.
                    self._start_agent(event.agent)
            case "look":
                self._look()
                self._look_later()
        return None

    def on_stop(self) -> None:
        self._cancel_look()
        self._committed.disconnect(self.on_committed)
        stopping = [ref.stop(block=False) for ref in [*self._agents.values(), *reversed(self._refs.values())]]
        try:
            pykka.get_all(stopping, timeout=STOP_TIMEOUT_S)
        except pykka.Timeout:
            log.warning("supervisor.children_still_busy", waited_s=STOP_TIMEOUT_S)

    def on_failure(self, exception_type: object, exception_value: object, _traceback: object) -> None:
        self._give_up(f"The supervisor crashed: {exception_value!r}.")

    def _start_child(self, child: Child) -> None:
        with self._routing:
            self._refs[child.name] = child.start()

    def _start_agent(self, name: AgentName) -> None:
        if name not in self._agents:
            self._agents[name] = self._new_agent(name)

    def _needs_no_room(self, message: Do | Settle) -> bool:
        return isinstance(message, Do) and message.act in ENDING and self._started_if_running(message.agent)

    def _started_if_running(self, name: AgentName) -> bool:
        """Start the actor of an agent whose container runs, so that it can be ended. Returns whether it has one."""
        row = self._client.read(lambda hive: hive.agents.living_one(name))
        if row is not None and row.running:
            self._start_agent(name)
        return name in self._agents

    def _go_down(self, name: AgentName) -> Ticket:
        ticket, ref = Ticket(), self._agents[name]
        if not mail.tell(ref, GoDown(name, ticket)):
            ticket.set_result(None)
        return ticket

    def _look(self) -> None:
        if not self._journal.is_alive():
            self._give_up("The journal ended: the log could not be written or read.")
        for name, ref in list(self._refs.items()):
            if not ref.is_alive() and self._may_restart(name):
                self._start_child(self._children[name])
        for name, ref in list(self._agents.items()):
            if not ref.is_alive() and self._may_restart(f"agent {name}"):
                del self._agents[name]
                self._start_agent(name)

    def _may_restart(self, name: str) -> bool:
        now = self._clock.now_ms()
        crashes = self._crashes.setdefault(name, deque(maxlen=RESTARTS_MAX))
        if len(crashes) == RESTARTS_MAX and now - crashes[0] < RESTART_WINDOW_MS:
            self._give_up(f"{name} crashed {RESTARTS_MAX} times within {RESTART_WINDOW_MS // 1000} s.")
            return False
        crashes.append(now)
        log.error("supervisor.restarts", actor=name)
        return True

    def _look_later(self) -> None:
        self._cancel_look = self._clock.call_at(
            self._clock.now_ms() + LOOK_EVERY_MS, lambda: mail.tell(self.actor_ref, "look")
        )
