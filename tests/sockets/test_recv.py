"""recv and next_control of a real daemon: parked, paused, abandoned, repeated. No message is lost."""

import socket
from collections.abc import Iterator
from itertools import count

import pytest
from system.hive_process import REPLY_S, HiveProcess, Lines, eventually

pytestmark = pytest.mark.system

PARKED_S = 100
assert PARKED_S > REPLY_S, "a reply that only the end of the wait brings fails its test"
ABANDONED = 20
_names = (f"reader-{number}" for number in count())


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    one = HiveProcess()
    try:
        one.up()
        one.ask("set_paused", name="manager", paused=True)
        yield one
    finally:
        one.close()


@pytest.fixture
def reader(hive: HiveProcess) -> str:
    """An agent whose container does not run, so only the test reads its inbox."""
    name = next(_names)
    hive.spawn(name)
    hive.ask("stop", scope={"agent_names": [name]})
    hive.ask("set_paused", name=name, paused=False)
    with hive.agent(name) as lines:
        while found := lines.ask("recv", max=32)["messages"]:
            lines.ask("ack", ids=[message["id"] for message in found])
    return name


def bodies(reply: dict[str, object]) -> list[str]:
    messages = reply["messages"]
    assert isinstance(messages, list)
    return [message["body"] for message in messages]


def park(lines: Lines, hive: HiveProcess, name: str, **how: int) -> None:
    """Return once the daemon has received the request: it has answered a later one."""
    lines.send("recv", wait_seconds=PARKED_S, **how)
    with hive.agent(name) as other:
        other.ask("whoami")


def deliveries(hive: HiveProcess, name: str) -> int:
    return len(hive.events("MessageDelivered", to=name))


