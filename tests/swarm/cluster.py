"""Three hosts in network namespaces: a hive and a NATS server on each, the servers a cluster. For the failure tests."""

import contextlib
import functools
import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from system.hive_process import HiveProcess, eventually

from hive.demo.hosts import Host, Network, network
from hive.swarm import keys, subjects

from .servers import Server, join

PORT, CLUSTER_PORT = 4222, 6222
AGENT = "coder"
"""One in each hive; it does not run, and the tests speak for it."""
FILLER = "filler"
DISK_KIB = 64 * 1024
"""Of each server. Only root can mount one; the others use the folder."""
STALE_S = 15.0
"""As the screens: an older one says that its hive is not reached."""
RECOVERY_S = 200.0
"""Servers elect leaders anew, and an envelope whose ack was lost comes again after 30 s; a busy machine needs more."""

recovered = functools.partial(eventually, within_s=RECOVERY_S)


WRONG_CLOCK = """
import time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + {0}
time.time_ns = lambda: real_ns() + {0} * 10**9
from hive.__main__ import main
main()
"""


class Place:
    """One host with its hive and its server."""

    def __init__(self, host: Host, hive: HiveProcess):
        self.host, self.hive = host, hive
        self.server = Server(hive, hive.folder / "nats", PORT, host.address)

    @property
    def name(self) -> str:
        return self.host.name

    def restart(self, *, clock_ahead_s: int = 0) -> None:
        """The daemon is killed and starts again; with another clock, which it reads wherever it needs the time."""
        self.hive.kill()
        self.hive.program = ["-c", WRONG_CLOCK.format(clock_ahead_s)] if clock_ahead_s else ["-m", "hive"]
        self.hive.up()

    def fill_disk(self) -> None:
        """Nothing more can be written where the server stores its streams."""
        with contextlib.suppress(OSError), (self.server.store / FILLER).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))

    def free_disk(self) -> None:
        (self.server.store / FILLER).unlink()

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        self.host.unplug()
        try:
            yield
        finally:
            self.host.plug_in()

    def age_of(self, peer: str) -> float | None:
        """How old the screen of another hive is here."""
        rows = {row["name"]: row for row in self.hive.ask("swarm")["peers"]}
        age: float | None = rows[peer].get("age_seconds")
        return age

    def status(self) -> str:
        return self.hive.run("status", "--swarm")

    def await_stale(self, peer: str) -> None:
        """Until this hive's screen says that another is not reached."""
        eventually(lambda: (self.age_of(peer) or 0) > STALE_S, f"{self.name} shows {peer} as stale")

    def leads(self) -> bool:
        """Whether a cluster of servers answers for this hive."""
        swarm = self.hive.ask("swarm")["swarm"]
        return bool(swarm["connected"] and swarm.get("copies") == 3)


class Cluster:
    """The places, and every message that was sent, so that `check` can say that each arrived once and in order."""

    def __init__(self, places: dict[str, Place], joined: Network, stack: contextlib.ExitStack):
        self.places = places
        self._network = joined
        self._stack = stack
        self.tokyo, self.berlin, self.oslo = places.values()
        self._sent: dict[tuple[str, str], list[str]] = {}

    def send(self, count: int = 5) -> None:
        """Each agent writes to both others, also where a daemon is away: then its messages are not sent."""
        for source in self.places.values():
            if source.hive.alive:
                self.send_from(source, count)

    def send_from(self, source: Place, count: int = 5) -> None:
        with source.hive.agent(AGENT) as agent:
            for target in self.places.values():
                if target is source:
                    continue
                bodies = self._sent.setdefault((source.name, target.name), [])
                for _ in range(count):
                    body = f"{source.name} to {target.name}: {len(bodies)}"
                    agent.ask("send", to=f"{AGENT}@{target.name}", body=body)
                    bodies.append(body)

    def add_stranger(self, name: str) -> Server:
        """A server, not started, of a hive that trusts all others and that none trusts."""
        place = _place(name, self._network, self._stack)
        servers = [one.server for one in self.places.values()]
        place.hive.run("swarm", "init", name, *(word for one in servers for word in ("--server", one.url)))
        for peer, one in self.places.items():
            place.hive.run("swarm", "trust", peer, keys.load(one.hive.paths.state).public)
        place.server.options = options(place.server, servers)
        self._stack.callback(_kill, place.server)
        return place.server

    def restored(self, name: str) -> int:
        """How many events a peer restores of a hive's log from the servers; they are those of the log."""
        place, other = self.places[name], next(one for one in self.places.values() if one.name != name)
        out = other.hive.folder / f"restored-{name}"
        done = other.hive.data("swarm", "restore", name, "--out", str(out))
        other.hive.run("audit", "verify", "--state", str(out))
        with place.hive.reading() as reader:
            known = reader.hash_at(done["seq"])
        assert known is not None and known.hex() == done["hash"]
        return int(done["seq"])

    def sent(self, source: str, target: str) -> list[str]:
        return self._sent[source, target]

    def arrived(self, source: str, target: str) -> list[str]:
        events = self.places[target].hive.events("MessageSent", from_=f"{AGENT}@{source}")
        return [event["body"] for event in events]

    def check(self) -> None:
        """Nothing is lost or doubled, each pair's order holds, logs verify, no agent runs twice, no screen is stale."""
        for (source, target), bodies in self._sent.items():
            recovered(lambda: len(self.arrived(source, target)) >= len(bodies), f"{source} to {target}")  # noqa: B023
            assert self.arrived(source, target) == bodies
        for place in self.places.values():
            owed = lambda: [row["owed"] for row in place.hive.ask("swarm")["peers"]]  # noqa: B023, E731
            recovered(lambda: not any(owed()), f"{place.name} has every receipt")  # noqa: B023
            recovered(lambda: place.hive.ask("swarm")["swarm"]["lag"] == 0, f"{place.name} is replicated")  # noqa: B023
            for peer in self.places:
                if peer != place.name:
                    recovered(
                        lambda: (place.age_of(peer) or STALE_S) < STALE_S,  # noqa: B023
                        f"{place.name} sees {peer} again",
                    )
            place.hive.check_files()
            assert not place.hive.events("EnvelopeRefused")
        running = [name for place in self.places.values() for name in self._running(place)]
        assert len(running) == len(set(running)), running

    @staticmethod
    def _running(place: Place) -> list[str]:
        names = [row["name"] for row in place.hive.ask("state")["state"]["agents"]]
        return [name for name in names if name != "manager" and place.hive.running(name) is not None]

    def leader_of_inbox(self, hive: str) -> Place:
        """The place of the server that leads a hive's inbox, which is where every envelope to it goes."""
        name = leader_of(self.places[hive].hive, subjects.inbox_stream(hive))
        return next(place for place in self.places.values() if place.server.name == name)


