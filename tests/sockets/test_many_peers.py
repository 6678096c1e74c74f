"""Thousands of connections at once, and connections that end in every way: the daemon loses no message."""

import contextlib
import json
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.hive_process import HiveProcess, Lines, eventually

from hive.sockets.client import connect
from hive.sockets.lines import LINES_AHEAD_MAX

pytestmark = pytest.mark.system

PEERS = 2_000
VANISHING = 300
HARNESS_SOCKETS = 3
"""Connections that the manager's harness may open in the meantime."""
BEHIND = 2 * LINES_AHEAD_MAX
"""Enough requests behind a parked one that the daemon stops reading, so it cannot read the peer's EOF."""


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def sockets(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(link.readlink()).startswith("socket:")
    return count


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.usefixtures("many_files")
def test_two_thousand_parked_recvs_use_no_threads_and_all_wake(standing: HiveProcess, agent: str) -> None:
    assert standing.daemon is not None
    pid = standing.daemon.pid
    before_threads, before_kb = threads(pid), resident_kb(pid)
    with contextlib.ExitStack() as held:
        peers = [held.enter_context(standing.agent(agent)) for _ in range(PEERS)]
        for peer in peers:
            peer.send("recv", wait_seconds=170)
        assert standing.ask("list")["agents"]
        assert threads(pid) <= before_threads + 5
        assert resident_kb(pid) - before_kb < 100_000
        with standing.host() as host:
            for number in range(PEERS):
                host.ask("send", to=agent, body=str(number))
        bodies = [message["body"] for peer in peers for message in peer.reply()["messages"]]
    assert sorted(bodies, key=int) == [str(number) for number in range(PEERS)], "each message arrives once"


def test_connections_that_end_in_every_way_leave_no_socket(standing: HiveProcess, agent: str) -> None:
    assert standing.daemon is not None
    pid = standing.daemon.pid
    before = sockets(pid)
    for number in range(VANISHING):
        peer = connect(standing.paths.host_socket if number % 2 else standing.paths.agent_socket(agent))
        match number % 5:
            case 0:
                pass
            case 1:
                peer.sendall(b'{"cmd":"li')
            case 2:
                peer.sendall(b'{"cmd":"agent_status"}\n' * 50)
            case 3:
                peer.sendall(b'{"cmd":"events","follow":true}\n{"cmd":"recv","wait_seconds":100}\n')
            case _:
                peer.shutdown(socket.SHUT_WR)
        peer.close()
    assert standing.ask("list")["agents"]
    eventually(lambda: sockets(pid) <= before + HARNESS_SOCKETS, "the connections are closed")


def test_line_of_three_megabytes_is_refused_and_ends_an_agents_connection(standing: HiveProcess, agent: str) -> None:
    for path in (standing.paths.host_socket, standing.paths.agent_socket(agent)):
        with Lines(path) as peer:
            peer.socket.sendall(b"x" * 3_000_000 + b'\n{"cmd":"list"}\n')
            refused = peer.reply()
            assert refused["ok"] is False
            assert "1 MiB" in refused["error"]
            if path == standing.paths.host_socket:
                assert peer.reply()["ok"] is True
            else:
                with pytest.raises(EOFError):
                    peer.reply()


@pytest.mark.parametrize("behind", [0, BEHIND], ids=["parked", "with requests behind"])
@pytest.mark.parametrize("half_closed", [False, True], ids=["open", "half closed"])
def test_message_for_a_disconnected_recv_goes_to_the_next(
    standing: HiveProcess, agent: str, behind: int, half_closed: bool
) -> None:
    gone = standing.agent(agent)
    gone.ask("whoami")
    gone.send("recv", wait_seconds=170)
    gone.socket.sendall(b'{"cmd":"whoami"}\n' * behind)
    if half_closed:
        gone.socket.shutdown(socket.SHUT_WR)
    standing.ask("list")
    gone.close()
    standing.ask("send", to=agent, body="for whoever is there")
    with standing.agent(agent) as next_one:
        (message,) = next_one.ask("recv", wait_seconds=60)["messages"]
    assert message["body"] == "for whoever is there"


def test_requests_in_one_packet_are_answered_in_order(standing: HiveProcess, agent: str) -> None:
    with standing.agent(agent) as peer:
        requests = [{"cmd": "send", "to": "operator", "body": str(number)} for number in range(500)]
        peer.socket.sendall(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        ids = [peer.reply()["id"] for _ in requests]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
