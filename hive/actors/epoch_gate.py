"""Holds agents back at the start until it is known whether a peer has adopted them. Used by agents and the link."""

import threading
from collections.abc import Callable, Iterable

from hive.clock import TimeMs
from hive.names import MANAGER, AgentName


class EpochGate:
    """Closed from the start of a daemon, in a swarm, until the swarm was read once. Used from any thread.

    It is in memory on purpose: what a peer did while this hive was away is not in its log, so each daemon must look.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_ms: TimeMs | None = None
        self._why = ""
        self._allowed: set[AgentName] = set()
        self._waiting: list[Callable[[], object]] = []

    def close(self, now: TimeMs) -> None:
        with self._lock:
            self._closed_ms = now
            self._why = "not connected yet"

    def explain(self, why: str) -> None:
        """Why the swarm was not read yet."""
        with self._lock:
            self._why = why

    def open(self) -> None:
        with self._lock:
            self._closed_ms = None
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            one()

    def allow(self, names: Iterable[AgentName]) -> None:
        """The operator starts these without knowing."""
        with self._lock:
            self._allowed.update(names)

    def why_held(self, name: AgentName, added_ms: TimeMs) -> str | None:
        """Why an agent may not start yet; None: it may. An agent added since the gate was closed is in no replica."""
        with self._lock:
            closed = self._closed_ms
            if closed is None or name == MANAGER or name in self._allowed or added_ms >= closed:
                return None
            return (
                f"{name} may have been adopted by another hive, and the swarm was not read since this start:"
                f" {self._why}. It starts by itself then. To start it anyway: hive start {name} --without-swarm"
            )

    def when_open(self, then: Callable[[], object]) -> None:
        """Call it once when the gate opens; at once if it is open. It must only tell."""
        with self._lock:
            if self._closed_ms is not None:
                self._waiting.append(then)
                return
        then()
