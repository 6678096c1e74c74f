"""Each command sends the documented request, prints the reply and exits with the right code."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from hive.paths import Paths

from .conftest import Run
from .peer import Answer, Reply, refused, serving

AGENT = {
    "name": "coder",
    "running": True,
    "failed": False,
    "needs_update": False,
    "needs_login": False,
    "pending_reminders": 3,
    "paused": False,
    "active_model": "claude-x",
    "model": "claude-y",
}
APPROVAL = {
    "id": 3,
    "agent": "coder",
    "kind": "apply_commit",
    "commit_ref": "main",
    "fetched_sha": "ab" * 20,
    "requested_at": "2026-01-31T09:30:00.125Z",
    "status": "pending",
    "description": "a faster parser",
}
DECIDED = {**APPROVAL, "id": 2, "status": "denied", "note": "too early"}
QUESTION = {
    "id": 7,
    "asker": "coder",
    "target": None,
    "question": "LL or LR?",
    "options": ["LL", "LR"],
    "multi": False,
    "asked_at": "2026-01-31T09:30:00.125Z",
    "deadline_at": "2099-01-31T09:30:00.125Z",
}
PEER_QUESTION = {**QUESTION, "id": 8, "target": "manager", "question": "between agents"}
STATE = {
    "seq": 9,
    "state": {"agents": [AGENT], "approvals": [DECIDED, APPROVAL], "questions": [QUESTION, PEER_QUESTION]},
}
MESSAGE = {"id": 5, "at": "2026-01-31T09:30:00.125Z", "from": "coder", "to": "operator", "body": "done\nreally"}
EGRESS_APPROVAL = {
    "id": 4, "agent": "coder", "kind": "egress", "commit_ref": "", "requested_at": "2026-01-31T09:30:00.125Z",
    "status": "pending", "host": "a.example", "port": 443, "description": "for the docs",
}  # fmt: skip
EGRESS = {
    "mode": "ask",
    "allow": ["b.example"],
    "rules": [
        {"agent": "coder", "entry": "a.example:443", "host": "a.example", "port": 443, "allowed": False,
         "since": "2026-01-31T09:30:00.125Z", "until": "2026-02-01T09:30:00.125Z", "by": "operator:mara"},
    ],
}  # fmt: skip
DOS = {"path": "notes.txt", "text": "line ends\r\nstay\r\n"}
CONFIG = {"config": {"revision": "f" * 40, "files": [{"path": "prompt.md", "text": "Be brief.\n"}]}}


@pytest.mark.parametrize(
    ("line", "request_", "reply", "said"),
    [
        ("spawn x", {"cmd": "spawn", "name": "x"}, {}, "Spawned x"),
        ("request-spawn x", {"cmd": "request_spawn", "name": "x"}, {"id": 4}, "hive approve 4"),
        ("request-spawn x -d why", {"cmd": "request_spawn", "name": "x", "description": "why"}, {"id": 4}, "4"),
        ("start x y", {"cmd": "start", "scope": {"agent_names": ["x", "y"]}}, {}, "x, y"),
        ("start --all", {"cmd": "start", "scope": {}}, {}, "every agent"),
        ("stop x", {"cmd": "stop", "scope": {"agent_names": ["x"]}, "graceful": True}, {}, "Stopped: x"),
        ("kill x", {"cmd": "kill", "name": "x"}, {}, "Killed x"),
        ("restart x", {"cmd": "restart", "name": "x"}, {}, "Restarted x"),
        ("rebuild x", {"cmd": "rebuild", "name": "x"}, {}, "Rebuilt x"),
        ("update-all", {"cmd": "update_all"}, {}, "up to date"),
        ("pause x", {"cmd": "set_paused", "name": "x", "paused": True}, {}, "Paused x"),
        ("resume x", {"cmd": "set_paused", "name": "x", "paused": False}, {}, "Resumed x"),
        ("destroy x --yes", {"cmd": "destroy", "name": "x", "purge": False}, {}, "hive revive x"),
        ("destroy x --purge --yes", {"cmd": "destroy", "name": "x", "purge": True}, {}, "state is deleted"),
        ("purge x --yes", {"cmd": "purge", "name": "x"}, {}, "Deleted the state of x"),
        ("revive x", {"cmd": "revive", "name": "x"}, {}, "Revived x"),
        (
            "mount x /srv/code --ro",
            {"cmd": "mount", "name": "x", "path": "/srv/code", "read_only": True},
            {"folder": "code", "seen_at": "/work/code"},
            "/work/code",
        ),
        ("unmount x code", {"cmd": "unmount", "name": "x", "path": "code"}, {}, "Unmounted"),
        ("unmount x /srv/code", {"cmd": "unmount", "name": "x", "path": "/srv/code"}, {}, "Unmounted"),
        ("logs x -n 5", {"cmd": "logs", "name": "x", "lines": 5}, {"lines": ["one", "two"]}, "one\ntwo\n"),
        ("cancel-turn x", {"cmd": "control", "name": "x", "action": "cancel"}, {}, "cancel its turn"),
        ("compact x", {"cmd": "control", "name": "x", "action": "compact"}, {}, "compact"),
        ("new-session x", {"cmd": "control", "name": "x", "action": "new_session"}, {}, "new conversation"),
        ("model x m", {"cmd": "control", "name": "x", "action": "model", "value": "m"}, {}, "uses m"),
        ("model coder", {"cmd": "state"}, STATE, "selected: claude-y"),
        ("send x hello", {"cmd": "send", "to": "x", "body": "hello"}, {"id": 6, "ids": [6]}, "message 6"),
        ("send '*' hello", {"cmd": "send", "to": "*", "body": "hello"}, {"ids": [6, 7]}, "6, 7"),
        (
            "send x hello --reply-to 5",
            {"cmd": "send", "to": "x", "body": "hello", "in_reply_to": 5},
            {"id": 6, "ids": [6]},
            "6",
        ),
        ("inbox", {"cmd": "messages", "limit": 50}, {"messages": [MESSAGE]}, "    really"),
        ("inbox --agent x -n 3", {"cmd": "messages", "limit": 3, "agent": "x"}, {"messages": []}, "No messages"),
        ("questions", {"cmd": "questions", "history": False}, {"questions": [QUESTION]}, "( ) LL"),
        ("answer 7 LL", {"cmd": "answer_question", "id": 7, "answer": "LL"}, {}, "Answered question 7"),
        ("answer 7 LL LR", {"cmd": "answer_question", "id": 7, "answer": "LL, LR"}, {}, "Answered question 7"),
        ("cancel 7", {"cmd": "cancel_question", "id": 7}, {}, "Cancelled question 7"),
        ("approvals", {"cmd": "approvals", "limit": 50}, {"approvals": [DECIDED, APPROVAL]}, "abababababab"),
        ("diff 3", {"cmd": "diff", "id": 3}, {"diff": "+++ b\n-old\n+new\n"}, "-old\n+new\n"),
        ("approvals", {"cmd": "approvals", "limit": 50}, {"approvals": [EGRESS_APPROVAL]}, "a.example:443"),
        ("approve 3", {"cmd": "approve", "id": 3}, {}, "Approved request 3"),
        ("approve 3 --sha abc", {"cmd": "approve", "id": 3, "sha": "abc"}, {}, "Approved request 3"),
        ("deny 3 --note no", {"cmd": "deny", "id": 3, "note": "no"}, {}, "Denied request 3"),
        ("approve 4 --all", {"cmd": "approve", "id": 4, "for_all": True}, {}, "Approved request 4 for every agent"),
        ("egress list", {"cmd": "egress"}, EGRESS, "a.example:443"),
        ("egress list --agent x", {"cmd": "egress", "agent": "x"}, {**EGRESS, "rules": []}, "No rules"),
        (
            "egress allow a.example",
            {"cmd": "allow_egress", "entry": "a.example"},
            {},
            "Allowed a.example for every agent",
        ),
        ("egress allow a --agent x", {"cmd": "allow_egress", "entry": "a", "agent": "x"}, {}, "Allowed a for x"),
        ("egress deny a.example", {"cmd": "deny_egress", "entry": "a.example"}, {}, "Denied a.example"),
        (
            "egress revoke a --agent x",
            {"cmd": "revoke_egress", "entry": "a", "agent": "x"},
            {},
            "Revoked the rule for a of x",
        ),
        ("config x", {"cmd": "config", "name": "x"}, CONFIG, "Be brief."),
        ("diff 3", {"cmd": "diff", "id": 3}, {"diff": ""}, "no configuration"),
        ("rollback x", {"cmd": "rollback", "name": "x"}, {"revision": "abc"}, "abc"),
        ("rollback x --to ab", {"cmd": "rollback", "name": "x", "to": "ab"}, {"revision": "abc"}, "abc"),
        ("forge status", {"cmd": "forge_status"}, {"forge": {"url": "http://127.0.0.1:3000"}}, "127.0.0.1:3000"),
        ("operator add mara", {"cmd": "operators", "action": "add", "name": "mara"}, {"token": "t0ken"}, "t0ken"),
        ("operator revoke mara", {"cmd": "operators", "action": "revoke", "name": "mara"}, {}, "mara"),
        ("operator list", {"cmd": "operators", "action": "list"}, {"operators": [{"name": "mara"}]}, "mara"),
        ("down", {"cmd": "shutdown", "keep_agents": False}, {}, "have stopped"),
        ("down --keep-agents", {"cmd": "shutdown", "keep_agents": True}, {}, "keep running"),
        ("status", {"cmd": "state"}, STATE, "question 7"),
        ("agents", {"cmd": "state"}, STATE, "coder"),
    ],
)
def test_command_sends_request_and_prints_reply(
    hive: Run, paths: Paths, line: str, request_: Reply, reply: Reply, said: str
) -> None:
    with serving(paths.host_socket, {request_["cmd"]: reply}) as peer:
        done = hive(*shlex.split(line))
        assert (done.returncode, done.stderr) == (0, "")
        assert peer.heard == [request_]
        assert said in done.stdout


@pytest.mark.parametrize(
    ("line", "reply", "printed"),
    [
        ("agents", STATE, [AGENT]),
        ("status", STATE, {"agents": [AGENT], "approvals": [APPROVAL], "questions": [QUESTION], "tombstones": []}),
        ("approvals", {"approvals": [APPROVAL]}, [APPROVAL]),
        ("questions", {"questions": [QUESTION]}, [QUESTION]),
        ("inbox", {"messages": [MESSAGE]}, [MESSAGE]),
        ("send x hello", {"id": 6, "ids": [6]}, {"id": 6, "ids": [6]}),
        ("diff 3", {"diff": "+x"}, {"diff": "+x"}),
        ("config x", CONFIG, CONFIG["config"]),
        ("logs x", {"lines": ["a"]}, ["a"]),
        ("start x", {}, {}),
        ("operator list", {"operators": []}, []),
    ],
)
def test_json_prints_the_reply(hive: Run, paths: Paths, line: str, reply: Reply, printed: Any) -> None:
    answers: dict[str, Answer] = dict.fromkeys(
        ("state", "approvals", "questions", "messages", "send", "diff", "config", "logs", "start", "operators"), reply
    )
    with serving(paths.host_socket, answers):
        done = hive(*line.split(), "--json")
    assert json.loads(done.stdout) == printed


def test_approval_description_is_readable_in_80_columns(hive: Run, paths: Paths) -> None:
    long = {**APPROVAL, "agent": "a" * 32, "description": "It reads\x1b[2J well, " * 9, "note": "and ends here"}
    with serving(paths.host_socket, {"approvals": {"approvals": [DECIDED, long]}}):
        lines = hive("approvals", COLUMNS="80").stdout.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == ["ID", "2", "3"]
    assert lines[0].index("Kind") == lines[1].index("apply_commit") == lines[3].index("apply_commit")
    assert lines[2] == "    a faster parser – too early"
    assert lines[4] == "    " + "It reads\\x1b[2J well, " * 9 + " – and ends here"


def test_refusal_is_one_line_and_exit_1(hive: Run, paths: Paths) -> None:
    said = 'agent "ghost" is not managed by this hive'
    with serving(paths.host_socket, {"kill": refused(said, "not_found")}):
        done = hive("kill", "ghost")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"hive: {said}\n")


@pytest.mark.parametrize(
    "line",
    ["start", "start x --all", "approve x", "nonsense", "kill", "kill x y", "destroy x", "stats --window 2h", ""],
)
def test_usage_error_is_exit_2(hive: Run, paths: Paths, line: str) -> None:
    with serving(paths.host_socket, {}) as peer:
        done = hive(*line.split())
        assert done.returncode == 2
        assert peer.heard == []
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == (1 if line else 0)


def test_send_reads_the_body_from_stdin(hive: Run, paths: Paths) -> None:
    with serving(paths.host_socket, {"send": {"id": 1, "ids": [1]}}) as peer:
        hive("send", "x", "-", input="two\nlines\n")
    assert peer.heard[0]["body"] == "two\nlines\n"


def test_edit_sends_the_edited_files(hive: Run, paths: Paths) -> None:
    files = [{"path": "agent.toml", "text": "model = 'a'\n"}, {"path": "gone.md", "text": "x"}, DOS]
    answers: dict[str, Answer] = {"config": {"config": {"revision": "f" * 40, "files": files}}, "edit": {}}
    with serving(paths.host_socket, answers) as peer:
        done = hive("edit", "x", EDITOR="sh -c 'echo new > $0; rm $1; echo made > made.md'", VISUAL="")
    assert done.returncode == 0, done.stderr
    edited = [
        {"path": "agent.toml", "text": "new\n"},
        {"path": "made.md", "text": "made\n"},
        DOS,
        {"path": "gone.md", "text": None},
    ]
    assert peer.heard[1] == {"cmd": "edit", "name": "x", "base": "f" * 40, "files": edited}


def test_edit_sends_nothing_without_changes_or_on_editor_failure(hive: Run, paths: Paths) -> None:
    with serving(paths.host_socket, {"config": CONFIG}) as peer:
        assert "No changes" in hive("edit", "x", EDITOR="true", VISUAL="").stdout
        assert hive("edit", "x", EDITOR="false", VISUAL="").returncode == 1
        assert hive("edit", "x", EDITOR="/nonexistent", VISUAL="").returncode == 1
    assert [request["cmd"] for request in peer.heard] == ["config"] * 3


def test_edit_without_terminal_or_editor_is_refused(hive: Run, paths: Paths) -> None:
    with serving(paths.host_socket, {"config": CONFIG}) as peer:
        done = hive("edit", "x", EDITOR="", VISUAL="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hive: There is no terminal for vi. Set $EDITOR to an editor that needs none.\n"
    assert peer.heard == []


def test_watch_truncates_tool_results(hive: Run, paths: Paths) -> None:
    at = "2026-01-31T09:30:00.125Z"
    lines = [
        {"at": at, "type": "turn_started", "wake_from": "operator", "messages": 1},
        {"at": at, "type": "tool_call", "tool": "Read", "arguments": '{"file": "a.py"}'},
        {"at": at, "type": "tool_result", "text": "\n".join(f"line {number}" for number in range(30))},
        {"at": at, "type": "text", "text": "I read it.\x1b]0;evil\x07"},
        {"at": at, "type": "turn_ended", "result_kind": "ok", "input_tokens": 5},
    ]
    with serving(paths.host_socket, {"live": [{"lines": lines[:2]}, {"lines": lines[2:]}]}) as peer:
        done = hive("watch", "x")
    assert peer.heard == [{"cmd": "live", "name": "x", "follow": True}]
    assert 'Read {"file": "a.py"}' in done.stdout
    assert "24 more lines" in done.stdout
    assert "I read it.\\x1b]0;evil\\x07" in done.stdout
    assert "input_tokens=5" in done.stdout
    assert "\x1b" not in done.stdout


def test_login_prints_the_url_and_sends_the_code(hive: Run, paths: Paths) -> None:
    at = "2026-01-31T09:30:00.125Z"
    batches: list[Reply] = [
        {"lines": [{"at": at, "type": "login_url", "url": "https://old.example/"}]},
        {"lines": [{"at": at, "type": "login_url", "url": "https://login.example/?x=1"}]},
        {"lines": [{"at": at, "type": "login_result", "ok": True, "text": "Login successful."}]},
    ]
    with serving(paths.host_socket, {"control": {}, "live": batches}) as peer:
        done = hive("login", "x", input="the-code\n")
    assert done.returncode == 0, done.stderr
    controls = [request for request in peer.heard if request["cmd"] == "control"]
    assert controls == [
        {"cmd": "control", "name": "x", "action": "login_start"},
        {"cmd": "control", "name": "x", "action": "login_code", "value": "the-code"},
    ]
    assert "https://login.example/?x=1" in done.stdout
    assert "https://old.example/" not in done.stdout
    assert "Login successful." in done.stdout


def test_inbox_follow_continues_after_the_history(hive: Run, paths: Paths) -> None:
    fresh = {"id": 6, "from": "coder", "to": "operator", "body": "news"}
    other = {"id": 7, "from": "a", "to": "b", "body": "not for the operator"}
    events = [
        {"seq": seq, "at": MESSAGE["at"], "type": "MessageSent", "data": data}
        for seq, data in ((10, fresh), (11, other))
    ]
    answers: dict[str, Answer] = {
        "state": STATE,
        "messages": {"messages": [MESSAGE]},
        "events": [{"events": []}, {"events": events}],
    }
    with serving(paths.host_socket, answers) as peer:
        done = hive("inbox", "--follow", "--json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [5, 6]
    assert peer.heard[-1] == {"cmd": "events", "from": 10, "types": ["MessageSent"], "follow": True}


def test_registries_are_those_that_the_tools_name(hive: Run, paths: Paths, tmp_path: Path) -> None:
    tools = {
        "pip": 'case "$*" in *--help*) echo "  -i, --index <url>  Base URL (default https://index.example/s).";; esac',
        "npm": """echo '{"registry": "https://npm.example/", "@own:registry": "http://npm.example:8080/x"}'""",
        "cargo": "exit 1",
        "apt-get": "echo http://apt.example/debian",
        "nix": "echo 'substituters = https://cache.example https://other.example/'",
    }
    for name, script in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    with serving(paths.host_socket, {"allow_egress": {}}) as peer:
        done = hive("egress", "allow", "--registries", "--json", PATH=f"{tmp_path}:/bin", CARGO_HOME=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "pip": ["index.example:443"],
        "npm": ["npm.example:443", "npm.example:8080"],
        "cargo": [],
        "apt": ["apt.example:80"],
        "nix": ["cache.example:443", "other.example:443"],
    }
    assert [request["entry"] for request in peer.heard] == [
        entry for entries in json.loads(done.stdout).values() for entry in entries
    ]


def test_registries_that_no_tool_names_are_exit_1(hive: Run, paths: Paths, tmp_path: Path) -> None:
    with serving(paths.host_socket, {}):
        done = hive("egress", "allow", "--registries", PATH=str(tmp_path), CARGO_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "hive egress allow HOST" in done.stderr
