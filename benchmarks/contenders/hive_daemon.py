"""The real daemon; the producers run on its event loop, like its sockets."""

import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pykka

from benchmarks.contenders.serving import Reply, Verb, produce, serve, timed
from benchmarks.payload import bodies
from benchmarks.seeding import names
from hive import daemon, lock
from hive.actors.current_settings import CurrentSettings
from hive.actors.journal_clients import AsyncJournalClient, BlockingJournalClient
from hive.actors.journal_messages import Decided
from hive.actors.rebuilding import Rebuilding
from hive.deciders.base import Command
from hive.deciders.messages import RECV_MAX, Ack, Recv, Send
from hive.events.base import agent
from hive.events.sqlite import connect
from hive.host_users import HostUsers
from hive.paths import Paths
from hive.projections.table import Recorded
from hive.runtimes.choose import choose

BESIDE_MAX = 400_000
"""Messages appended beside one rebuild, to 64 inboxes of 10,000: a slow rebuild would see them full."""
NO_MODEL = "http://127.0.0.1:9"
"""No container starts, so nothing calls it."""


class _Measured(daemon._Daemon):
    """The daemon; it passes its client to the measurement once it serves."""

    def __init__(self, paths: Paths, agents: int):
        settings = CurrentSettings(paths.settings)
        super().__init__(
            paths, settings, choose("process"), settings.now.dashboard.listen, False, NO_MODEL, HostUsers()
        )
        self._agents = names(agents)
        self._bodies = bodies()
        self._keys = 0

    async def _serve(
        self, journal: "pykka.ActorRef[Any]", threads: BlockingJournalClient, client: AsyncJournalClient
    ) -> None:
        self._measured_client = client
        await super()._serve(journal, threads, client)

    def _say_ready(self) -> None:
        self._measuring = asyncio.create_task(self._measure())

    async def _measure(self) -> None:
        verbs: dict[str, Verb] = {
            "append": self.append,
            "append_together": self.append_together,
            "beside_rebuild": self.beside_rebuild,
            "watch_wakes": self.watch_wakes,
            "woken": self.woken,
            "drain": self.drain,
            "stored": self.stored,
            "memory": self.memory,
        }
        try:
            await serve(verbs)
        except Exception as error:  # Nobody waits for this task, and the daemon ends as if it had been told to.
            sys.stderr.write(f"The measurement failed: {error!r}\n")
            raise
        finally:
            self._ends.set()

    async def append(self, producers: int, events: int, keyed: bool = False) -> Reply:
        """Messages from one agent to another, each acknowledged to its own producer.

        `cpu_us` is the processor time of the whole daemon per event, the producers and write-behind included.
        """
        began = time.process_time()
        reply = await produce(lambda producer, nth: self._send(producer, nth, keyed), producers, events)
        return {**reply, "cpu_us": 1e6 * (time.process_time() - began) / events}

    async def append_together(self, events: int, together: int) -> Reply:
        """One producer that submits `together` messages at once and waits for all: one commit each time."""
        took, clock = [], time.perf_counter
        began = clock()
        for nth in range(events // together):
            start = clock()
            await asyncio.gather(*(self._send(producer, nth, False) for producer in range(together)))
            took.append(clock() - start)
        return timed(took, clock() - began, events)

    async def beside_rebuild(self, producers: int, events: int) -> Reply:
        """Appends while a rebuild of every projection runs beside them."""
        rebuild = asyncio.create_task(Rebuilding(self._measured_client, self._paths.state).run())
        appended, began = 0, time.perf_counter()
        while not rebuild.done() and appended < BESIDE_MAX:
            await produce(lambda producer, nth: self._send(producer, nth, False), producers, events)
            appended += events
        seconds = time.perf_counter() - began
        return {"rate": appended / seconds, "seconds": seconds, "position": await rebuild}

    async def watch_wakes(self, parked: int) -> Reply:
        """Take the time of the next commit that wakes so many parked recvs, until the last of them has its message."""
        self._woken = asyncio.create_task(self._watched(parked))
        await asyncio.sleep(0)
        return {}

    async def woken(self) -> Reply:
        """Milliseconds from that commit's arrival on the loop."""
        return {"ms": await self._woken}

    async def _watched(self, parked: int) -> float:
        began, served, all_served = 0.0, 0, asyncio.Event()
        on_committed, ask = self._hub.on_committed, self._measured_client.ask

        def commits(batch: list[Recorded]) -> None:
            nonlocal began
            began = began or time.perf_counter()
            on_committed(batch)

        def answered(recv: asyncio.Future[Decided]) -> None:
            nonlocal served
            served += bool(recv.result().answer[0])
            if served == parked:
                self._loop.call_soon(all_served.set)  # After the coroutine that waits for this answer.

        def asks(command: Command, key: str | None = None) -> asyncio.Future[Decided]:
            future = ask(command, key)
            if isinstance(command, Recv):
                future.add_done_callback(answered)
            return future

        self._hub.on_committed, self._measured_client.ask = commits, asks  # type: ignore[method-assign]
        try:
            await all_served.wait()
            return 1_000 * (time.perf_counter() - began)
        finally:
            self._hub.on_committed, self._measured_client.ask = on_committed, ask  # type: ignore[method-assign]

    async def drain(self) -> Reply:
        """Receive and acknowledge everything, so that each round begins with empty inboxes."""
        for name in self._agents:
            while True:
                by = agent(name)
                taken = await self._measured_client.ask(Recv(by=by, agent=name, limit=RECV_MAX, incarnation="c1"))
                messages = taken.answer[0]
                if not messages:
                    break
                ids = tuple(message.id for message in messages)
                await self._measured_client.ask(Ack(by=by, agent=name, ids=ids))
        return {}

    async def stored(self) -> Reply:
        """Bytes of the log's pages, those in its write-ahead log included, and of all payload in them."""
        db = connect(self._paths.events, write=False)
        payload = db.execute("SELECT sum(octet_length(data)) FROM events").fetchone()
        pages = int(db.pragma("page_count")) - int(db.pragma("freelist_count"))
        stored = pages * int(db.pragma("page_size"))
        db.close()
        return {"payload": payload and payload[0], "stored": stored}

    async def memory(self) -> Reply:
        """Resident bytes of this process."""
        return {"bytes": _resident_bytes()}

    async def _send(self, producer: int, nth: int, keyed: bool) -> object:
        agents = self._agents
        sender = agents[producer % len(agents)]
        to = agents[(producer + 1 + nth) % len(agents)]
        self._keys += 1
        key = f"k{self._keys}" if keyed else None
        send = Send(by=agent(sender), sender=sender, to=to, body=self._bodies[nth % len(self._bodies)])
        return await self._measured_client.ask(send, key)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    state, agents = Path(sys.argv[1]), int(sys.argv[2])
    paths = Paths(state, state.parent / "run")
    paths.run.mkdir(exist_ok=True)
    daemon._log_to_stderr()
    daemon._raise_file_limit()
    with lock.held(paths.lock):
        asyncio.run(_Measured(paths, agents).run())


if __name__ == "__main__":
    main()
