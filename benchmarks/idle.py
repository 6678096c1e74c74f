"""The CPU share and memory of an idle daemon with real agents parked in recv, and their wake-up time.

`python -m benchmarks.idle [--agents 50] [--seconds 60]`: a hive in a temporary folder, agents as plain processes,
its own daemon; prints one JSON object. The figures cover the daemon only; the harness's memory is listed separately.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hive.paths import Paths
from hive.runtimes.protocol import Running
from hive.runtimes.record import Record
from hive.sockets.client import HostClient, connect

NO_MODEL = "http://127.0.0.1:9"
"""No agent takes a turn here."""
CONNECT_S = 120.0
"""Time limit for every harness to connect."""
QUIET_S = 15.0
"""Wait between the last connect and the measurement, so that start-up work is done."""
LOOK_S = 0.2
WAKES = 100
PARKING_S = 0.01
"""Wait for the recv to park before the message is sent."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024


def measured(agents: int, seconds: float) -> dict[str, Any]:
    """Start a hive with this many agents, leave it idle, and measure its usage."""
    folder = Path(tempfile.mkdtemp(prefix="hive-idle-"))
    paths = Paths(folder / "state", folder / "run")
    command = [sys.executable, "-m", "hive", "up", "--state", str(paths.state), "--run", str(paths.run)]
    command += ["--runtime", "process", "--no-dashboard", "--model-url", NO_MODEL]
    with (folder / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert daemon.stdout is not None
        if not daemon.stdout.readline().startswith("hive ready"):
            raise SystemExit((folder / "daemon.log").read_text())
        with HostClient(paths.host_socket) as client:
            names = ["manager", *(f"agent-{nth}" for nth in range(1, agents))]
            for name in names[1:]:
                client.ask("spawn", name=name)
            _await_hellos(client, agents)
            time.sleep(QUIET_S)
            before, threads = _cpu_s(daemon.pid), _threads(daemon.pid)
            began = time.monotonic()
            time.sleep(seconds)
            used, took = _cpu_s(daemon.pid) - before, time.monotonic() - began
            result = {
                "agents": agents,
                "seconds": round(took, 1),
                "cpu_percent_of_a_core": round(100 * used / took, 3),
                "daemon_rss_mb": round(_rss_kib(daemon.pid) / KIB, 1),
                "daemon_threads": threads,
                "harness_rss_mb": round(sum(_rss_kib(pid) for pid in _programs(paths, names)) / KIB / agents, 1),
            }
            result["parked_recv_wakes_ms"] = round(_wake_ms(client, paths), 2)
            client.ask("shutdown")
        daemon.wait()
        return result
    finally:
        daemon.kill()
        for record in paths.run.glob("records/*"):
            Record(record).kill()
        shutil.rmtree(folder)


def _wake_ms(client: HostClient, paths: Paths) -> float:
    """Median time from a send to the reply of the parked recv, including the commit's fsync."""
    client.ask("spawn", name="parked")
    client.ask("stop", scope={"agent_names": ["parked"]}, graceful=False)  # Otherwise its harness takes the messages.
    took = []
    with connect(paths.agent_socket("parked")) as parked:
        replies = parked.makefile("rb")
        for nth in range(WAKES):
            parked.sendall(b'{"cmd":"recv","wait_seconds":180}\n')
            time.sleep(PARKING_S)
            began = time.perf_counter()
            client.ask("send", to="parked", body=str(nth))
            replies.readline()
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _await_hellos(client: HostClient, agents: int) -> None:
    deadline = time.monotonic() + CONNECT_S
    while len(client.ask("events", types=["IncarnationSeen"])["events"]) < agents:
        if time.monotonic() > deadline:
            raise SystemExit(f"Not all of {agents} agents connected within {CONNECT_S:.0f} s.")
        time.sleep(LOOK_S)


def _programs(paths: Paths, names: list[str]) -> list[int]:
    found = [Record(paths.record(name)).status() for name in names]
    return [status.pid for status in found if isinstance(status, Running)]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _threads(pid: int) -> int:
    return int(_status(pid, "Threads"))


def _rss_kib(pid: int) -> int:
    return int(_status(pid, "VmRSS").removesuffix(" kB"))


def _status(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise KeyError(key)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    sys.stdout.write(json.dumps(measured(chosen.agents, chosen.seconds), indent=2) + "\n")


if __name__ == "__main__":
    main()
