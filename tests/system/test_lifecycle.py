"""Operator actions on a real hive: down, up, pause, mount, destroy, revive."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hive.runtimes.record import Record
from hive.scripted_model import Answer, Conversation, ScriptedModel, call, say
from hive.sockets.client import Declined

from .conftest import MakeHive
from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system

DUE_S = 0.5


def kicks(hive: HiveProcess, name: str, first: int = 1) -> list[str]:
    """The reasons of the agent's kicks."""
    sent = [json.loads(row["body"]) for row in hive.events("MessageSent", first=first, to=name, from_="system")]
    return [notice["reason"] for notice in sent if notice["event"] == "kicked"]


# Daemon start and stop


def test_down_stops_agents_and_up_starts_wanted_ones(hive: HiveProcess) -> None:
    hive.spawn("coder", "writer")
    hive.run("stop", "writer")
    second = hive.try_run("up", "--runtime", "process", "--no-dashboard")
    assert (second.returncode, "already runs" in second.stderr) == (1, True)
    assert hive.ask("list")["agents"] == ["coder", "manager", "writer"], "the first daemon is unaffected"
    first = hive.head() + 1
    hive.down()
    assert [hive.running(name) for name in ("manager", "coder", "writer")] == [None] * 3
    eventually(lambda: not hive.processes(), "no process is left, also no git process")
    assert [path.name for path in hive.paths.state.iterdir() if path.name.endswith(("-wal", "-shm"))] == []
    assert hive.try_run("status").returncode == 3
    hive.check_files()
    stopped = {row["agent"]: row["exit"] for row in hive.events("Stopped", first=first)}
    assert set(stopped) == {"coder", "manager"}
    assert hive.events("ShutDown", first=first)

    hive.up()
    hive.becomes_whole()
    assert hive.row("coder")["running"]
    assert hive.row("coder")["paused"]
    assert not hive.row("writer")["running"]
    assert {row["agent"]: row["reason"] for row in hive.events("Started", first=first)} == dict.fromkeys(
        stopped, "boot"
    )
    assert kicks(hive, "coder", first) == ["boot"]


def test_down_keep_agents_leaves_them_running(hive: HiveProcess) -> None:
    hive.spawn("coder")
    before = {name: hive.running(name) for name in ("manager", "coder")}
    first = hive.head() + 1
    hive.down("--keep-agents")
    assert not hive.paths.events.with_name("events.db-wal").exists()
    assert {name: hive.running(name) for name in before} == before
    hive.up()
    hive.becomes_whole()
    assert {name: hive.running(name) for name in before} == before
    assert not hive.events("Started", "Stopped", "Crashed", first=first)


def test_wanted_agents_start_after_a_reboot(hive: HiveProcess) -> None:
    hive.spawn("coder", "writer")
    hive.run("stop", "writer")
    hive.kill()
    for name in ("manager", "coder"):
        Record(hive.paths.record(name)).kill()
    shutil.rmtree(hive.paths.run)  # A reboot removes the run folder.
    first = hive.head() + 1
    hive.up()
    for name in ("manager", "coder"):
        assert hive.event("Started", first=first, agent=name)["reason"] == "boot"
    hive.becomes_whole()
    assert [hive.row(name)["running"] for name in ("manager", "coder", "writer")] == [True, True, False]
    assert len(hive.events("Started", first=first)) == 2
    assert not hive.events("Crashed", first=first)


def test_failed_start_reports_the_reason_without_a_kick(hive: HiveProcess) -> None:
    hive.spawn("coder")
    hive.configure("coder", 'modell = "x"\n')
    first = hive.head() + 1
    refused = hive.try_run("restart", "coder")
    assert refused.returncode == 1
    assert "modell" in refused.stderr
    assert kicks(hive, "coder", first) == []
    assert hive.row("coder")["failed"]
    hive.configure("coder", "")
    hive.run("restart", "coder")
    assert kicks(hive, "coder", first) == ["restart"]
    assert not hive.row("coder")["failed"]


# One agent


