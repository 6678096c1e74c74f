"""Two real daemons and a real NATS server: messages, questions, decisions, screens and replicas between them."""

import contextlib
import getpass
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard.conftest import Person
from system.hive_process import HiveProcess, eventually

from .servers import Server, swarm
from .test_store import connected

pytestmark = pytest.mark.system


class Pair:
    """One swarm for all tests of this module."""

    def __init__(self, server: Server, tokyo: HiveProcess, berlin: HiveProcess):
        self.server, self.tokyo, self.berlin = server, tokyo, berlin

    def receive(self, hive: HiveProcess, agent: str) -> dict[str, Any]:
        """The next message of an agent, acked."""
        with hive.agent(agent) as lines:
            (message,) = lines.ask("recv", wait_seconds=60)["messages"]
            lines.ask("ack", ids=[message["id"]])
        return dict(message)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with swarm("tokyo", "berlin", dashboard=True) as (server, hives):
        tokyo, berlin = hives["tokyo"], hives["berlin"]
        for hive in (tokyo, berlin):
            hive.spawn("coder", "smith")
            for agent in ("coder", "smith"):
                hive.ask("stop", scope={"agent_names": [agent]}, graceful=False)
        yield Pair(server, tokyo, berlin)


def test_message_reaches_an_agent_of_another_hive_once(pair: Pair) -> None:
    with pair.tokyo.agent("coder") as coder:
        coder.ask("send", to="smith@berlin", body="hello over there")
    message = pair.receive(pair.berlin, "smith")
    assert (message["from"], message["body"]) == ("coder@tokyo", "hello over there")
    with pair.berlin.agent("smith") as smith:
        smith.ask("send", to="coder@tokyo", body="and back", in_reply_to=message["id"])
    reply = pair.receive(pair.tokyo, "coder")
    assert (reply["from"], reply["body"]) == ("smith@berlin", "and back")
    sent = pair.tokyo.event("MessageSent", to="smith@berlin")
    assert reply["in_reply_to"] == sent["id"]
    pair.tokyo.event("MessageAcked", id=sent["id"])
    assert len(pair.berlin.events("MessageSent", body="hello over there")) == 1


def test_question_is_answered_from_another_hive(pair: Pair) -> None:
    with pair.tokyo.agent("coder") as coder:
        id = coder.ask("ask", to="smith@berlin", question="Tabs?", options=["yes", "no"])["id"]
    asked = pair.receive(pair.berlin, "smith")
    assert '"question_asked"' in asked["body"]
    with pair.berlin.agent("smith") as smith:
        (thread,) = smith.ask("open_threads")["threads"]
        assert thread["asker"] == "coder@tokyo"
        smith.ask("answer", id=thread["id"], answer="no")
    assert '"answer":"no","answerer":"smith@berlin"' in pair.receive(pair.tokyo, "coder")["body"]
    assert pair.tokyo.event("QuestionResolved", id=id)["answerer"] == "smith@berlin"


def test_message_to_an_unknown_agent_comes_back_as_a_notice(pair: Pair) -> None:
    with pair.tokyo.agent("coder") as coder:
        coder.ask("send", to="ghost@berlin", body="anybody?")
    notice = pair.receive(pair.tokyo, "coder")
    assert notice["from"] == "system@berlin"
    assert '"event":"message_dead"' in notice["body"]


def test_decision_is_made_in_the_hive_that_owns_the_row(pair: Pair) -> None:
    with pair.berlin.agent("manager") as manager:
        id = manager.ask("request_spawn", name="writer")["id"]

    def shown() -> list[Any]:
        hives = {row["name"]: row for row in pair.tokyo.data("status", "--swarm")["hives"]}
        return [row for row in hives["berlin"]["approvals"] if row["id"] == id]

    (row,) = eventually(shown, "the approval on the other screen")
    assert row["agent"] == "writer"
    pair.tokyo.run("deny", str(id), "--note", "not before Monday", "--hive", "berlin")
    resolved = pair.berlin.event("ApprovalResolved", id=id)
    assert (resolved["status"], resolved["note"]) == ("denied", "not before Monday")
    assert resolved["by"] == f"operator:{getpass.getuser()}@tokyo way=swarm"
    refused = pair.tokyo.try_run("deny", str(id), "--hive", "berlin")
    assert refused.returncode == 1
    assert f"berlin: Approval {id} is already denied." in refused.stderr


