"""The newest tries of agents to connect outside, in memory. The broker's actor writes, socket verbs read."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from hive.broker.wire import Outcome, Try
from hive.names import AgentName

KEPT_MAX: Final = 100
"""Of one agent."""


class RecentTries:
    """Safe to use from any thread. Lost with the daemon: what matters of it is in the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[AgentName, OrderedDict[tuple[str, int, Outcome], Try]] = {}

    def note(self, name: AgentName, tries: Iterable[Try]) -> None:
        with self._lock:
            known = self._of.setdefault(name, OrderedDict())
            for one in sorted(tries, key=lambda one: one.last_ms):
                known.pop((one.host, one.port, one.outcome), None)
                known[one.host, one.port, one.outcome] = one
            while len(known) > KEPT_MAX:
                known.popitem(last=False)

    def forget(self, name: AgentName) -> None:
        with self._lock:
            self._of.pop(name, None)

    def of(self, name: AgentName) -> list[Try]:
        """Newest first."""
        with self._lock:
            return list(reversed(self._of.get(name, OrderedDict()).values()))