def leader_of(hive: HiveProcess, stream: str) -> str:
    """The name of the server that leads a stream, asked with the key of a hive."""
    done = subprocess.run(
        [*hive.before, sys.executable, "-c", LEADER, str(hive.paths.state), stream],
        capture_output=True,
        text=True,
        check=True,
        env=hive.environment(),
    )
    return done.stdout.strip()


LEADER = """
import asyncio, sys
from pathlib import Path
from hive.settings import load
from hive.swarm import keys
from hive.swarm.connection import open_connection
state = Path(sys.argv[1])
async def lost(): ...
async def main():
    client = await open_connection(state, load(state / "hive.toml").swarm, keys.load(state), lost)
    print((await client.jetstream().stream_info(sys.argv[2])).cluster.leader)
    await client.close()
asyncio.run(main())
"""


@contextlib.contextmanager
def cluster(*names: str) -> Iterator[Cluster]:
    """Three hives that see each other through a cluster of three servers."""
    with contextlib.ExitStack() as stack:
        joined = stack.enter_context(network())
        places = {}
        for name in names:
            places[name] = _place(name, joined, stack)
            if os.geteuid() == 0:
                stack.enter_context(_disk(places[name].server))
        servers = [place.server for place in places.values()]
        hives = {name: place.hive for name, place in places.items()}
        join(hives, *(server.url for server in servers), operators=getpass.getuser())
        for server in servers:
            server.options = options(server, servers)
            stack.callback(_kill, server)
            server.start()
        for hive in hives.values():
            hive.up()
            hive.ask("set_paused", name="manager", paused=True)
            hive.spawn(AGENT)
            hive.ask("stop", scope={"agent_names": [AGENT]}, graceful=False)
        made = Cluster(places, joined, stack)
        for place in places.values():
            eventually(place.leads, f"{place.name} has three copies of its streams")
        yield made


def _place(name: str, joined: Network, stack: contextlib.ExitStack) -> Place:
    hive = HiveProcess()
    stack.callback(hive.close)
    host = joined.add(name)
    hive.before = host.front
    return Place(host, hive)


def options(server: Server, servers: list[Server]) -> list[str]:
    """Of `hive swarm server`, to join the others."""
    routes = [f"{one.address}:{CLUSTER_PORT}" for one in servers if one is not server]
    return ["--cluster", f"{server.address}:{CLUSTER_PORT}", *(word for one in routes for word in ("--route", one))]


@contextlib.contextmanager
def _disk(server: Server) -> Iterator[None]:
    """A small file system for what the server stores, in a mount namespace that goes with this process."""
    store = server.folder / "jetstream"
    store.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={DISK_KIB}k tmpfs "{store}" && exec sleep infinity'
    command = ["unshare", "--mount", "setpriv", "--pdeathsig", "KILL", "sh", "-c", mount]
    with subprocess.Popen(command) as holder:
        try:
            mounted = Path(f"/proc/{holder.pid}/root{store}")
            eventually(lambda: mounted.exists() and mounted.is_mount(), "the server's disk is mounted")
            server.store = mounted
            server.before = ["nsenter", f"--target={holder.pid}", "--mount", "--"]
            yield
        finally:
            holder.kill()


def _kill(server: Server) -> None:
    if server.process is not None and server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
        server.kill()


def pause(process: "subprocess.Popen[bytes] | None") -> None:
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)


def resume(process: "subprocess.Popen[bytes] | None") -> None:
    assert process is not None
    os.kill(process.pid, signal.SIGCONT)