def test_pause_holds_messages_until_resume(make_hive: MakeHive, model: ScriptedModel) -> None:
    hive = make_hive(model_url=model.url).up()
    hive.spawn("coder", paused=False)
    hive.event("IncarnationSeen", agent="coder")
    with hive.agent("coder") as lines:  # A recv that waits returns at once on a pause.
        lines.send("recv", wait_seconds=180)
        hive.run("pause", "coder")
        assert lines.reply()["paused"] is True
    hive.run("pause", "coder")
    assert len(hive.events("Paused", agent="coder")) == 1
    id = hive.data("send", "coder", "hello")["ids"][0]
    hive.run("stop", "coder")
    hive.run("resume", "coder")
    hive.run("pause", "coder")
    hive.run("start", "coder")
    hive.event("IncarnationSeen", agent="coder", incarnation=hive.running("coder").incarnation)
    assert not hive.events("TurnStarted", agent="coder")
    hive.run("resume", "coder")
    hive.event("MessageAcked", id=id)


def test_destroyed_agent_can_be_revived_or_purged(hive: HiveProcess) -> None:
    hive.spawn("coder", "writer")
    note = hive.paths.agent_state("coder") / "notes.md"
    note.write_text("remember")
    with hive.agent("writer") as lines:
        question = lines.ask("ask", to="coder", question="Are you well?")["id"]
    message = hive.data("send", "coder", "never read")["ids"][0]
    hive.run("destroy", "coder", "--yes")
    assert hive.events("QuestionResolved", id=question)[0]["answer"] == "[cancelled]"
    assert hive.events("MessageDead", id=message)[0]["reason"]
    with hive.agent("writer") as lines:
        bodies = [json.loads(row["body"]) for row in lines.ask("recv", max=32)["messages"]]
        assert {"operator_answered"} <= {body["event"] for body in bodies}
        assert not lines.say("send", to="coder", body="gone?")["ok"]
    assert hive.try_run("spawn", "coder").returncode == 1
    hive.kill()
    hive.up()
    assert hive.running("coder") is None
    hive.run("revive", "coder")
    assert hive.row("coder")["running"]
    assert note.read_text() == "remember"
    with hive.agent("coder") as lines:
        assert lines.ask("whoami")["name"] == "coder"
    hive.run("destroy", "coder", "--yes")
    hive.run("purge", "coder", "--yes")
    assert not hive.paths.agent("coder").exists()
    hive.run("spawn", "coder")
    assert not note.exists()
    assert hive.try_run("destroy", "manager", "--yes").returncode == 1
    hive.becomes_whole()
    hive.check_files()


def test_reminders_survive_a_daemon_restart(hive: HiveProcess) -> None:
    hive.spawn("coder")
    with hive.agent("coder") as lines:
        for message in ("later", "much later"):
            lines.ask("remind", message=message, delay_seconds=3600)
        assert lines.ask("count_pending_reminders")["count"] == 2
        soon = lines.ask("remind", message="look again", delay_seconds=DUE_S)["id"]
    hive.kill()
    hive.up()
    hive.event("ReminderFired", id=soon)
    with hive.agent("coder") as lines:
        (row,) = [row for row in lines.ask("recent", limit=30)["messages"] if "look again" in row["body"]]
        assert row["from"] == "system"
        assert lines.ask("count_pending_reminders")["count"] == 2
    assert hive.row("coder")["pending_reminders"] == 2


def test_allowed_recipients_limit_sends(hive: HiveProcess) -> None:
    hive.spawn("coder", "writer", "tester")
    hive.configure("coder", 'allowed_recipients = ["writer"]\n')
    hive.run("restart", "coder")
    hive.run("stop", "tester")
    before = {name: inbox(hive, name) for name in ("coder", "writer", "tester", "manager")}
    with hive.agent("coder") as lines:
        for to in ("writer", "manager", "operator"):
            lines.ask("send", to=to, body="allowed")
        head = hive.head()
        refused = lines.say("send", to="tester", body="not allowed")
        assert "may not send to tester" in refused["error"]
        (noted,) = hive.events("SendRefused", "MessageSent", first=head + 1)
        assert noted["type"] == "SendRefused"
        assert not lines.say("send", to="ghost", body="x")["ok"]
        assert len(lines.ask("send", to="*", body="to all I may")["ids"]) == 2
    ids = hive.ask("send", to="*", body="to all")["ids"]
    assert len(ids) == 4
    gained = {name: [body for body in inbox(hive, name) if body not in before[name]] for name in before}
    assert gained == {
        "coder": ["to all"],
        "writer": ["allowed", "to all I may", "to all"],
        "tester": ["to all"],
        "manager": ["allowed", "to all I may", "to all"],
    }


