"""Hosts on one machine: network namespaces, each with an address, joined by a bridge. Used by `hive demo --swarm`.

Under an ordinary user they are in a user namespace that this process owns. They end with the process that made them.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hive.errors import Unavailable

PACKAGES: Final = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux"}
NETWORK: Final = "10.77.0"
"""The first three numbers of every address; no other host can reach it."""
BRIDGE: Final = "switch"
INTERFACE: Final = "eth0"
HOLD: Final = ("setpriv", "--pdeathsig", "KILL", "sleep", "infinity")
"""Keeps a namespace for as long as the process that made it exists."""
START_MAX_S: Final = 10.0
STEP_S: Final = 0.01


class Network:
    """The bridge, and the hosts at it."""

    def __init__(self, holder: "subprocess.Popen[str]", cleanup: contextlib.ExitStack):
        self._holder = holder
        self._cleanup = cleanup
        self._count = 0

    def add(self, name: str) -> "Host":
        """Another host. Raises Unavailable: the kernel does not allow it."""
        self._count += 1
        address = f"{NETWORK}.{self._count}"
        holder = self._cleanup.enter_context(_held([*_inside(self._holder.pid), "unshare", "--net", *HOLD]))
        host = Host(name, address, holder.pid, self._holder.pid)
        switch, own = _inside(self._holder.pid, "--net"), _inside(holder.pid, "--net")
        peer = ["peer", "name", INTERFACE, "netns", str(holder.pid)]
        _run([*switch, "ip", "link", "add", host.port, "type", "veth", *peer])
        _run([*switch, "ip", "link", "set", host.port, "master", BRIDGE, "up"])
        _run([*own, "ip", "address", "add", f"{address}/24", "dev", INTERFACE])
        _run([*own, "ip", "link", "set", INTERFACE, "up"])
        _run([*own, "ip", "link", "set", "lo", "up"])
        return host


class Host:
    """One network namespace."""

    def __init__(self, name: str, address: str, pid: int, switch: int):
        self.name = name
        self.address = address
        self.port = f"to-{name}"[:15]
        """Of the bridge."""
        self._pid = pid
        self._switch = switch

    @property
    def front(self) -> list[str]:
        """Put in front of a command, it runs on this host, as the user of this process."""
        enter = _inside(self._pid, "--net")
        if os.geteuid() == 0:
            return enter
        return [*enter, "unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]

    def unplug(self) -> None:
        """Nothing leaves or reaches this host any more; its sockets stay open."""
        _run([*_inside(self._switch, "--net"), "ip", "link", "set", self.port, "down"])

    def plug_in(self) -> None:
        _run([*_inside(self._switch, "--net"), "ip", "link", "set", self.port, "up"])


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network without hosts. Raises Unavailable: a program is missing, or the kernel does not allow namespaces."""
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed: apt-get install {package}")
    options = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    with contextlib.ExitStack() as cleanup:
        holder = cleanup.enter_context(_held(["unshare", *options, "--net", *HOLD]))
        made = Network(holder, cleanup)
        switch = _inside(holder.pid, "--net")
        _run([*switch, "ip", "link", "add", BRIDGE, "type", "bridge"])
        _run([*switch, "ip", "link", "set", BRIDGE, "up"])
        yield made


def _inside(pid: int, *namespaces: str) -> list[str]:
    """The start of a command in the namespaces of a process."""
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    return ["nsenter", f"--target={pid}", *user, *namespaces, "--"] if user or namespaces else []


@contextlib.contextmanager
def _held(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process in namespaces of its own, which end with it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + START_MAX_S
        while Path(f"/proc/{process.pid}/comm").read_text().strip() != "sleep":
            if process.poll() is not None or time.monotonic() > deadline:
                assert process.stderr is not None
                raise _refused(process.stderr.read() if process.poll() is not None else "no answer")
            time.sleep(STEP_S)
        yield process
    finally:
        process.kill()
        process.communicate()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _refused(done.stderr)


def _refused(said: str) -> Unavailable:
    how = (
        "Run it as root, or where only root may make user namespaces, allow them: "
        "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
    )
    lines = said.strip().splitlines() or ["no reason given"]
    return Unavailable(f"This host allows no network namespaces ({lines[-1]}). {how}")
