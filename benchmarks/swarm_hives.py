"""Real daemons with seeded agents and a cluster of three real NATS servers on loopback. Used by what measures a swarm.

The agents' containers do not run: whoever measures speaks on the agents' real sockets.
"""

import contextlib
import getpass
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import seeding
from benchmarks.ports import free_port
from hive.errors import HiveError
from hive.paths import Paths
from hive.settings import PeerSettings, SwarmSettings
from hive.sockets.client import HostClient

SERVERS: Final = 3
START_S: Final = 300.0
LOOK_S: Final = 0.2
LIMITS: Final = "[limits]\n" + "".join(
    f"{key} = {10**9}\n" for key in ("events_per_minute", "burst_events", "kib_per_minute", "burst_kib")
)
"""The shares of an agent are measured elsewhere."""


class Hives:
    """Their folders and processes."""

    def __init__(self, folder: Path, names: list[str], agents: int, members: tuple[str, ...] = ()):
        """`members`: further hives that are trusted and get no daemon."""
        self.paths = {name: Paths(folder / name / "state", folder / name / "run") for name in (*names, *members)}
        self.daemons: dict[str, subprocess.Popen[str]] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        self._names, self._agents, self._folder = names, agents, folder

    def join(self) -> None:
        """Seed every hive, and make each a peer of every other."""
        from hive.swarm import config_file, keys

        ports = [free_port() for _ in range(SERVERS)]
        urls = tuple(f"nats://127.0.0.1:{port}" for port in ports)
        for name, paths in self.paths.items():
            if name in self._names:
                seeding.roster(paths.state, self._agents)
            paths.state.mkdir(parents=True, exist_ok=True)
            paths.run.mkdir()
            paths.settings.write_text(LIMITS)
            paths.settings.chmod(0o600)
        known = {name: keys.load_or_make(paths.state).public for name, paths in self.paths.items()}
        for name, paths in self.paths.items():
            peers = {
                peer: PeerSettings(key=key, operators=(getpass.getuser(),))
                for peer, key in known.items()
                if peer != name
            }
            config_file.write(paths.settings, SwarmSettings(name=name, servers=urls, peers=peers))
        self._start_servers(ports)

    def _start_servers(self, ports: list[int]) -> None:
        clusters = [free_port() for _ in ports]
        state = str(self.paths[self._names[0]].state)
        for nth, port in enumerate(ports):
            folder = self._folder / f"nats-{nth}"
            options = ["--dir", str(folder), "--listen", f"127.0.0.1:{port}", "--state", state]
            options += ["--cluster", f"127.0.0.1:{clusters[nth]}"]
            for other in clusters:
                options += ["--route", f"127.0.0.1:{other}"] if other != clusters[nth] else []
            command = [sys.executable, "-m", "hive", "swarm", "server", *options]
            log = (self._folder / f"nats-{nth}.log").open("ab")
            with log:
                self.servers.append(subprocess.Popen(command, stdout=log, stderr=log))

    def start(self, name: str) -> None:
        paths = self.paths[name]
        command = [sys.executable, "-m", "hive", "up", "--runtime", "process", "--no-dashboard"]
        command += ["--state", str(paths.state), "--run", str(paths.run)]
        with (self._folder / f"{name}.log").open("a") as log:
            daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert daemon.stdout is not None
        if not daemon.stdout.readline().startswith("hive ready"):
            raise SystemExit((self._folder / f"{name}.log").read_text()[-2_000:])
        self.daemons[name] = daemon

    def ask(self, name: str, cmd: str, /, **fields: Any) -> Any:
        with HostClient(self.paths[name].host_socket) as client:
            return client.ask(cmd, **fields)

    def sees_all(self, name: str) -> bool:
        """Whether a hive has the screens of all others that run, and three copies of its streams."""
        reply = self.ask(name, "swarm")
        seen = [peer for peer in reply["peers"] if "age_seconds" in peer]
        return len(seen) == len(self._names) - 1 and reply["swarm"].get("copies") == SERVERS

    def await_all(self) -> None:
        """Until every hive sees all others."""
        deadline = time.monotonic() + START_S
        for name in self._names:
            while not self.sees_all(name):
                if time.monotonic() > deadline:
                    raise SystemExit(f"{name} does not see all hives: {self.ask(name, 'swarm')['swarm']}")
                time.sleep(LOOK_S)

    def end(self) -> None:
        for name, daemon in self.daemons.items():
            with contextlib.suppress(HiveError, OSError):
                self.ask(name, "shutdown")
                daemon.wait()
            daemon.kill()
            daemon.wait()
        for server in self.servers:
            server.kill()
            server.wait()


@contextlib.contextmanager
def swarm(folder: Path, names: list[str], agents: int, members: tuple[str, ...] = ()) -> Iterator[Hives]:
    """Hives that see each other; each has this many agents, the manager included."""
    folder.mkdir(parents=True, exist_ok=True)
    hives = Hives(folder, names, agents, members)
    try:
        hives.join()
        for name in names:
            hives.start(name)
        hives.await_all()
        yield hives
    finally:
        hives.end()


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise LookupError(pid)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
