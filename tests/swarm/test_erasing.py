"""An erasure reaches what the swarm holds of a hive: its replica and its screen."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from system.hive_process import HiveProcess, eventually

from hive.swarm import keys
from hive.swarm.replica import _messages, opened_run

from .servers import Server, swarm
from .test_store import connected

pytestmark = pytest.mark.system

SECRET = "the password is mauve-0815"
OTHER = "the password is amber-4711"


@pytest.fixture(scope="module")
def hives() -> Iterator[tuple[Server, HiveProcess, HiveProcess]]:
    with swarm("tokyo", "berlin") as (server, found):
        found["berlin"].spawn("coder")
        yield server, found["tokyo"], found["berlin"]


def replicated(berlin: HiveProcess) -> None:
    head = berlin.head()
    eventually(lambda: berlin.data("swarm", "status").get("shipped", 0) >= head, "the whole log in the swarm")


def stored_texts(tokyo: HiveProcess, berlin: HiveProcess) -> str:
    """The data of every row in the stream, also of messages that were written again."""
    key = keys.PeerKey(keys.load(berlin.paths.state).public)

    async def read(client: Any) -> str:
        found = []
        async for message in _messages(client, "hive-log-berlin", headers_only=False):
            found += [row.data for row in opened_run(key, "berlin", message.data)]
        return "\n".join(found)

    text: str = connected(tokyo, read)
    return text


def texts_in(state: Path) -> str:
    with closing(sqlite3.connect(f"file:{state / 'events.db'}?mode=ro", uri=True)) as db:
        return "\n".join(row[0] for row in db.execute("SELECT data FROM events ORDER BY seq"))


def test_replica_and_screen_forget_an_erased_text(
    hives: tuple[Server, HiveProcess, HiveProcess], tmp_path: Path
) -> None:
    _, tokyo, berlin = hives
    message = berlin.ask("send", to="coder", body=SECRET)["id"]
    with berlin.agent("coder") as coder:
        coder.ask("ask_operator", question=SECRET + "?", options=[])
    replicated(berlin)
    assert SECRET in stored_texts(tokyo, berlin)
    eventually(lambda: SECRET in str(tokyo.data("status", "--swarm")), "the question on the other screen")
    done = berlin.data("erase", "message", str(message), "--why", "a leaked password", "--yes")
    assert [row["type"] for row in done["quotes"]] == ["QuestionAdded"], "the question quotes it"
    assert not [place for place in done["out_of_reach"] if "replica of this log" in place]
    assert [place for place in done["out_of_reach"] if "disks of the NATS servers" in place]
    assert SECRET not in stored_texts(tokyo, berlin)
    eventually(lambda: SECRET not in str(tokyo.data("status", "--swarm")), "the other screen forgets it")
    replicated(berlin)
    tokyo.run("swarm", "restore", "berlin", "--out", str(tmp_path / "new"))
    tokyo.run("audit", "verify", "--state", str(tmp_path / "new"))
    assert SECRET not in texts_in(tmp_path / "new")


def test_replica_that_is_out_of_reach_is_named_and_follows_later(
    hives: tuple[Server, HiveProcess, HiveProcess],
) -> None:
    server, tokyo, berlin = hives
    message = berlin.ask("send", to="coder", body=OTHER)["id"]
    replicated(berlin)
    server.kill()
    eventually(lambda: not berlin.data("swarm", "status")["connected"], "the connection is lost")
    done = berlin.data("erase", "message", str(message), "--why", "a leaked password", "--yes")
    assert [place for place in done["out_of_reach"] if "replica of this log" in place]
    server.start()
    eventually(lambda: OTHER not in stored_texts(tokyo, berlin), "the replica follows")


def test_what_a_peer_received_is_named(hives: tuple[Server, HiveProcess, HiveProcess]) -> None:
    _, _, berlin = hives
    with berlin.agent("coder") as coder:
        id = coder.ask("send", to="manager@tokyo", body="for your eyes only, tokyo")["id"]
    done = berlin.data("erase", "message", str(id), "--why", "a mistake", "--yes")
    assert "the log of tokyo, which received it: its operator erases it there" in done["out_of_reach"]