def test_dashboard_shows_every_hive_and_decides_there(pair: Pair) -> None:
    token = pair.tokyo.data("operator", "add", "mara")["token"]
    with pair.berlin.agent("manager") as manager:
        id = manager.ask("request_spawn", name="painter")["id"]
    with pair.berlin.agent("smith") as smith:
        asked = smith.ask("ask_operator", question="Mauve or amber?", options=["mauve", "amber"])["id"]
    with Person(pair.tokyo) as mara:
        assert mara.sign_in(token).is_success
        mara.headers["Accept"] = "text/html"
        eventually(lambda: "Mauve or amber?" in mara.get("/your-call").text, "the question of the other hive")
        assert f'id="approval-berlin-{id}"' in mara.get("/your-call").text
        assert "smith@berlin" in mara.get("/").text
        mara.headers["Accept"] = "application/json"
        mara.post(f"/deny/{id}", data={"hive": "berlin", "note": "no"}).raise_for_status()
        mara.post(f"/answer-question/{asked}", data={"hive": "berlin", "option": "mauve"}).raise_for_status()
        metrics = mara.get("/metrics").text
        mara.headers["Accept"] = "text/html"
        assert "events behind" in mara.get("/").text
    assert pair.berlin.event("ApprovalResolved", id=id)["by"] == "operator:mara@tokyo way=swarm"
    assert pair.berlin.event("QuestionResolved", id=asked)["answer"] == "mauve"
    assert "hive_swarm_connected 1" in metrics
    assert "hive_swarm_replica_lag_events " in metrics
    assert 'hive_swarm_owed_envelopes{peer="berlin"}' in metrics


def propose(hive: HiveProcess, text: str) -> int:
    """The manager proposes a prompt for coder; the id of the approval."""
    folder = hive.paths.proposed("coder")
    (folder / "prompt.md").write_text(text)
    for command in (["add", "-A"], ["commit", "--quiet", "-m", "a change"]):
        subprocess.run(["git", "-c", "safe.directory=*", "-C", str(folder), *command], check=True)
    with hive.agent("manager") as manager:
        id: int = manager.ask("request_apply_commit", agent="coder", commit_ref="main")["id"]
    return id


def test_diff_is_seen_in_the_other_hive_before_the_decision(pair: Pair) -> None:
    id = propose(pair.berlin, "Be mauve.\n")
    shown = pair.tokyo.data("diff", str(id), "--hive", "berlin")
    assert "+Be mauve." in shown["diff"]
    assert shown == {"hive": "berlin", **pair.berlin.data("diff", str(id))}
    token = pair.tokyo.data("operator", "add", "ada")["token"]
    with Person(pair.tokyo) as ada:
        assert ada.sign_in(token).is_success
        ada.headers["Accept"] = "text/html"
        eventually(lambda: f'id="approval-berlin-{id}"' in ada.get("/your-call").text, "the approval on screen")
        text = ada.get("/your-call").text
        assert "may not decide here, and sees no diff" in text
        assert "Be mauve." not in text
    pair.tokyo.run("operator", "revoke", "mara")
    with Person(pair.tokyo) as mara:
        assert mara.sign_in(pair.tokyo.data("operator", "add", "mara")["token"]).is_success
        mara.headers["Accept"] = "text/html"
        assert "Be mauve." in mara.get("/your-call").text
    assert "There is no approval 999" in pair.tokyo.try_run("diff", "999", "--hive", "berlin").stderr
    assert "is not a peer" in pair.tokyo.try_run("diff", "1", "--hive", "oslo").stderr


