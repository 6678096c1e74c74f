"""Real NATS servers and real hives for the tests of the swarm."""

import contextlib
import getpass
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from system.hive_process import HiveProcess, eventually


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`hive swarm server`, run with the state folder of one hive."""

    def __init__(self, hive: HiveProcess, folder: Path, port: int, address: str = "127.0.0.1"):
        self.port = port
        self.address = address
        self.options: list[str] = []
        self.before: list[str] = []
        """Put in front of the command, after what the hive has."""
        self._hive = hive
        self.folder = folder
        self.store = folder / "jetstream"
        """As this process sees it."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    @property
    def name(self) -> str:
        """As the servers know each other."""
        name = json.loads((self.folder / "nats.conf").read_text())["server_name"]
        return str(name)

    def start(self) -> "Server":
        listen = f"{self.address}:{self.port}"
        hive = [sys.executable, "-m", "hive", "swarm", "server", "--dir", str(self.folder), "--listen", listen]
        command = [*self._hive.before, *self.before, *hive, *self.options]
        with self.log.open("ab") as log:
            begins = log.tell()
            self.process = subprocess.Popen(command, env=self._hive.environment(), stderr=log, stdout=log)

        def ready() -> bool:
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            return "Server is ready" in self.log.read_text()[begins:]

        eventually(ready, "the NATS server is ready")
        return self

    @property
    def log(self) -> Path:
        return self._hive.folder / "nats.log"

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wipe(self) -> None:
        """What it stored is gone."""
        for entry in self.store.iterdir():
            shutil.rmtree(entry)


def join(hives: dict[str, HiveProcess], *urls: str, operators: str = "mara") -> dict[str, str]:
    """Every hive is a member and trusts every other; their public keys."""
    servers = [word for url in urls for word in ("--server", url)]
    keys = {name: hive.data("swarm", "init", name, *servers)["key"] for name, hive in hives.items()}
    for name, hive in hives.items():
        for peer, key in keys.items():
            if peer != name:
                hive.run("swarm", "trust", peer, key, "--operators", operators)
    return keys


@contextlib.contextmanager
def swarm(*names: str, dashboard: bool = False) -> Iterator[tuple[Server, dict[str, HiveProcess]]]:
    """Hives that are up, with a server that one of them runs. The managers take no turns."""
    hives = {name: HiveProcess(dashboard=dashboard) for name in names}
    first = next(iter(hives.values()))
    server = Server(first, first.folder / "nats", free_port())
    try:
        join(hives, server.url, operators=f"{getpass.getuser()},mara")
        server.start()
        for hive in hives.values():
            hive.up()
            hive.ask("set_paused", name="manager", paused=True)
        yield server, hives
    finally:
        if server.process is not None:
            server.kill()
        for hive in hives.values():
            hive.close()
