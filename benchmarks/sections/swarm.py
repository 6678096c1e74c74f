"""Messages between agents of two hives, against JetStream's own durable publish on the same three servers."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, Round
from benchmarks.sections import Setting
from benchmarks.swarm_hives import Hives, swarm
from hive.paths import Paths
from hive.settings import load
from hive.sockets.client import connect

TITLE = "Between two hives"
AGENTS = 9
"""Of each hive: the manager, and eight that write to eight over there."""
MESSAGES = 4_000
ONES = 40
"""Messages and publishes one after the other."""
WINDOW = 512
"""Publishes under way, as many as hive's envelopes."""
APPROVALS = 5
LOOK_S = 0.005
RECV_MAX = 32
BODY = "x" * 200
BENCH = "bench"
"""A member without a daemon: it publishes to JetStream as a hive does, to a stream of its own."""

FIGURES = [
    Figure("messages a second from agent to agent, against acknowledged publishes", "hive rate", "publish rate"),
    Figure("delay of one message, against two acknowledged publishes", "hive ms", lambda one: 2 * one["publish ms"]),
    Figure("until a remote approval is on screen, against one such publish", "screen ms", "publish ms"),
    Figure("delay of one message", "hive ms", lambda _: 1.0, None, " ms"),
    Figure("until a remote approval is on screen", "screen ms", lambda _: 1.0, None, " ms"),
    Figure("one acknowledged publish, three copies, synced", "publish ms", lambda _: 1.0, None, " ms"),
    Figure("acknowledged publishes a second", "publish rate", lambda _: 1.0, None, "/s"),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    if find_spec("nats") is None:
        raise LookupError("nats-py is not installed: pip install 'hive[swarm]'")
    with swarm(setting.folder / "swarm", ["tokyo", "berlin"], AGENTS, (BENCH,)) as hives:

        def measured() -> Round:
            count = setting.scale.of(MESSAGES, AGENTS - 1)
            found = asyncio.run(_publishes(hives.paths[BENCH].state, count))
            found["hive rate"] = _rate(hives, count)
            found["hive ms"] = median(_delay_ms(hives, nth) for nth in range(ONES))
            found["screen ms"] = median(_screen_ms(hives, nth) for nth in range(APPROVALS))
            return found

        yield measured


class _Agent:
    """One connection to an agent's socket."""

    def __init__(self, paths: Paths, name: str):
        self._socket = connect(paths.agent_socket(name))
        self._lines = self._socket.makefile("rb")

    def send(self, **request: Any) -> None:
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self._lines.readline())
        if not reply["ok"]:
            raise SystemExit(f"An agent's request is refused: {reply['error']}")
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.reply()

    def take(self, count: int) -> None:
        """Receive and acknowledge so many messages."""
        while count > 0:
            messages = self.ask(cmd="recv", wait_seconds=60, max=RECV_MAX)["messages"]
            if not messages:
                raise SystemExit("A message did not arrive within 60 s.")
            self.ask(cmd="ack", ids=[one["id"] for one in messages])
            count -= len(messages)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _rate(hives: Hives, count: int) -> float:
    """Messages a second, from the first send until the last agent has acknowledged all of its own."""
    each = count // (AGENTS - 1)

    def write(name: str) -> None:
        agent = _Agent(hives.paths["tokyo"], name)
        line = json.dumps({"cmd": "send", "to": f"{name}@berlin", "body": BODY}).encode() + b"\n"
        for _ in range(each):
            agent._socket.sendall(line)
        for _ in range(each):
            agent.reply()
        agent.close()

    def read(name: str) -> None:
        agent = _Agent(hives.paths["berlin"], name)
        agent.take(each)
        agent.close()

    names = [f"agent-{nth}" for nth in range(1, AGENTS)]
    threads = [threading.Thread(target=work, args=(name,)) for name in names for work in (read, write)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * (AGENTS - 1) / (time.perf_counter() - began)


def _delay_ms(hives: Hives, nth: int) -> float:
    """From a send in one hive until the parked recv in the other returns it."""
    sender, receiver = _Agent(hives.paths["tokyo"], "agent-1"), _Agent(hives.paths["berlin"], "agent-1")
    receiver.send(cmd="recv", wait_seconds=60)
    began = time.perf_counter()
    sender.ask(cmd="send", to="agent-1@berlin", body=f"{nth}")
    (message,) = receiver.reply()["messages"]
    took = time.perf_counter() - began
    receiver.ask(cmd="ack", ids=[message["id"]])
    for one in (sender, receiver):
        one.close()
    return 1_000 * took


def _screen_ms(hives: Hives, nth: int) -> float:
    """From a request in one hive until the other's screen shows it."""
    manager = _Agent(hives.paths["berlin"], "manager")
    began = time.perf_counter()
    id = manager.ask(cmd="request_spawn", name=f"new-{nth}")["id"]
    while True:
        (berlin,) = [peer for peer in hives.ask("tokyo", "swarm")["peers"] if peer["name"] == "berlin"]
        if id in [row["id"] for row in berlin["approvals"]]:
            break
        time.sleep(LOOK_S)
    took = time.perf_counter() - began
    hives.ask("berlin", "deny", id=id)
    manager.close()
    return 1_000 * took


async def _publishes(state: Path, count: int) -> Round:
    """JetStream alone, as a hive uses it: TLS, three copies, every write synced, each publish acknowledged."""
    from hive.swarm import keys, subjects
    from hive.swarm.connection import ensure_stream, open_connection

    async def nothing() -> None:
        """The connection is not lost here."""

    client = await open_connection(state, load(state / "hive.toml").swarm, keys.load(state), nothing, nothing)
    try:
        js = client.jetstream()
        await ensure_stream(js, name=subjects.log_stream(BENCH), subjects=[subjects.log(BENCH)])
        subject, body, took, clock = subjects.log(BENCH), BODY.encode(), list[float](), time.perf_counter
        for _ in range(ONES):
            began = clock()
            await js.publish(subject, body)
            took.append(clock() - began)
        window = asyncio.Semaphore(WINDOW)

        async def publish() -> None:
            async with window:
                await js.publish(subject, body)

        began = clock()
        await asyncio.gather(*(publish() for _ in range(count)))
        return {"publish rate": count / (clock() - began), "publish ms": 1_000 * median(took)}
    finally:
        await client.close()
