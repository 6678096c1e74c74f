"""Commands that need no daemon: on a stopped hive, a running one, and a copy."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit import story

from hive import lock
from hive.cli.log import DAEMON_ENDED, DAEMON_RUNS
from hive.events.daemon import Warned
from hive.events.log import EventLog
from hive.paths import Paths
from hive.turn_columns import TOKEN_KINDS

from .conftest import PATIENCE_S, Run
from .peer import serving

HEAD = len(story.EVENTS)


@pytest.fixture
def written(paths: Paths) -> Paths:
    story.write(paths.state)
    return paths


def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def seqs(output: str) -> list[int]:
    return [row["seq"] for row in rows(output)]


def test_log_rows(hive: Run, written: Paths) -> None:
    found = rows(hive("log", "--json").stdout)
    assert [row["seq"] for row in found] == list(range(1, HEAD + 1))
    assert all(list(row) == ["seq", "at", "type", "data", "by", "hash"] for row in found)
    sent = found[10]
    assert sent["type"] == "MessageSent"
    assert sent["data"] == {"id": 2, "from": "operator", "to": "coder", "body": "write a parser"}
    assert len(bytes.fromhex(sent["hash"])) == 32


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--limit 3", [18, 19, 20]),
        ("--from 18", [18, 19, 20]),
        ("--from 5 --limit 2", [5, 6]),
        ("--from 999", [20]),
        ("--from 0 --limit 1", [1]),
        ("--limit 0", []),
        ("--type Started", [3, 9]),
        ("--type Started --type Killed", [3, 9, 20]),
        ("--type Started --agent coder", [9]),
        ("--agent coder --limit 2", [19, 20]),
    ],
)
def test_log_filters(hive: Run, written: Paths, line: str, expected: list[int]) -> None:
    assert seqs(hive("log", "--json", *line.split()).stdout) == expected


def test_log_shows_the_newest_fifty(hive: Run, paths: Paths) -> None:
    story.write(paths.state, [("actor:x", Warned(source="x", text="y")) for _ in range(120)])
    assert seqs(hive("log", "--json").stdout) == list(range(71, 121))
    assert len(seqs(hive("log", "--json", "--from", "1").stdout)) == 120


def test_unknown_event_type_gets_a_suggestion(hive: Run, written: Paths) -> None:
    done = hive("log", "--type", "messagesend")
    assert done.returncode == 2
    assert "Did you mean MessageSent?" in done.stderr


def test_agent_text_is_escaped(hive: Run, written: Paths) -> None:
    for arguments in (
        ["log"],
        ["log", "--json"],
        ["audit", "why", "agent", "coder"],
        ["audit", "replay", "--until", "15"],
    ):
        done = hive(*arguments)
        assert "[bold]text[/bold]" in done.stdout
        assert not {"\x1b", "\u202e"} & set(done.stdout)
    assert (
        rows(hive("log", "--json", "--type", "StatusSet").stdout)[0]["data"]["text"]
        == "red \x1b[31m \u202e [bold]text[/bold]"
    )


def test_missing_log_is_exit_1(hive: Run, paths: Paths) -> None:
    for line in (
        "log",
        "audit verify",
        "audit replay",
        "audit why agent coder",
        "audit export",
        "projections status",
        "projections rebuild",
        "stats",
    ):
        done = hive(*line.split())
        assert done.returncode == 1, line
        assert "There is no" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(paths.state.iterdir()) == []


def test_verify(hive: Run, written: Paths) -> None:
    done = hive("audit", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Verified {HEAD} events.")
    raw = bytearray(written.events.read_bytes())
    raw[raw.index(b"write a parser")] ^= 1
    written.events.write_bytes(raw)
    done = hive("audit", "verify", "--json")
    assert done.returncode == 1
    assert "Event 11 " in done.stderr
    assert json.loads(done.stdout)["bad_seq"] == 11


def test_replay(hive: Run, written: Paths) -> None:
    state = json.loads(hive("audit", "replay", "--until", "15", "--json").stdout)
    assert (state["seq"], state["at"]) == (15, "2026-01-31T09:30:14.000Z")
    (question,) = state["projections"]["questions"]["questions"]
    assert question["answer"] is None
    assert "question 1 pending" in hive("audit", "replay", "--until", "15").stdout
    assert json.loads(hive("audit", "replay", "--until", "2026-01-31T09:30:14Z", "--json").stdout)["seq"] == 15
    assert hive("audit", "replay", "--until", "noon").returncode == 2


def test_why(hive: Run, written: Paths) -> None:
    found = json.loads(hive("audit", "why", "question", "1", "--json").stdout)
    assert [row["type"] for row in found] == ["QuestionAdded", "QuestionResolved", "MessageSent"]
    assert hive("audit", "why", "message", "99").returncode == 1
    assert hive("audit", "why", "thing", "1").returncode == 2


def test_projections(hive: Run, written: Paths) -> None:
    status = json.loads(hive("projections", "status", "--json").stdout)
    assert {row["seq"] for row in status} == {HEAD}
    assert hive("projections", "check").returncode == 0
    written.projections.unlink()
    assert "hive projections rebuild" in hive("projections", "check").stderr
    assert json.loads(hive("projections", "rebuild", "--json").stdout) == {"seq": HEAD}
    again = json.loads(hive("projections", "check", "--json").stdout)
    assert {row["projection"]: row["digest"] for row in again} == {row["projection"]: row["digest"] for row in status}


def test_rebuild_goes_through_a_running_daemon(hive: Run, written: Paths) -> None:
    done = {"projections": [{"name": "ids", "version": 1, "seq": HEAD}]}
    replies = [{"position": HEAD // 2}, {"position": HEAD}, done]
    with lock.held(written.lock), serving(written.host_socket, {"rebuild_projections": lambda _: replies}) as peer:
        assert json.loads(hive("projections", "rebuild", "--json").stdout) == done
        assert peer.heard == [{"cmd": "rebuild_projections", "progress": True}]
        assert "has rebuilt its projections" in hive("projections", "rebuild").stdout


def test_rebuild_reports_a_daemon_that_exits(hive: Run, written: Paths) -> None:
    cut = {"rebuild_projections": lambda _: [{"position": 1}]}
    with lock.held(written.lock), serving(written.host_socket, cut):
        ended = hive("projections", "rebuild")
    assert ended.returncode != 0
    assert "The daemon stopped" in ended.stderr


def test_stats(hive: Run, paths: Paths) -> None:
    story.write(paths.state, begin_ms=time.time_ns() // 1_000_000 - 1_800_000)
    found = json.loads(hive("stats", "--window", "1h", "--json").stdout)
    (row,) = found["agents"]
    assert (row["agent"], row["turns"], row["input_tokens"], row["cache_read_tokens"]) == ("coder", 1, 100, None)
    shown = hive("stats").stdout
    assert "Read ×2, Bash ×1" in shown
    assert all(kind.title in shown for kind in TOKEN_KINDS.values())
    assert "No turn" in hive("stats", "--agent", "manager").stdout


def test_commands_work_on_a_read_only_copy(hive: Run, written: Paths, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written.state, copy)
    for path in copy.iterdir():
        path.chmod(0o400)
    copy.chmod(0o500)
    before = sorted(path.name for path in copy.iterdir())
    for line in ("log", "audit verify", "audit replay", "projections status", "projections check", "stats"):
        assert hive(*line.split(), "--state", str(copy)).returncode == 0, line
    assert sorted(path.name for path in copy.iterdir()) == before


class Following:
    """Run `hive log --follow --json` as a process and read its rows."""

    def __init__(self, environment: dict[str, str], *arguments: str):
        command = [sys.executable, "-m", "hive", "log", "--follow", "--json", *arguments]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )

    def next_seq(self) -> int:
        assert self.process.stdout is not None
        return int(json.loads(self.process.stdout.readline())["seq"])

    def next_note(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().removeprefix("hive: ").strip()

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


@pytest.fixture
def following(environment: dict[str, str]) -> Iterator[Any]:
    started: list[Following] = []

    def start(*arguments: str) -> Following:
        started.append(Following(environment, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def test_follow_prints_events_across_daemon_restarts(written: Paths, following: Any) -> None:
    one = following("--limit", "2")
    assert [one.next_seq(), one.next_seq()] == [HEAD - 1, HEAD]
    warned = [("actor:x", Warned(source="x", text="y"))]
    for round_ in range(2):
        with lock.held(written.lock):
            log = EventLog(written.state)
            for number in range(3):
                story.append(log, warned)
                assert one.next_seq() == HEAD + 3 * round_ + number + 1
            log.close()
            assert one.next_note() == DAEMON_RUNS
        assert one.next_note() == DAEMON_ENDED
    assert one.interrupt() == (130, "")


def test_follow_refuses_a_replaced_log(written: Paths, following: Any, tmp_path: Path) -> None:
    one = following("--limit", "1")
    assert one.next_seq() == HEAD
    story.write(tmp_path / "another", story.EVENTS[:-1])
    (tmp_path / "another" / "events.db").rename(written.events)
    assert one.next_note().startswith(f"The log was replaced: event {HEAD} is missing")
    assert one.process.wait(PATIENCE_S) == 1


def test_follow_with_a_filter_and_a_start(written: Paths, following: Any) -> None:
    one = following("--type", "Warned", "--from", "3")
    log = EventLog(written.state)
    story.append(log, [*story.EVENTS[11:14], ("actor:x", Warned(source="x", text="y"))])
    log.close()
    assert one.next_seq() == HEAD + 4


def test_closed_pipe_is_not_an_error(environment: dict[str, str], paths: Paths) -> None:
    story.write(paths.state, [("actor:x", Warned(source="x", text="y" * 200)) for _ in range(5000)])
    with subprocess.Popen(
        [sys.executable, "-m", "hive", "log", "--limit", "5000"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert said == ""
    assert process.returncode == 141


def test_state_of_another_user_is_refused(hive: Run, written: Paths) -> None:
    written.state.chmod(0o000)
    try:
        done = hive("log")
    finally:
        written.state.chmod(0o700)
    if os.geteuid() != 0:
        assert done.returncode == 1
    assert "Traceback" not in done.stderr