def inbox(hive: HiveProcess, name: str) -> list[str]:
    return [row["body"] for row in hive.ask("messages", agent=name, limit=100)["messages"]]


# Mounts with a sandbox


class Shell:
    """A scripted model that runs the operator's message as a shell command and reports the output."""

    def __init__(self, hive: HiveProcess, model: ScriptedModel, name: str = "coder") -> None:
        self.hive, self.name = hive, name
        model.play(name, self._decide)

    def _decide(self, conversation: Conversation) -> Answer | None:
        if not conversation.results:
            found = conversation.latest.rpartition("RUN[[")[2].partition("]]RUN")[0]
            return call("Bash", command=json.loads(f'"{found}"'), description="as told") if found else None
        if conversation.results[-1].tool == "Bash":
            return call("send", to="operator", body=conversation.results[-1].text or "nothing")
        return say("done")

    def run(self, command: str) -> str:
        first = self.hive.head() + 1
        self.hive.ask("send", to=self.name, body=f"RUN[[{command}]]RUN")
        body: str = self.hive.event("MessageSent", first=first, from_=self.name, to="operator")["body"]
        return body


def test_mounted_folder_is_shared_with_the_agent(
    make_hive: MakeHive, model: ScriptedModel, walls: str, tmp_path: Path
) -> None:
    project, books = tmp_path / "project", tmp_path / "books"
    for folder in (project, books):
        folder.mkdir()
        (folder / "there").write_text("before\n")
    hive = make_hive(model_url=model.url, runtime=walls).up()
    shell = Shell(hive, model)
    hive.spawn("coder", paused=False)
    hive.run("mount", "coder", str(project))
    hive.run("mount", "coder", str(books), "--ro")
    said = shell.run(
        "cat /work/project/there; echo mine > /work/project/new && echo theirs > /work/books/new; ls /work"
    )
    assert "before" in said
    assert "Read-only file system" in said
    assert (project / "new").read_text() == "mine\n"
    assert not (books / "new").exists()
    assert (project / "new").stat().st_uid == project.stat().st_uid, "new files belong to the folder's owner"
    hive.run("rebuild", "coder")
    assert "mine" in shell.run("cat /work/project/new")
    hive.run("unmount", "coder", str(project))
    assert "project" not in shell.run("ls /work").split()
    assert mount_refused(hive, hive.paths.state)
    assert mount_refused(hive, hive.paths.run.parent)
    assert mount_refused(hive, tmp_path / "nowhere")


def mount_refused(hive: HiveProcess, folder: Path) -> bool:
    with pytest.raises(Declined):
        hive.ask("mount", name="coder", path=str(folder))
    return True


def test_sandboxed_agents_are_taken_over_after_a_restart(make_hive: MakeHive, model: ScriptedModel, walls: str) -> None:
    hive = make_hive(model_url=model.url, runtime=walls).up()
    hive.spawn("coder", "writer")
    names: tuple[str, ...] = ("manager", "coder", "writer")
    before: dict[str, Any] = {name: hive.running(name) for name in names}
    for _ in range(2):
        hive.kill()
        hive.up()
        hive.becomes_whole()
        assert {name: hive.running(name) for name in names} == before
    hive.kill()
    os.kill(before["coder"].pid, signal.SIGKILL)
    eventually(lambda: hive.running("coder") is None, "the container ends")
    hive.up()
    assert hive.event("Crashed", agent="coder")["reason"] == "signal 9 (SIGKILL)"
    assert hive.running("writer") == before["writer"]
    hive.event("Started", agent="coder", reason="crash")
    hive.down()
    eventually(lambda: not hive.processes(), "nothing is left")
