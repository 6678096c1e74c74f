"""Real NATS servers and real hives for the tests of the swarm."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from system.hive_process import DEADLINE_S, STEP_S, HiveProcess


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`hive swarm server`, run with the state folder of one hive."""

    def __init__(self, hive: HiveProcess, folder: Path, port: int):
        self.port = port
        self._hive = hive
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        listen = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "hive", "swarm", "server", "--dir", str(self._folder), "--listen", listen]
        with (self._hive.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self._hive.environment(), stderr=log, stdout=log)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
            assert self.process.poll() is None, (self._hive.folder / "nats.log").read_text()
            time.sleep(STEP_S)
        raise AssertionError("the NATS server does not listen")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wipe(self) -> None:
        """What it stored is gone."""
        shutil.rmtree(self._folder / "jetstream")


def join(hives: dict[str, HiveProcess], url: str, operators: str = "mara") -> dict[str, str]:
    """Every hive is a member and trusts every other; their public keys."""
    keys = {name: hive.data("swarm", "init", name, "--server", url)["key"] for name, hive in hives.items()}
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
        join(hives, server.url, f"{getpass.getuser()},mara")
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
