"""A heap of deadlines with one timer for the earliest. Used by actors that wait for a time."""

import heapq
from collections.abc import Callable, Iterator

from hive.clock import Clock, TimeMs


class Deadlines:
    """Ids ordered by due time. Owned by one actor. `wake` runs on a timer thread and must only tell that actor."""

    def __init__(self, clock: Clock, wake: Callable[[], object]):
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[TimeMs, int]] = []
        self._due: dict[int, TimeMs] = {}
        self._armed_for: TimeMs | None = None
        self._cancel: Callable[[], None] = lambda: None

    def set(self, id: int, due: TimeMs) -> None:
        """Add or move a deadline."""
        self._due[id] = due
        heapq.heappush(self._heap, (due, id))
        self._arm()

    def discard(self, id: int) -> None:
        """Remove a deadline. An unknown id is ignored."""
        self._due.pop(id, None)

    def passed(self) -> Iterator[int]:
        """Remove and yield the due ids, earliest first, then arm the timer for the next."""
        while self._heap and self._heap[0][0] <= self._clock.now_ms():
            due, id = heapq.heappop(self._heap)
            if self._due.get(id) == due:
                del self._due[id]
                yield id
        self._armed_for = None
        self._arm()

    def close(self) -> None:
        self._cancel()

    def _arm(self) -> None:
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap or (self._armed_for is not None and self._armed_for <= self._heap[0][0]):
            return
        self._cancel()
        self._armed_for = self._heap[0][0]
        self._cancel = self._clock.call_at(self._armed_for, self._wake)