def test_approval_of_a_stale_commit_is_refused_by_its_owner(pair: Pair) -> None:
    id = propose(pair.berlin, "Be amber.\n")
    sha = pair.tokyo.data("diff", str(id), "--hive", "berlin")["sha"]
    pair.berlin.ask("edit", name="coder", files=[{"path": "notes.md", "text": "newer"}])
    assert pair.tokyo.data("diff", str(id), "--hive", "berlin")["stale"]
    refused = pair.tokyo.try_run("approve", str(id), "--sha", sha, "--hive", "berlin")
    assert refused.returncode == 1
    assert "berlin: " in refused.stderr
    assert not pair.berlin.events("ApprovalResolved", id=id)


def test_replica_restores_a_log_hash_for_hash(pair: Pair, tmp_path: Path) -> None:
    head = await_replica(pair.berlin)
    pair.tokyo.run("swarm", "restore", "berlin", "--out", str(tmp_path / "new"))
    assert hashes(tmp_path / "new")[:head] == hashes(pair.berlin.paths.state)[:head]
    pair.tokyo.run("audit", "verify", "--state", str(tmp_path / "new"))


def await_replica(hive: HiveProcess) -> int:
    """Wait until the log is in the swarm as far as it is now; its head."""
    head = hive.head()
    eventually(lambda: hive.data("swarm", "status").get("shipped", 0) >= head, "the whole log in the swarm")
    return head


def hashes(state: Path) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(f"file:{state / 'events.db'}?mode=ro", uri=True)) as db:
        return [bytes(row[0]) for row in db.execute("SELECT hash FROM events ORDER BY seq")]


def test_emptied_stream_is_whole_again_and_the_lag_is_shown(pair: Pair, tmp_path: Path) -> None:
    await_replica(pair.berlin)

    async def empty(client: Any) -> None:
        await client.jetstream().purge_stream("hive-log-berlin")

    connected(pair.berlin, empty)
    refused = pair.tokyo.try_run("swarm", "restore", "berlin", "--out", str(tmp_path / "early"))
    if refused.returncode:
        assert "The replica of berlin" in refused.stderr

    def whole() -> bool:
        out = tmp_path / f"try-{len(list(tmp_path.iterdir()))}"
        return pair.tokyo.try_run("swarm", "restore", "berlin", "--out", str(out)).returncode == 0

    eventually(whole, "a whole replica")
    head = await_replica(pair.berlin)
    pair.tokyo.run("swarm", "restore", "berlin", "--out", str(tmp_path / "new"))
    assert hashes(tmp_path / "new")[:head] == hashes(pair.berlin.paths.state)[:head]
    eventually(lambda: pair.berlin.data("swarm", "status")["lag"] == 0, "no lag")
    assert "0 behind" in pair.berlin.run("swarm", "status")


def test_killed_daemons_and_server_lose_and_double_nothing(pair: Pair) -> None:
    def send(numbers: range) -> None:
        with pair.tokyo.agent("coder") as coder:
            for number in numbers:
                coder.ask("send", to="smith@berlin", body=f"numbered {number}")

    send(range(20))
    pair.berlin.kill()
    send(range(20, 40))
    pair.server.kill()
    send(range(40, 60))
    pair.tokyo.kill()
    pair.server.wipe()
    pair.tokyo.up()
    pair.server.start()
    send(range(60, 80))
    pair.berlin.up()

    def arrived() -> list[str]:
        bodies = [event["body"] for event in pair.berlin.events("MessageSent", from_="coder@tokyo")]
        return [body for body in bodies if body.startswith("numbered ")]

    eventually(lambda: len(arrived()) >= 80, "all messages")
    assert arrived() == [f"numbered {number}" for number in range(80)]
    for hive in (pair.tokyo, pair.berlin):
        await_replica(hive)
    eventually(lambda: pair.tokyo.data("swarm", "status")["peers"][0]["owed"] == 0, "every receipt")
