"""Through the real agent sockets: how soon a parked recv holds what was sent, and many of them at once."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_most
from benchmarks.payload import bodies
from benchmarks.sections import Setting
from hive.paths import Paths
from hive.sockets.client import connect

TITLE = "Waking"
PARKED = 200
SENDS = 200
PARKING_S = 0.004
"""For the recv to be parked before the message is sent."""
BROADCASTS = 5
FEW_MS = 10.0
RECV = b'{"cmd":"recv","wait_seconds":180}\n'

FIGURES = [
    Figure(
        "send to wake of a parked recv against a bare socket round trip and commit",
        "wake",
        "round trip",
        at_most(3),
    ),
    Figure("send to its own reply against the same", "send", "round trip"),
    Figure(
        "one commit wakes 200 parked recvs, ms until the last has run", "woken ms", lambda _: 1.0, at_most(FEW_MS), "ms"
    ),
    Figure("a broadcast until 200 sockets hold it, against the same", "broadcast", "round trip"),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    state = setting.folder / "waking" / "state"
    seeding.roster(state, PARKED + 1)
    paths = Paths(state, state.parent / "run")
    names = seeding.names(PARKED + 1)
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(own("hive_daemon", state.parent, str(state), str(PARKED + 1)))
        bare = stack.enter_context(own("bare", state.parent / "bare", str(state.parent / "bare")))
        sender = stack.enter_context(connect(paths.agent_socket(names[0])))
        parked = [stack.enter_context(connect(paths.agent_socket(name))) for name in names[1:]]
        sends = setting.scale.of(SENDS)

        def measured() -> Round:
            found: Round = {"round trip": bare.ask("round_trips", count=sends)["p50_ms"]}
            found["send"], found["wake"] = _woken_ms(sender, parked[0], names[1], sends)
            found["broadcast"] = median(_broadcast_ms(sender, parked) for _ in range(BROADCASTS))
            found["woken ms"] = median(hive.ask("wake", parked=PARKED)["ms"] for _ in range(BROADCASTS))
            hive.ask("drain")
            return found

        yield measured


def _woken_ms(sender: socket.socket, parked: socket.socket, name: str, count: int) -> tuple[float, float]:
    """Medians: until the sender has its reply, and until the receiver has the message."""
    texts = bodies()
    replied, woken = [], []
    for nth in range(count):
        parked.sendall(RECV)
        time.sleep(PARKING_S)
        line = f'{{"cmd":"send","to":"{name}","body":"{texts[nth % len(texts)]}"}}\n'.encode()
        began = time.perf_counter()
        sender.sendall(line)
        _line(parked)
        woken.append(time.perf_counter() - began)
        _line(sender)
    for nth in range(count):
        line = f'{{"cmd":"send","to":"operator","body":"{texts[nth % len(texts)]}"}}\n'.encode()
        began = time.perf_counter()
        sender.sendall(line)
        _line(sender)
        replied.append(time.perf_counter() - began)
    return 1_000 * median(replied), 1_000 * median(woken)


def _broadcast_ms(sender: socket.socket, parked: list[socket.socket]) -> float:
    for one in parked:
        one.sendall(RECV)
    time.sleep(PARKING_S * len(parked) / 4)
    began = time.perf_counter()
    sender.sendall(b'{"cmd":"send","to":"*","body":"to all"}\n')
    for one in parked:
        _line(one)
    took = time.perf_counter() - began
    _line(sender)
    return 1_000 * took


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(65_536)
    return line
