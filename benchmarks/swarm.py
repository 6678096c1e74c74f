"""Many hives on one machine: real daemons, journals and NATS servers; the agents' harnesses are stubs of this process.

`python -m benchmarks.swarm [--hives 20] [--agents 50] [--rate 20] [--seconds 60]` prints one JSON object. Each stub
takes the messages of its agent, records a turn, and acknowledges. Random agents write to random agents of other hives
at the rate. Then one hive is killed, misses messages, and comes back. At the end every message must have arrived once
and in its order.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from benchmarks.seeding import names
from benchmarks.swarm_hives import Hives, cpu_s, resident_mb, swarm
from hive.events.log import LogReader, verify
from hive.paths import Paths

RECV_MAX: Final = 32
SETTLE_S: Final = 300.0
LOOK_S: Final = 0.5
IDLE_S: Final = 20.0
MISSED: Final = 500
"""Messages to a hive while its daemon is away."""
TURN: Final = {"model": "stub", "wake_from": "peer", "result_kind": "ok", "input_tokens": 1, "output_tokens": 1}


class Stub:
    """The harness of one agent: a connection that receives, and one that sends."""

    def __init__(self, hive: str, name: str, paths: Paths, arrived: dict[str, list[float]]):
        self.address = f"{name}@{hive}"
        self._path = paths.agent_socket(name)
        self._arrived = arrived
        self._lock = asyncio.Lock()
        self._sending: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def work(self) -> None:
        """Until cancelled; connects again after its daemon was away."""
        while True:
            with contextlib.suppress(OSError, EOFError, ValueError):
                pair = await asyncio.open_unix_connection(str(self._path))
                while True:
                    await self._take(pair)
            await asyncio.sleep(LOOK_S)

    async def _take(self, pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        messages = (await _ask(pair, cmd="recv", wait_seconds=180, max=RECV_MAX))["messages"]
        if not messages:
            return
        now = time.monotonic()
        await _ask(pair, cmd="turn_started", model="stub", message_ids=[one["id"] for one in messages])
        for one in messages:
            if "@" in one["from"] and "sent" in (body := _body(one["body"])):
                self._arrived[f"{one['from']} {self.address}"].append(body["nth"])
                self._arrived["delays"].append(now - body["sent"])
        await _ask(pair, cmd="ack", ids=[one["id"] for one in messages])
        await _ask(pair, cmd="turn_ended", **TURN)

    async def send(self, to: str, nth: int) -> None:
        async with self._lock:
            if self._sending is None:
                self._sending = await asyncio.open_unix_connection(str(self._path))
            body = json.dumps({"nth": nth, "sent": time.monotonic()})
            await _ask(self._sending, cmd="send", to=to, body=body)


def _body(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


async def _ask(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], **request: Any) -> dict[str, Any]:
    """Raises EOFError: the daemon has gone. SystemExit: it refuses."""
    pair[1].write(json.dumps(request).encode() + b"\n")
    line = await pair[0].readline()
    if not line:
        raise EOFError
    reply: dict[str, Any] = json.loads(line)
    if not reply["ok"]:
        raise SystemExit(f"{request['cmd']} is refused: {reply['error']}")
    return reply


class Run:
    """One simulation: the stubs, what they sent, and what arrived."""

    def __init__(self, hives: Hives, agents: int, rate: float):
        self._hives, self._rate = hives, rate
        self.arrived: dict[str, list[float]] = defaultdict(list)
        self._sent: dict[str, int] = defaultdict(int)
        self._random = random.Random(1)
        self.running = list(hives.daemons)
        self._stubs = {
            (hive, name): Stub(hive, name, hives.paths[hive], self.arrived)
            for hive in self.running
            for name in names(agents)[1:]
        }
        self._tasks = [asyncio.create_task(stub.work()) for stub in self._stubs.values()]

    async def traffic(self, count: int, to_hive: str | None = None) -> float:
        """So many messages at the rate; the seconds that it took."""
        sends = set[asyncio.Task[None]]()
        began = time.monotonic()
        for nth in range(count):
            source = self._chosen([stub for (hive, _), stub in self._stubs.items() if hive != to_hive])
            others = [stub for (hive, _), stub in self._stubs.items() if not source.address.endswith(f"@{hive}")]
            target = self._chosen([one for one in others if to_hive is None or one.address.endswith(f"@{to_hive}")])
            pair = f"{source.address} {target.address}"
            sends.add(asyncio.create_task(source.send(target.address, self._sent[pair])))
            self._sent[pair] += 1
            await asyncio.sleep(max(0.0, began + (nth + 1) / self._rate - time.monotonic()))
        await asyncio.gather(*sends)
        return time.monotonic() - began

    async def settle(self) -> float:
        """Until everything sent has arrived; the seconds that it took."""
        began = time.monotonic()
        while len(self.arrived["delays"]) < sum(self._sent.values()):
            if time.monotonic() - began > SETTLE_S:
                raise SystemExit(f"{sum(self._sent.values()) - len(self.arrived['delays'])} messages did not arrive.")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    def check(self) -> int:
        """How many messages there were. Raises SystemExit: one was lost or doubled, or came out of order."""
        for pair, count in self._sent.items():
            if self.arrived[pair] != list(range(count)):
                raise SystemExit(f"{pair}: {count} were sent, {self.arrived[pair]} arrived.")
        return sum(self._sent.values())

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _chosen(self, stubs: list[Stub]) -> Stub:
        return self._random.choice(stubs)


async def _simulated(hives: Hives, agents: int, rate: float, seconds: float) -> dict[str, Any]:
    run = Run(hives, agents, rate)
    found: dict[str, Any] = {}
    idle = await _share(hives, asyncio.sleep(IDLE_S))
    found["idle"] = idle
    count = round(rate * seconds)
    busy = await _share(hives, run.traffic(count))
    found["traffic"] = busy | {"messages": count, "settled_after_s": round(await run.settle(), 1)}
    found["traffic"]["messages_a_second"] = round(count / busy["seconds"], 1)
    found["delay_ms"] = _delays(run.arrived["delays"])
    lost = run.running[-1]
    hives.daemons[lost].kill()
    hives.daemons[lost].wait()
    await run.traffic(MISSED, lost)
    began = time.monotonic()
    await asyncio.to_thread(hives.start, lost)
    started = time.monotonic() - began
    await run.settle()
    found["a_hive_that_was_away"] = {
        "missed_messages": MISSED,
        "start_s": round(started, 1),
        "has_all_after_s": round(time.monotonic() - began, 1),
    }
    found["messages_once_and_in_order"] = run.check()
    run.end()
    return found


def _delays(delays_s: list[float]) -> dict[str, float]:
    ordered = sorted(1_000 * one for one in delays_s)
    cuts = statistics.quantiles(ordered, n=100)
    return {
        "p50": round(cuts[49], 1),
        "p90": round(cuts[89], 1),
        "p99": round(cuts[98], 1),
        "max": round(ordered[-1], 1),
    }


async def _share(hives: Hives, work: Any) -> dict[str, Any]:
    """Processor time, as a share of one core, while some work is done."""
    daemons = [daemon.pid for daemon in hives.daemons.values()]
    servers = [server.pid for server in hives.servers]
    before = [sum(cpu_s(pid) for pid in pids) for pids in (daemons, servers)]
    began = time.monotonic()
    await work
    took = time.monotonic() - began
    after = [sum(cpu_s(pid) for pid in pids) for pids in (daemons, servers)]
    shares = [round(100 * (new - old) / took, 1) for old, new in zip(before, after, strict=True)]
    return {
        "seconds": round(took, 1),
        "daemons_percent_of_a_core": shares[0],
        "one_daemon_percent_of_a_core": round(shares[0] / len(daemons), 2),
        "servers_percent_of_a_core": shares[1],
    }


def _memory(hives: Hives) -> dict[str, float]:
    daemons = [resident_mb(daemon.pid) for daemon in hives.daemons.values()]
    servers = [resident_mb(server.pid) for server in hives.servers]
    return {"one_daemon": round(statistics.median(daemons), 1), "one_server": round(statistics.median(servers), 1)}


def _verified(hives: Hives) -> dict[str, int]:
    """Events of all logs, and whether each holds. Raises SystemExit: one does not."""
    events = 0
    for name in hives.daemons:
        reader = LogReader(hives.paths[name].state, daemon_runs=True)
        count, broken = verify(reader.rows(1))
        reader.close()
        if broken is not None:
            raise SystemExit(f"{name}: event {broken.seq} {broken.why}")
        events += count
    return {"logs": len(hives.daemons), "events": events}


def measured(count: int, agents: int, rate: float, seconds: float) -> dict[str, Any]:
    """Start the hives, run the traffic, and check what arrived."""
    folder = Path(tempfile.mkdtemp(prefix="hive-swarm-"))
    try:
        began = time.monotonic()
        with swarm(folder, [f"hive-{nth}" for nth in range(1, count + 1)], agents + 1) as hives:
            result: dict[str, Any] = {"hives": count, "agents_each": agents, "all_see_all_after_s": 0.0}
            result["all_see_all_after_s"] = round(time.monotonic() - began, 1)
            result |= asyncio.run(_simulated(hives, agents, rate, seconds))
            result["memory_mb"] = _memory(hives)
            result["verified"] = _verified(hives)
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swarm", description=__doc__)
    parser.add_argument("--hives", type=int, default=20)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second, of all hives together")
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    sys.stdout.write(json.dumps(measured(chosen.hives, chosen.agents, chosen.rate, chosen.seconds), indent=2) + "\n")


if __name__ == "__main__":
    main()
