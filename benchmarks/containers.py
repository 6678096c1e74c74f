"""Start times and memory of agents' containers, per runtime.

`python -m benchmarks.containers [--runtime bubblewrap] [--agents 8] [--image DIR] [--nixpkgs REF]`: for each runtime a
hive in a temporary folder spawns agents in turn, leaves them at rest, and restarts each; prints one JSON object each.
A start ends with the harness's hello, which it sends with its first recv. Memory is the proportional set size
of all processes of a container and its shim; an agent at rest has no live CLI.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from hive.paths import Paths
from hive.runtimes import spawn
from hive.runtimes.record import Record
from hive.sockets.client import HostClient

NO_MODEL = "http://127.0.0.1:9"
"""No agent takes a turn here."""
RECV_S = 120.0
"""Time limit for the first recv."""
LOOK_S = 0.005
QUIET_S = 5.0
"""Wait before memory is measured."""
KIB = 1024
FIRST_UID = 1_800_000_000
"""Above the users of other hives and of systemd's containers."""


def measured(runtime: str, agents: int, image: Path | None, nixpkgs: str | None) -> dict[str, Any]:
    """Spawn, restart and rest this many agents under one runtime."""
    folder = Path(tempfile.mkdtemp(prefix="hive-containers-"))
    paths = Paths(folder / "state", folder / "run")
    paths.state.mkdir()
    tables = [f"[runtime]\nfirst_uid = {FIRST_UID}\n"]
    if image is not None:
        tables.append(f'image = "{image.absolute()}"\n')
    if nixpkgs is not None:
        tables.append(f'[nix]\nnixpkgs = "{nixpkgs}"\noptions = {{ substitute = "false", sandbox = "false" }}\n')
    paths.settings.write_text("".join(tables))
    command = [sys.executable, "-m", "hive", "up", "--state", str(paths.state), "--run", str(paths.run)]
    command += ["--runtime", runtime, "--no-dashboard", "--model-url", NO_MODEL]
    with (folder / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    names = [f"agent-{nth}" for nth in range(agents)]
    try:
        assert daemon.stdout is not None
        if not daemon.stdout.readline().startswith("hive ready"):
            raise SystemExit((folder / "daemon.log").read_text())
        with HostClient(paths.host_socket) as client:
            spawned = [_first_recv_ms(client, name, "spawn") for name in names]
            time.sleep(QUIET_S)
            resting = [_pss_kib(paths, name) / KIB for name in names]
            restarted = [_first_recv_ms(client, name, "restart") for name in names]
            client.ask("shutdown")
        daemon.wait()
    finally:
        daemon.kill()
        for record in paths.run.glob("records/*"):
            Record(record).kill()
        shutil.rmtree(folder)
    return {
        "runtime": runtime,
        "agents": agents,
        "spawn_to_first_recv_ms": round(statistics.median(spawned)),
        "restart_to_first_recv_ms": round(statistics.median(restarted)),
        "resting_agent_mb": round(statistics.median(resting), 1),
    }


def _first_recv_ms(client: HostClient, name: str, act: str) -> float:
    """From the request to the first recv of the new harness."""
    head = client.ask("state")["seq"]
    began = time.perf_counter()
    client.ask(act, name=name)
    seen = {"from": head + 1, "types": ["IncarnationSeen"]}
    while not any(row["data"]["agent"] == name for row in client.ask("events", **seen)["events"]):
        if time.perf_counter() - began > RECV_S:
            raise SystemExit(f"{name} took no message within {RECV_S:.0f} s.")
        time.sleep(LOOK_S)
    return (time.perf_counter() - began) * 1000


def _pss_kib(paths: Paths, name: str) -> int:
    """Of the shim and everything below it."""
    shim = msgspec.json.decode((paths.record(name) / "run.json").read_bytes())["shim"]
    total = 0
    for pid in [shim, *spawn.below(shim)]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.containers", description=__doc__)
    parser.add_argument("--runtime", action="append", help="repeatable; default: bubblewrap")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--image", type=Path, help="an OS tree, for nspawn")
    parser.add_argument("--nixpkgs", help="a flake reference, for nixos; nothing is fetched but the flake itself")
    chosen = parser.parse_args()
    for runtime in chosen.runtime or ["bubblewrap"]:
        sys.stdout.write(json.dumps(measured(runtime, chosen.agents, chosen.image, chosen.nixpkgs), indent=2) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
