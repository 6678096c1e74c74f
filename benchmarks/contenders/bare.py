"""Bare SQLite through apsw, the baseline. One table, no hash, no index, no projection, no other thread."""

import asyncio
import gc
import socket
import sys
import threading
import time
from pathlib import Path

import apsw
import msgspec

from benchmarks.contenders.serving import Reply, Verb, serve, timed
from benchmarks.payload import as_json, bodies
from hive.events import EVENT_TYPES
from hive.events.log import LogReader

FLOOR_SQL = "CREATE TABLE IF NOT EXISTS events(seq INTEGER PRIMARY KEY, at TEXT, type TEXT, data TEXT)"
AT = "2026-01-31T09:30:00.125Z"
PAUSE_S = 0.005
"""Idle time before each round trip, as before each message to a parked recv."""
PARKING_S = 0.1
"""Time for hundreds of threads to block."""


class Bare:
    """One connection: WAL, synchronous FULL, default checkpoints."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._db = _opened(folder / "bare.db")
        self._bodies = bodies()
        self._seq = 0

    async def append(self, events: int, per_commit: int = 1) -> Reply:
        """`per_commit` events a transaction."""
        took, clock = [], time.perf_counter
        began = clock()
        for _ in range(events // per_commit):
            start = clock()
            self._commit(per_commit)
            took.append(clock() - start)
        return timed(took, clock() - began, events)

    async def copy_log(self, state: str) -> Reply:
        """Copy the events of a hive's log, to scan and decode them here."""
        reader = LogReader(Path(state), daemon_runs=False)
        db = _opened(self._folder / "scanned.db")
        db.execute("DELETE FROM events; BEGIN IMMEDIATE").fetchall()
        db.executemany("INSERT INTO events VALUES(?,?,?,?)", (row[:4] for row in reader.rows(1)))
        db.execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        reader.close()
        db.close()
        return {}

    async def scan(self) -> Reply:
        """Read and decode every row, and discard it."""
        decoders = {name: msgspec.json.Decoder(cls).decode for name, cls in EVENT_TYPES.items()}
        db = _opened(self._folder / "scanned.db")
        gc.disable()
        began, count = time.perf_counter(), 0
        for type_, data in db.execute("SELECT type, data FROM events ORDER BY seq"):
            decoders[type_](data)
            count += 1
        seconds = time.perf_counter() - began
        gc.enable()
        db.close()
        return {"rate": count / seconds}

    async def round_trips(self, count: int) -> Reply:
        """A line over a unix socket to a thread that commits one event and answers; blocking calls on both sides."""
        path = self._folder / "bare.sock"
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        server = threading.Thread(target=self._answer, args=(listening, count))
        server.start()
        took = await asyncio.to_thread(_ask, path, count)
        server.join()
        return timed(took, sum(took))

    async def wake_futures(self, count: int) -> Reply:
        """Milliseconds from the wake-up on the loop until the last of the waiting coroutines runs."""
        loop = asyncio.get_running_loop()
        waiting = [loop.create_future() for _ in range(count)]
        began, ended = 0.0, 0.0

        async def wait(future: asyncio.Future[None]) -> None:
            nonlocal ended
            await future
            ended = time.perf_counter()

        def wake() -> None:
            nonlocal began
            began = time.perf_counter()
            for future in waiting:
                future.set_result(None)

        tasks = [asyncio.create_task(wait(future)) for future in waiting]
        await asyncio.sleep(0)
        await asyncio.to_thread(loop.call_soon_threadsafe, wake)
        await asyncio.gather(*tasks)
        return {"ms": 1_000 * (ended - began)}

    async def wake_threads(self, count: int) -> Reply:
        """The same with threads that wait for one event."""
        event, ended = threading.Event(), []
        parked = threading.Barrier(count + 1)

        def wait() -> None:
            parked.wait()
            event.wait()
            ended.append(time.perf_counter())

        threads = [threading.Thread(target=wait) for _ in range(count)]
        for thread in threads:
            thread.start()
        parked.wait()
        await asyncio.sleep(PARKING_S)
        began = time.perf_counter()
        event.set()
        for thread in threads:
            thread.join()
        return {"ms": 1_000 * (max(ended) - began)}

    def _answer(self, listening: socket.socket, count: int) -> None:
        db = _opened(self._folder / "answered.db")
        connection, _ = listening.accept()
        with connection, listening, connection.makefile("rb") as lines:
            for _ in range(count):
                data = lines.readline().decode()
                db.execute("INSERT INTO events(at, type, data) VALUES(?,?,?)", (AT, "MessageSent", data))
                connection.sendall(b'{"ok":true}\n')
        db.close()

    def _commit(self, count: int) -> None:
        rows = []
        for _ in range(count):
            self._seq += 1
            rows.append((AT, "MessageSent", as_json(self._seq, self._bodies[self._seq % len(self._bodies)])))
        if count == 1:
            self._db.execute("INSERT INTO events(at, type, data) VALUES(?,?,?)", rows[0])
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO events(at, type, data) VALUES(?,?,?)", rows)
        self._db.execute("COMMIT")


def _ask(path: Path, count: int) -> list[float]:
    took, text = [], bodies()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        with connection.makefile("rb") as lines:
            for nth in range(count):
                line = as_json(nth, text[nth % len(text)]).encode() + b"\n"
                time.sleep(PAUSE_S)
                began = time.perf_counter()
                connection.sendall(line)
                lines.readline()
                took.append(time.perf_counter() - began)
    return took


def _opened(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.execute(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {FLOOR_SQL}").fetchall()
    return db


def main() -> None:
    bare = Bare(Path(sys.argv[1]))
    verbs: dict[str, Verb] = {
        "append": bare.append,
        "copy_log": bare.copy_log,
        "scan": bare.scan,
        "round_trips": bare.round_trips,
        "wake_futures": bare.wake_futures,
        "wake_threads": bare.wake_threads,
    }
    asyncio.run(serve(verbs))


if __name__ == "__main__":
    main()
