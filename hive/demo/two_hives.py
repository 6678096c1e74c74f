"""The two temporary hives of `hive demo --swarm`, each on a host of its own, and the NATS server that one runs."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hive.demo import swarm_scripts
from hive.demo.hosts import Host, network
from hive.demo.temporary_hive import DemoHive, choose_host_users, end, kept, model, start, temporary_folder
from hive.errors import Unavailable
from hive.paths import Paths
from hive.runtimes.record import Record
from hive.sockets.client import HostClient
from hive.sockets.host_session import user_name

NAMES: Final = ("tokyo", "berlin")
"""The first runs the NATS server, and the operator sits there."""
NATS_PORT: Final = 4222
ENDS_WITH_DEMO: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""However the demo ends, also when its terminal is closed."""
CONNECT_MAX_S: Final = 60.0
STEP_S: Final = 0.1


class TwoHives:
    """Both hives, by name. A host can be lost and come back."""

    def __init__(self, hosts: dict[str, Host], paths: dict[str, Paths], models: dict[str, str], scratch: Path):
        self.hosts = hosts
        self.paths = paths
        self._models = models
        self._scratch = scratch
        self.running: dict[str, DemoHive] = {}

    def start(self, name: str) -> None:
        """Raises Unavailable: the daemon cannot run on this host."""
        log, front = self._scratch / f"{name}.log", self.hosts[name].front
        self.running[name] = start(self.paths[name], log, self._models[name], "--no-dashboard", front=front)

    def ask(self, name: str, cmd: str, /, **fields: Any) -> Any:
        with HostClient(self.paths[name].host_socket) as client:
            return client.ask(cmd, **fields)

    def lose(self, name: str) -> None:
        """As when its power fails: nothing leaves the host any more, and all its processes end."""
        self.hosts[name].unplug()
        daemon = self.running.pop(name).daemon
        daemon.kill()
        daemon.wait()
        for record in self.paths[name].run.glob("records/*"):
            Record(record).kill()

    def bring_back(self, name: str) -> None:
        self.hosts[name].plug_in()
        self.start(name)

    def end(self) -> None:
        for demo in self.running.values():
            end(demo)


@contextlib.contextmanager
def running(keep: Path | None) -> Iterator[TwoHives]:
    """Run both hives, connected. Afterwards removes everything but a state folder to keep.

    Raises:
        BadRequest: the state folder to keep already exists. Unavailable: this host cannot run the demo.
    """
    with contextlib.ExitStack() as cleanup:
        scratch = temporary_folder(cleanup)
        state = scratch / "state" if keep is None else kept(keep)
        joined = cleanup.enter_context(network())
        hosts = {name: joined.add(name) for name in NAMES}
        paths = {name: Paths(state / name, scratch / f"run-{name}") for name in NAMES}
        choose_host_users(*paths.values())
        models = {name: cleanup.enter_context(model(swarm_scripts.__file__, hosts[name].front)) for name in NAMES}
        hives = TwoHives(hosts, paths, models, scratch)
        url = f"nats://{hosts[NAMES[0]].address}:{NATS_PORT}"
        _join(paths, url, cleanup, hosts[NAMES[0]], scratch)
        cleanup.callback(hives.end)
        for name in NAMES:
            hives.start(name)
        _await_connections(hives)
        yield hives


def _join(paths: dict[str, Paths], url: str, cleanup: contextlib.ExitStack, first: Host, scratch: Path) -> None:
    """Give each hive a name, a key and the other as its peer, and start the NATS server."""
    keys = {}
    for name, own in paths.items():
        own.state.mkdir(parents=True, exist_ok=True, mode=0o755)
        made = _hive(own, "init", name, "--server", url)
        keys[name] = json.loads(made)["key"]
    me = user_name(os.geteuid())
    for name, own in paths.items():
        for peer, key in keys.items():
            if peer != name:
                _hive(own, "trust", peer, key, "--operators", me)
    state = str(paths[first.name].state)
    front = [*first.front, *ENDS_WITH_DEMO]
    command = [*front, sys.executable, "-P", "-m", "hive", "swarm", "server", "--dir", str(scratch / "nats")]
    log = cleanup.enter_context((scratch / "nats.log").open("w+"))
    server = cleanup.enter_context(
        subprocess.Popen([*command, "--state", state], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    )
    cleanup.callback(server.kill)


def _hive(paths: Paths, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "hive", "swarm", *arguments, "--json"]
    folders = ["--state", str(paths.state), "--run", str(paths.run)]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(done.stderr.strip().removeprefix("hive: "))
    return done.stdout


def _await_connections(hives: TwoHives) -> None:
    """Until each hive has the other's screen."""
    deadline = time.monotonic() + CONNECT_MAX_S
    for name in NAMES:
        while True:
            reply = hives.ask(name, "swarm")
            if any("age_seconds" in peer for peer in reply["peers"]):
                break
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{name} does not reach the other hive: {reply['swarm'].get('problem', 'no reason')}."
                )
            time.sleep(STEP_S)
