"""The `eventsourcing` package on its own SQLite recorder, with synchronous FULL. Runs with the peers' interpreter."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    DatetimeAsISO,
    EventStore,
    InfrastructureFactory,
    JSONTranscoder,
    Mapper,
    UUIDAsHex,
)
from eventsourcing.utils import Environment

from benchmarks.contenders.serving import Reply, serve, timed
from benchmarks.payload import bodies

PAGE = 500
"""Notifications selected at once; its own default of 10 is slower still."""


class Inbox(Aggregate):
    """The equivalent of an agent's inbox."""

    @event("Sent")
    def send(self, id: int, sender: str, body: str) -> None:
        self.last = id
        del sender, body


class Peer:
    def __init__(self, folder: Path):
        settings = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(folder / "eventsourcing.db"),
            "SQLITE_SYNCHRONOUS": "FULL",
        }
        factory: Any = InfrastructureFactory.construct(Environment("bench", settings))
        self._recorder: Any = factory.application_recorder()
        transcoder = JSONTranscoder()
        transcoder.register(UUIDAsHex())
        transcoder.register(DatetimeAsISO())
        self._mapper: Any = Mapper(transcoder=transcoder)
        self._store = EventStore(self._mapper, self._recorder)
        self._bodies = bodies()

    async def append(self, events: int, per_commit: int = 1) -> Reply:
        """`per_commit` new events of one aggregate with each put."""
        took, clock = [], time.perf_counter
        inbox = Inbox()
        inbox.collect_events()
        began = clock()
        for nth in range(events // per_commit):
            start = clock()
            for each in range(per_commit):
                inbox.send(nth * per_commit + each, "agent-1", self._bodies[nth % len(self._bodies)])
            self._store.put(inbox.collect_events())
            took.append(clock() - start)
        return timed(took, clock() - began, events)

    async def replay(self) -> Reply:
        """Read, decode and fold every event into a dict."""
        began, count, start = time.perf_counter(), 0, 1
        state: dict[object, int] = {}
        while notifications := self._recorder.select_notifications(start, PAGE):
            for notification in notifications:
                decoded = self._mapper.to_domain_event(notification)
                state[decoded.originator_id] = decoded.originator_version
            count += len(notifications)
            start = notifications[-1].id + 1
        return {"rate": count / (time.perf_counter() - began), "events": count}


def main() -> None:
    peer = Peer(Path(sys.argv[1]))
    asyncio.run(serve({"append": peer.append, "replay": peer.replay}))


if __name__ == "__main__":
    main()
