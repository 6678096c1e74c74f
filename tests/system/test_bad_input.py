"""The daemon refuses or ignores bad input on its sockets and keeps serving all clients."""

import contextlib
import random
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hive.sockets.agent_verbs import AGENT_VERBS
from hive.sockets.client import connect
from hive.sockets.manager_verbs import MANAGER_VERBS
from hive.sockets.server import HOST_VERBS

from .hive_process import HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

MIB = 1024 * 1024
SEED = 20260305
CONNECTIONS = 2_000
VANISHING = 300
DEPTH = 100_000
SOCKETS = ("host", "manager", "coder")
NOISE = (
    b"",
    b"\x00",
    b"\xff\xfe\xfd",
    b"null",
    b"[]",
    b"42",
    b'"list"',
    b"{",
    b"{}",
    b'{"cmd"}',
    b'{"cmd":null}',
    b'{"cmd":{}}',
    b'{"cmd":"list"',
    b'{"cmd":"nothing of the kind"}',
    b'{"cmd":"' + b"x" * 1000 + b'"}',
    b'{"cmd":"\\ud800"}',
    b'{"cmd":"list","cmd":7}',
    b"{'cmd':'list'}",
    b'{"cmd":"send","to":"coder","body":"\xff"}',
    b'{"cmd":"send","to":"coder","body":"\\ud800"}',
    b'{"cmd":"approve","id":99999999999999999999999999}',
    b'{"cmd":"approve","id":1e400}',
    b'{"cmd":"approve","id":NaN}',
    b"[" * DEPTH,
    b'{"cmd":' * DEPTH,
    b'{"cmd":"send","to":' + b"[" * DEPTH,
    b'{"cmd":"whoami","extra":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    b"GET / HTTP/1.1",
)
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 2**63 - 1, -(2**63), 2**63, 1.5, 1e308, "", "x", "../../etc", "\x00", "\u202e", "x" * 100_000,
    [], ["x"], [[[]]], {}, {"agent_names": 7}, {"agent_names": ["ghost"]},
)  # fmt: skip
NUMBERS_PARK = frozenset({"wait_seconds"})
NEVER_ASKED = frozenset({"shutdown"})
"""Valid requests of these verbs would end the daemon."""


@pytest.fixture(scope="module")
def standing() -> Iterator[HiveProcess]:
    """One daemon for all tests, so that later tests detect damage by earlier ones."""
    hive = HiveProcess()
    try:
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        hive.spawn("coder")
        yield hive
        assert hive.alive, hive.output.read_text()
        assert "connection_failed" not in hive.output.read_text()
        assert "rule_failed" not in hive.output.read_text()
        hive.becomes_whole()
        hive.check_files()
    finally:
        hive.close()


@pytest.fixture(params=SOCKETS)
def path(request: pytest.FixtureRequest, standing: HiveProcess) -> Iterator[Path]:
    """One of the sockets. Afterwards checks that the daemon still answers on all of them."""
    which = request.param
    yield standing.paths.host_socket if which == "host" else standing.paths.agent_socket(which)
    assert standing.alive
    assert {"coder", "manager"} <= set(standing.ask("list")["agents"])
    with standing.agent("coder") as lines:
        assert lines.ask("whoami")["name"] == "coder"


def refused(reply: dict[str, Any]) -> None:
    assert reply["ok"] is False
    assert reply["error"]
    assert reply["code"] != "internal", reply


def test_invalid_lines_are_refused_and_the_connection_stays(path: Path) -> None:
    with Lines(path) as lines:
        for line in NOISE:
            lines.socket.sendall(line + b"\n")
            refused(lines.reply()) if b"whoami" not in line else lines.reply()
        refused(lines.say("list_", name="x"))
        assert lines.say("nothing")["error"]


def test_random_bytes_are_refused(path: Path) -> None:
    chance = random.Random(SEED)
    for _ in range(20):
        with Lines(path) as lines:
            lines.socket.sendall(chance.randbytes(chance.randrange(1, 20_000)).replace(b"\n", b"") + b"\n")
            refused(lines.reply())
    for _ in range(20):
        with Lines(path) as lines, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            lines.socket.sendall(chance.randbytes(100_000))


def test_oversized_line_is_refused_and_ends_only_an_agents_connection(standing: HiveProcess, path: Path) -> None:
    for body in ("x" * (3 * MIB), "x" * MIB):
        with Lines(path) as lines:
            lines.send("send", to="coder", body=body)
            reply = lines.reply()
            refused(reply)
            assert "1 MiB" in reply["error"]
            if path == standing.paths.host_socket:
                assert "unknown cmd" in lines.say("nothing")["error"]
            else:
                with pytest.raises(EOFError):
                    lines.line()
    with Lines(path) as lines, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(30):
            lines.socket.sendall(b"x" * MIB)  # An endless line must not use memory.


@pytest.mark.parametrize("verbs", ["host", "manager", "coder"])
def test_every_verb_refuses_wrong_types(standing: HiveProcess, verbs: str) -> None:
    vocabulary: dict[str, Any] = {"host": HOST_VERBS, "manager": MANAGER_VERBS, "coder": AGENT_VERBS}[verbs]
    path = standing.paths.host_socket if verbs == "host" else standing.paths.agent_socket(verbs)
    for cmd, verb in sorted(vocabulary.items()):
        if cmd in NEVER_ASKED:
            continue
        fields = [field.encode_name for field in msgspec.structs.fields(verb.request)]
        requests = [{name: junk} for name in fields for junk in JUNK if not parks(name, junk)]
        requests += [dict.fromkeys(fields, junk) for junk in JUNK if not parks(*fields, junk)]
        for request in requests:
            with Lines(path) as lines:
                lines.send(cmd, **request)
                reply = lines.reply()
                assert reply["ok"] in (True, False), (cmd, request)
                assert reply.get("code") != "internal", (cmd, request, reply)
    assert standing.alive


def parks(*names_and_junk: Any) -> bool:
    *names, junk = names_and_junk
    return bool(NUMBERS_PARK.intersection(names)) and isinstance(junk, int | float) and junk > 0


def test_partial_lines_and_disconnects_affect_no_other_client(path: Path) -> None:
    with Lines(path) as lines:
        for byte in b'{"cmd":"nothing"}\n':
            lines.socket.sendall(bytes([byte]))
        refused(lines.reply())
    for nth in range(VANISHING):
        one = connect(path)
        one.sendall((b"", b'{"cmd":"lis', b'{"cmd":"list"}\n', b'{"cmd":"recv","wait_seconds":180}\n')[nth % 4])
        if nth % 3 == 0:  # Disconnect with an unread reply.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


def test_two_thousand_connections_are_all_answered(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[Lines] = []
    try:
        opened.extend(Lines(path) for _ in range(CONNECTIONS))
        for lines in opened:
            lines.send("nothing")
        for lines in opened:
            refused(lines.reply())
        for lines in opened:
            lines.send("recv", wait_seconds=180)
    finally:
        for lines in opened:
            lines.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_messages_still_arrive_after_the_attacks(standing: HiveProcess) -> None:
    """Clients that disconnected in recv must not lose messages."""
    with standing.agent("coder") as lines:
        while lines.ask("recv", max=32)["messages"]:
            pass
        id = standing.ask("send", to="coder", body="still here?")["id"]
        mine = eventually(lambda: lines.ask("recv")["messages"], "the message comes")
        assert [row["id"] for row in mine] == [id]
        lines.ask("ack", ids=[id])
