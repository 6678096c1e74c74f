"""Clients of the journal: one for the event loop, one for threads. Both limit the commands in flight."""

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pykka

from hive.actors.journal_messages import KEY_MAX_CHARS, Adopt, Decided, Read, Submission, Submit
from hive.deciders.base import Command
from hive.errors import BadRequest, LimitReached, Unavailable
from hive.events.base import Seq
from hive.names import AgentName
from hive.projections.hive import Hive

T = TypeVar("T")

UNDER_WAY_MAX = 50_000
"""Unanswered commands per client. The journal's mailbox itself is unbounded."""
AGENT_UNDER_WAY_MAX = 64
"""Commands of one agent that are with the journal at once. Further ones wait here, so a batch has room for others."""
LATENCIES_KEPT = 1_000
ASK_TIMEOUT_S = 30.0
"""A commit takes milliseconds. After this time the caller gives up; with an idempotency key it can retry."""


class _Ticket(msgspec.Struct, gc=False):
    """Where an answer goes."""

    future: asyncio.Future[Any]
    began_s: float
    agent: AgentName | None = None
    """Who asked, if it was an agent."""


class AsyncJournalClient:
    """For coroutines of one event loop. The commands of one tick are sent as one message, and so are the answers."""

    def __init__(self, journal: "pykka.ActorRef[Any]", loop: asyncio.AbstractEventLoop):
        self._journal = journal
        self._loop = loop
        self._gathered: list[Submission] = []
        self._tick_s = 0.0
        """When the first of them was gathered."""
        self._sent: dict[AgentName, int] = {}
        """Commands of each agent that are with the journal."""
        self._waiting: dict[AgentName, deque[Submission]] = {}
        """Commands of agents that have as many there as they may have."""
        self._under_way = 0
        self._took_s: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def latencies(self) -> list[float]:
        """Seconds from submission to answer of the newest commands."""
        return list(self._took_s)

    def ask(self, command: Command, key: str | None = None) -> asyncio.Future[Decided]:
        """Decide and commit. The future has the answer or, as its exception, Refused, a subclass, or Unavailable.

        Raises:
            BadRequest: not a key. LimitReached: too many commands are in flight.
        """
        if key is not None and not 0 < len(key) <= KEY_MAX_CHARS:
            raise BadRequest(f"A key has 1 to {KEY_MAX_CHARS} characters.")
        future: asyncio.Future[Decided] = self._future()
        if not self._gathered:
            self._tick_s = self._loop.time()
        by = command.by
        if by.kind != "agent":
            self._gather(Submission(command, _Ticket(future, self._tick_s), key))
            return future
        name = by.name
        submission = Submission(command, _Ticket(future, self._tick_s, name), key)
        sent = self._sent.get(name, 0)
        if sent < AGENT_UNDER_WAY_MAX:
            self._sent[name] = sent + 1
            self._gather(submission)
        else:
            self._waiting.setdefault(name, deque()).append(submission)
        return future

    async def read(self, query: Callable[[Hive], T]) -> T:
        """Call `query` with the committed state, on the journal's thread."""
        result: T = await self._told(lambda ticket: Read(self, query, ticket))
        return result

    async def adopt(self) -> Seq:
        """Adopt the file of a finished rebuild; returns its position.

        Raises:
            Unavailable: the file cannot be used. Nothing changed.
        """
        position: Seq = await self._told(lambda ticket: Adopt(self, ticket))
        return position

    def deliver(self, answers: list[tuple[Any, Any]]) -> None:
        """Runs on a thread of the journal."""
        try:
            self._loop.call_soon_threadsafe(self._settle, answers)
        except RuntimeError:  # The loop is closed: the daemon ends, and no caller waits.
            return

    def _future(self) -> asyncio.Future[Any]:
        if self._under_way >= UNDER_WAY_MAX:
            raise LimitReached(f"{UNDER_WAY_MAX} commands are in flight. Try again in a moment.")
        self._under_way += 1
        return self._loop.create_future()

    async def _told(self, message: Callable[[Any], Read | Adopt]) -> Any:
        future = self._future()
        ticket = _Ticket(future, self._loop.time())
        try:
            self._journal.tell(message(ticket))
        except pykka.ActorDeadError:
            self._settle([(ticket, Unavailable("The journal has stopped."))])
        return await future

    def _gather(self, submission: Submission) -> None:
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(submission)

    def _leave(self, agent: AgentName) -> None:
        """A command of this agent was answered: the next one that waits takes its place."""
        if waiting := self._waiting.get(agent):
            self._gather(waiting.popleft())
            if not waiting:
                del self._waiting[agent]
        elif (sent := self._sent[agent]) > 1:
            self._sent[agent] = sent - 1
        else:
            del self._sent[agent]

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        try:
            self._journal.tell(Submit(self, gathered))
        except pykka.ActorDeadError:
            self._settle([(one.ticket, Unavailable("The journal has stopped.")) for one in gathered])

    def _settle(self, answers: list[tuple[_Ticket, Any]]) -> None:
        self._under_way -= len(answers)
        now_s = self._loop.time()
        for ticket, outcome in answers:
            if ticket.agent is not None:
                self._leave(ticket.agent)
            future = ticket.future
            if future.done():
                continue
            self._took_s.append(now_s - ticket.began_s)
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class BlockingJournalClient:
    """For actors and other threads."""

    def __init__(self, journal: "pykka.ActorRef[Any]"):
        self._journal = journal

    def ask(self, command: Command) -> Decided:
        """Decide and commit; blocks.

        Raises:
            Refused or a subclass: the rule refused. Unavailable: the log could not be written in time.
        """
        decided: Decided = self._wait(lambda ticket: Submit(self, [Submission(command, ticket)]))
        return decided

    def tell(self, command: Command) -> None:
        """Submit a command that no rule refuses, without waiting."""
        ticket: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._journal.tell(Submit(self, [Submission(command, ticket)]))

    def read(self, query: Callable[[Hive], T]) -> T:
        """Call `query` with the committed state, on the journal's thread; blocks."""
        result: T = self._wait(lambda ticket: Read(self, query, ticket))
        return result

    def deliver(self, answers: list[tuple[Any, Any]]) -> None:
        """Runs on a thread of the journal."""
        for ticket, outcome in answers:
            if isinstance(outcome, Exception):
                ticket.set_exception(outcome)
            else:
                ticket.set_result(outcome)

    def _wait(self, message: Callable[[Any], Submit | Read]) -> Any:
        ticket: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            self._journal.tell(message(ticket))
            return ticket.result(ASK_TIMEOUT_S)
        except pykka.ActorDeadError as error:
            raise Unavailable("The journal has stopped.") from error
        except TimeoutError as error:
            raise Unavailable(f"The journal did not answer within {ASK_TIMEOUT_S:.0f} s.") from error
