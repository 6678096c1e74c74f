"""The start of a daemon on a long log: time to its ready line, memory, and how much of the log it reads.

It is compared with an empty hive of as many agents, started in turn with it.

`python -m benchmarks.long_log [--events 10000000] [--folder DIR]`: seeds a log of whole turns, which takes a while,
starts and stops a daemon a few times, and prints one JSON object. A folder that is given is kept and used again.
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

from benchmarks import seeding
from hive.paths import Paths
from hive.sockets.client import HostClient

STARTS = 5
MIB = 1024 * 1024
KIB = 1024
NO_MODEL = "http://127.0.0.1:9"


def measured(folder: Path, events: int) -> dict[str, Any]:
    """Seed the log unless it is there, and start daemons on it."""
    paths = Paths(folder / "state", folder / "run")
    if not paths.events.exists():
        seeding.turns(paths.state, events)
    empty = Paths(folder / "empty" / "state", folder / "empty" / "run")
    if not empty.events.exists():
        seeding.roster(empty.state, seeding.AGENTS)
    starts, bare = [], []
    for _ in range(STARTS):
        bare.append(_start(empty))
        starts.append(_start(paths))
    return {
        "events": events,
        "log_mb": round(paths.events.stat().st_size / MIB),
        "projections_mb": round(paths.projections.stat().st_size / MIB),
        "start_s": round(statistics.median(one["start_s"] for one in starts), 2),
        "slowest_start_s": round(max(one["start_s"] for one in starts), 2),
        "peak_rss_mb": round(max(one["peak_rss_mb"] for one in starts)),
        "against_an_empty_hive": round(_median(starts, "start_s") / _median(bare, "start_s"), 2),
        "start_cpu_s": round(_median(starts, "cpu_s"), 2),
        "start_cpu_s_of_an_empty_hive": round(_median(bare, "cpu_s"), 2),
        "read_mb": round(statistics.median(one["read_mb"] for one in starts)),
    }


def _start(paths: Paths) -> dict[str, float]:
    command = [sys.executable, "-m", "hive", "up", "--state", str(paths.state), "--run", str(paths.run)]
    command += ["--runtime", "process", "--no-dashboard", "--model-url", NO_MODEL]
    with (paths.state.parent / "daemon.log").open("w") as log:
        began = time.perf_counter()
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert daemon.stdout is not None
        if not daemon.stdout.readline().startswith("hive ready"):
            raise SystemExit((paths.state.parent / "daemon.log").read_text())
        took = time.perf_counter() - began
        ticks = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        peak = _proc(daemon.pid, "status", "VmHWM") / KIB
        read = _proc(daemon.pid, "io", "rchar") / MIB
        with HostClient(paths.host_socket) as client:
            client.ask("shutdown")
        daemon.wait()
        return {"start_s": took, "cpu_s": cpu, "peak_rss_mb": peak, "read_mb": read}
    finally:
        daemon.kill()


def _median(starts: list[dict[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in starts)


def _proc(pid: int, file: str, key: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return float(value.split()[0])
    raise KeyError(key)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_log", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="length of the log")
    parser.add_argument("--folder", type=Path, help="keep the log here; default: a temporary folder")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hive-long-"))
    try:
        print(json.dumps(measured(folder, options.events)))  # noqa: T201
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
