"""Holds a transient state of an agent (spawning, stopping …) for exactly as long as its holder works on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock, DurationMs
from hive.deciders.record import ClearTransient, SetTransient
from hive.errors import HiveError
from hive.events.base import By
from hive.events.transient import TransientKind
from hive.names import AgentName

log = structlog.get_logger()

HOLDER_LOOK_MS: DurationMs = 500
"""How often a guard checks that its holder is alive."""
_Message = Literal["set", "look"]
_LOOK: Final = "look"
Holder = pykka.ActorRef


class TransientGuard(pykka.ThreadingActor):
    """Sets the transient when it starts and clears it when it stops, for any reason.

    It watches its holder and clears the transient if the holder dies inside the `with` block. If the guard or the
    daemon dies, the next boot clears it.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        agent: AgentName,
        kind: TransientKind,
        holder: "Holder[Any]",
        by: By,
    ):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._agent = agent
        self._kind = kind
        self._holder = holder
        self._by = by
        self._cancel_look: Callable[[], None] = lambda: None

    @classmethod
    @contextmanager
    def hold(
        cls,
        journal: BlockingJournalClient,
        clock: Clock,
        agent: AgentName,
        kind: TransientKind,
        holder: "Holder[Any]",
        by: By,
    ) -> Iterator[None]:
        """Hold the transient for the duration of the block, however it ends.

        Raises:
            Unavailable: the journal cannot record it.
        """
        guard = cls.start(journal, clock, agent, kind, holder, by)
        try:
            guard.ask("set")
            yield
        finally:
            guard.stop()

    def on_receive(self, message: _Message) -> None:
        if message == "set":
            self._journal.ask(SetTransient(by=self._by, agent=self._agent, kind=self._kind))
        if self._holder.is_alive():
            at = self._clock.now_ms() + HOLDER_LOOK_MS
            self._cancel_look = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, _LOOK))
        else:
            log.warning("transient.holder_died", agent=self._agent, kind=self._kind)
            self.stop()

    def on_stop(self) -> None:
        self._cancel_look()
        try:
            self._journal.ask(ClearTransient(by=self._by, agent=self._agent, kind=self._kind))
        except HiveError as error:
            log.warning("transient.not_cleared", agent=self._agent, kind=self._kind, error=str(error))