def test_recv_without_wait_returns_at_once_on_an_empty_inbox(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        for how in ({}, {"wait_seconds": 0}):
            assert lines.ask("recv", **how) == {"ok": True, "messages": [], "remaining": 0, "paused": False}


def test_parked_recv_returns_a_new_message(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        park(lines, hive, reader)
        id = hive.ask("send", to=reader, body="hi")["id"]
        (message,) = lines.reply()["messages"]
        assert (message["id"], message["from"], message["body"]) == (id, "operator", "hi")
        assert "redelivered" not in message


def test_one_message_wakes_one_of_two_parked_recvs(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as one, hive.agent(reader) as other:
        park(one, hive, reader)
        park(other, hive, reader)
        hive.ask("send", to=reader, body="first")
        hive.ask("send", to=reader, body="second")
        assert bodies(one.reply()) + bodies(other.reply()) in (["first", "second"], ["second", "first"])


def test_recv_returns_oldest_first_up_to_the_limit(hive: HiveProcess, reader: str) -> None:
    for number in range(40):
        hive.ask("send", to=reader, body=str(number))
    with hive.agent(reader) as lines:
        assert bodies(lines.ask("recv")) == ["0"]
        reply = lines.ask("recv", max=99)
        assert bodies(reply) == [str(number) for number in range(1, 33)]
        assert reply["remaining"] == 7


def test_pause_ends_a_parked_recv_and_keeps_the_inbox_open(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        park(lines, hive, reader)
        hive.ask("set_paused", name=reader, paused=True)
        assert lines.reply() == {"ok": True, "messages": [], "remaining": 0, "paused": True}
        hive.ask("send", to=reader, body="all the same")
        reply = lines.ask("recv", wait_seconds=PARKED_S)
        assert (bodies(reply), reply["paused"]) == (["all the same"], True)


def test_recv_of_a_paused_agent_waits_for_a_message(hive: HiveProcess, reader: str) -> None:
    hive.ask("set_paused", name=reader, paused=True)
    with hive.agent(reader) as lines:
        park(lines, hive, reader)
        hive.ask("set_paused", name=reader, paused=False)
        hive.ask("send", to=reader, body="now")
        assert bodies(lines.reply()) == ["now"]


def test_disconnected_recv_takes_no_message(hive: HiveProcess, reader: str) -> None:
    for number in range(ABANDONED):
        gone = hive.agent(reader)
        gone.send("recv", wait_seconds=PARKED_S, max=32)
        gone.close()
        if number % 2:
            hive.ask("send", to=reader, body=str(number))
    received: list[str] = []
    with hive.agent(reader) as lines:
        while len(received) < ABANDONED // 2:
            reply = lines.ask("recv", wait_seconds=PARKED_S)
            received += bodies(reply)
            lines.ask("ack", ids=[message["id"] for message in reply["messages"]])
        assert received == [str(number) for number in range(ABANDONED) if number % 2]
        assert lines.ask("recv")["messages"] == []


def test_half_closed_peer_gets_its_message(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        lines.send("recv", wait_seconds=PARKED_S)
        lines.socket.shutdown(socket.SHUT_WR)
        hive.ask("send", to=reader, body="still there?")
        assert bodies(lines.reply()) == ["still there?"]


def test_lost_reply_is_redelivered_when_the_harness_reports_its_messages(hive: HiveProcess, reader: str) -> None:
    for body in ("held", "lost", "new"):
        hive.ask("send", to=reader, body=body)
    with hive.agent(reader) as first:
        first.ask("hello", incarnation="run-1")
        held = first.ask("recv")["messages"][0]["id"]
        first.send("recv")
        eventually(lambda: deliveries(hive, reader) == 2, "the second one is on its way")
    with hive.agent(reader) as lines:  # The same incarnation reconnects.
        lines.ask("hello", incarnation="run-1")
        messages = lines.ask("recv", max=32, holding=[held])["messages"]
        assert [(message["body"], message.get("redelivered", False)) for message in messages] == [
            ("lost", True),
            ("new", False),
        ]
        holding = [held, *(message["id"] for message in messages)]
        assert lines.ask("recv", holding=holding)["messages"] == []
        lines.ask("ack", ids=holding)


def test_new_incarnation_gets_the_unfinished_messages(hive: HiveProcess, reader: str) -> None:
    hive.ask("send", to=reader, body="unfinished")
    with hive.agent(reader) as first:
        first.ask("hello", incarnation="run-1")
        assert bodies(first.ask("recv")) == ["unfinished"]
    with hive.agent(reader) as lines:
        lines.ask("hello", incarnation="run-2")
        (message,) = lines.ask("recv")["messages"]
        assert (message["body"], message["redelivered"]) == ("unfinished", True)


def test_connected_incarnation_keeps_its_messages(hive: HiveProcess, reader: str) -> None:
    hive.ask("send", to=reader, body="under way")
    with hive.agent(reader) as first, hive.agent(reader) as other:
        first.ask("hello", incarnation="run-1")
        id = first.ask("recv")["messages"][0]["id"]
        other.ask("hello", incarnation="run-2")
        assert other.ask("recv", holding=[])["messages"] == []
        first.ask("ack", ids=[id])


def test_message_taken_without_hello_stays_in_flight_until_requeued(hive: HiveProcess, reader: str) -> None:
    id = hive.ask("send", to=reader, body="nobody's")["id"]
    with hive.agent(reader) as lines:
        assert bodies(lines.ask("recv")) == ["nobody's"]
    with hive.agent(reader) as lines:
        lines.ask("hello", incarnation="run-1")
        assert lines.ask("recv", holding=[])["messages"] == []
        lines.ask("requeue", ids=[id])
        assert bodies(lines.ask("recv")) == ["nobody's"]


def test_requests_behind_a_parked_recv_wait(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        lines.send("recv", wait_seconds=PARKED_S)
        lines.send("whoami")
        lines.send("nothing of the kind")
        hive.ask("send", to=reader, body="first")
        assert bodies(lines.reply()) == ["first"]
        assert lines.reply()["name"] == reader
        assert "unknown cmd" in lines.reply()["error"]


def test_next_control_reports_an_earlier_change_of_pause(hive: HiveProcess, reader: str) -> None:
    with hive.agent(reader) as lines:
        assert lines.ask("next_control", wait_seconds=PARKED_S, paused=True) == {"ok": True, "paused": False}
        lines.send("next_control", wait_seconds=PARKED_S, paused=False)
        hive.ask("set_paused", name=reader, paused=True)
        assert lines.reply() == {"ok": True, "paused": True}
        assert lines.ask("next_control", paused=True) == {"ok": True, "paused": True}
