"""Limits for agents over real sockets: requests at the limit work, requests beyond it are refused."""

from typing import Any

import pytest

from hive.deciders.messages import WAITING_MAX
from hive.deciders.questions import OPEN_MAX

from .conftest import MakeHive
from .flooding import WIDE
from .hive_process import HiveProcess, Lines

pytestmark = pytest.mark.system

AT_ONCE = 200
"""Requests in flight. More could fill both socket buffers and block both sides."""
TEXT = "x" * 100


def granted(lines: Lines, times: int, cmd: str, **fields: Any) -> list[dict[str, Any]]:
    """Send a request many times with many in flight. Each must succeed."""
    replies = []
    for begun in range(0, times, AT_ONCE):
        some = min(AT_ONCE, times - begun)
        for _ in range(some):
            lines.send(cmd, **fields)
        replies += [lines.reply() for _ in range(some)]
    assert all(reply["ok"] for reply in replies)
    return replies


def test_open_questions_are_limited_to_a_thousand(make_hive: MakeHive) -> None:
    hive = make_hive(limits=WIDE).up()
    hive.spawn("coder")
    with hive.agent("coder") as coder:
        granted(coder, OPEN_MAX, "ask_operator", question="Left or right?", options=["left", "right"])
        refused = coder.say("ask_operator", question="One more?")
        assert (refused["ok"], refused["code"]) == (False, "limit_reached")
        assert len(coder.ask("open_threads")["threads"]) == OPEN_MAX
        assert len(hive.ask("questions")["questions"]) == OPEN_MAX
        hive.ask("answer_question", id=1, answer="left")
        coder.ask("ask_operator", question="And now?")
    hive.check_files()


def test_waiting_messages_are_limited_to_ten_thousand(hive: HiveProcess) -> None:
    hive.spawn("coder")
    with hive.host() as operator:
        granted(operator, WAITING_MAX - hive.row("coder")["waiting"], "send", to="coder", body=TEXT)
        refused = operator.say("send", to="coder", body=TEXT)
        assert (refused["ok"], refused["code"]) == (False, "limit_reached")
        assert hive.row("coder")["waiting"] == WAITING_MAX
    with hive.agent("coder") as coder:
        coder.ask("hello", incarnation="by hand")
        reply = coder.ask("recv", wait_seconds=0, max=8)
        assert reply["remaining"] == WAITING_MAX - 8
    with hive.host() as operator:
        operator.ask("send", to="coder", body="There is room again.")
    hive.check_files()
