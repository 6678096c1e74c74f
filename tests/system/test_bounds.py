"""The bounds that agents meet, reached through real sockets: at them everything works, beyond them a clear refusal."""

from typing import Any

import pytest

from hive.deciders.messages import WAITING_MAX
from hive.deciders.questions import OPEN_MAX

from .hive_process import HiveProcess, Lines

pytestmark = pytest.mark.system

AT_ONCE = 200
"""Requests sent before their replies are read; more could fill both sockets and stop either side."""
TEXT = "x" * 100


def granted(lines: Lines, times: int, cmd: str, **fields: Any) -> list[dict[str, Any]]:
    """The same request so often, many under way at once; each must be granted."""
    replies = []
    for begun in range(0, times, AT_ONCE):
        some = min(AT_ONCE, times - begun)
        for _ in range(some):
            lines.send(cmd, **fields)
        replies += [lines.reply() for _ in range(some)]
    assert all(reply["ok"] for reply in replies)
    return replies


def test_a_thousand_questions_may_be_open_and_no_more(hive: HiveProcess) -> None:
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


def test_ten_thousand_messages_may_wait_and_no_more(hive: HiveProcess) -> None:
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
