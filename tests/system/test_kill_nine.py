"""Repeated kills of the daemon under load: nothing acknowledged is lost, nothing stays unfinished."""

import random
import secrets
import threading
import time
from collections.abc import Callable

import pytest

from hive.sockets.client import Unreachable

from .conftest import MakeHive, usable
from .flooding import WIDE
from .hive_process import HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

ROUNDS = {"process": 10, "bubblewrap": 3, "nspawn": 2, "nixos": 2}
"""By runtime. What the daemon does is the same under each; a container takes longer to start."""
SENDERS = 8
KILL_WITHIN_S = (0.02, 0.5)
"""After the first acknowledgement of a round."""
SEED = 20260214

Connect = Callable[[], Lines]


class Sender(threading.Thread):
    """Sends without pause until the daemon is gone. It can repeat the unanswered request."""

    def __init__(self, connect: Connect, to: str, acknowledged: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self._connect = connect
        self._to = to
        self._acknowledged = acknowledged
        self.unanswered: tuple[str, str] | None = None
        """Key and body of the unanswered request."""

    def run(self) -> None:
        with self._connect() as lines:
            while True:
                key, body = secrets.token_hex(8), secrets.token_hex(8)
                self.unanswered = key, body
                try:
                    self.send(lines, key, body)
                except (EOFError, OSError):
                    return

    def send(self, lines: Lines, key: str, body: str) -> None:
        reply = lines.ask("send", to=self._to, body=body, key=key)
        self._acknowledged[body] = reply["id"]
        self.unanswered = None


class Reader(threading.Thread):
    """Receives and acks messages of one agent, like a harness."""

    def __init__(self, hive: HiveProcess, name: str, acked: set[int]) -> None:
        super().__init__(daemon=True)
        self._hive = hive
        self._name = name
        self._acked = acked

    def run(self) -> None:
        with self._hive.agent(self._name) as lines:
            try:
                while True:
                    ids = [row["id"] for row in lines.ask("recv", wait_seconds=5, max=32)["messages"]]
                    lines.ask("ack", ids=ids)
                    self._acked.update(ids)
            except (EOFError, OSError):
                return


class Restarter(threading.Thread):
    """Restarts one agent repeatedly, so that the daemon is also killed during restarts."""

    def __init__(self, hive: HiveProcess, name: str) -> None:
        super().__init__(daemon=True)
        self._hive = hive
        self._name = name

    def run(self) -> None:
        try:
            while True:
                self._hive.ask("restart", name=self._name)
        except Unreachable:
            return


def connections(hive: HiveProcess) -> list[tuple[Connect, str]]:
    """Eight senders, on the host socket and on agent sockets."""
    return [
        *[(hive.host, "coder")] * 3,
        (hive.host, "writer"),
        *[(lambda: hive.agent("coder"), to) for to in ("writer", "operator")],
        *[(lambda: hive.agent("writer"), to) for to in ("coder", "operator")],
    ]


@pytest.mark.parametrize("runtime", ROUNDS)
def test_kill_nine_loses_nothing_acknowledged(make_hive: MakeHive, runtime: str) -> None:
    hive = make_hive(runtime=usable(runtime), limits=WIDE).up()
    hive.ask("set_paused", name="manager", paused=True)
    chance = random.Random(SEED)
    hive.spawn("coder", "writer", "builder")
    untouched = ("manager", "coder", "writer")
    before = {name: hive.running(name) for name in untouched}
    assert None not in before.values()
    acknowledged: dict[str, int] = {}
    acked: set[int] = set()
    asked_again: dict[str, int] = {}

    for _ in range(ROUNDS[runtime]):
        ways = connections(hive)
        assert len(ways) == SENDERS
        senders = [Sender(connect, to, acknowledged) for connect, to in ways]
        threads = [*senders, Reader(hive, "writer", acked), Reader(hive, "coder", acked), Restarter(hive, "builder")]
        known = len(acknowledged)
        for thread in threads:
            thread.start()
        eventually(lambda known=known: len(acknowledged) > known, "something is acknowledged")
        time.sleep(chance.uniform(*KILL_WITHIN_S))  # The random moment is the subject of the test.
        hive.kill()
        for thread in threads:
            thread.join()
        hive.up()
        for sender, (connect, _) in zip(senders, ways, strict=True):
            if sender.unanswered is not None:
                key, body = sender.unanswered
                with connect() as lines:
                    sender.send(lines, key, body)
                asked_again[body] = acknowledged[body]
        hive.becomes_whole()
        hive.check_files()

    sent = {row["body"]: row["id"] for row in hive.events("MessageSent")}
    assert acknowledged.items() <= sent.items()
    bodies = [row["body"] for row in hive.events("MessageSent") if row["body"] in acknowledged]
    assert len(bodies) == len(set(bodies)), "a repeated request with the same key is executed once"
    assert asked_again
    logged_acks = [row["id"] for row in hive.events("MessageAcked")]
    assert acked <= set(logged_acks)
    assert len(logged_acks) == len(set(logged_acks))
    delivered_after_ack(hive)
    assert {name: hive.running(name) for name in untouched} == before, "the same processes, the same incarnations"
    assert len(hive.events("Booted")) == ROUNDS[runtime] + 1
    assert sorted(row["agent"] for row in hive.events("Started") if row["agent"] in untouched) == sorted(untouched)
    assert hive.running("builder") is not None
    eventually(lambda: len(hive.shims()) == len(untouched) + 1, "no container is left over")
    hive.run("audit", "verify")
    hive.run("projections", "check")
    assert not [row for row in hive.ask("state")["state"]["agents"] if "transient" in row]


def delivered_after_ack(hive: HiveProcess) -> None:
    """Acked messages are never delivered again."""
    over: set[int] = set()
    for row in hive.events("MessageDelivered", "MessageAcked"):
        assert row["id"] not in over, row
        if row["type"] == "MessageAcked":
            over.add(row["id"])


def test_parked_agent_gets_messages_after_a_daemon_crash(hive: HiveProcess) -> None:
    """The delay depends on the harness's reconnect interval, which its own tests check."""
    hive.spawn("coder", paused=False)
    hive.event("IncarnationSeen", agent="coder")
    parked = hive.running("coder")
    assert parked is not None
    hive.kill()
    hive.up()
    sent = hive.ask("send", to="coder", body="are you there?")["id"]
    delivered = hive.event("MessageDelivered", id=sent)
    assert delivered["incarnation"] == parked.incarnation
    assert hive.running("coder") == parked
