"""`hive erase` through a running daemon: every file of the state is searched byte by byte."""

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from .hive_process import HiveProcess, eventually

pytestmark = pytest.mark.system
SECRET = "sk-live-8484-secret"
LOOSE_OBJECT = b"\x78"
"""The first byte of git's compressed objects."""


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    one = HiveProcess()
    one.up().spawn("coder", "tester")
    yield one
    one.close()


def holding(hive: HiveProcess, text: str = SECRET, *folders: Path) -> list[str]:
    """Every file of the state and of the folders that holds the bytes, compressed or not.

    Without the agents' own files, which hive only names.
    """
    files = [path for top in (hive.paths.state, *folders) for path in top.rglob("*")]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    files = [path for path in files if not path.is_relative_to(hive.paths.agents)]
    return [str(path) for path in files if any(text.encode() in one for one in contents(path.read_bytes()))]


def contents(data: bytes) -> Iterator[bytes]:
    """A file's bytes, and what they are compressed from: segments, pieces of backups, segments in these."""
    yield data
    if data.startswith(zstandard.FRAME_HEADER):
        yield from contents(zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 26))
    elif data.startswith(LOOSE_OBJECT):
        with contextlib.suppress(zlib.error):
            yield zlib.decompress(data)


def leak(hive: HiveProcess) -> tuple[int, int]:
    """A key leaks in messages, a broadcast, a question to a peer, its answer, a status, a search and a live line."""
    message = hive.ask("send", to="coder", body=f"The key is {SECRET}. Keep it.", key=f"k {SECRET}")["id"]
    hive.ask("send", to="*", body=f"Everybody: {SECRET} is the key.")
    with hive.agent("coder") as coder, hive.agent("tester") as tester:
        coder.ask("hello", incarnation="c1")
        coder.ask("recv")
        coder.ask("set_status", text=f"using {SECRET}")
        coder.ask("remind", message=f"rotate {SECRET}", delay_seconds=10_000)
        coder.ask("live", lines=[{"type": "note", "says": f"I have {SECRET}"}])
        question = coder.ask("ask", to="tester", question=f"Is {SECRET} valid?")["id"]
        tester.ask("answer", id=question, answer=f"Yes, {SECRET} is valid.")
        pending = coder.ask("ask_operator", question=f"May I use {SECRET} now?")["id"]
    hive.run("search", "live")
    return message, pending


def test_key_is_gone_from_every_file_of_a_running_hive(hive: HiveProcess) -> None:
    message, pending = leak(hive)
    assert holding(hive)
    done = json.loads(hive.run("erase", "message", str(message), "--why", "a key", "--yes", "--json"))
    assert done["rows"] == 2, "the message and its idempotency key"
    assert any("coder" in place for place in done["out_of_reach"])
    assert holding(hive, f"The key is {SECRET}") == []
    said = hive.run("erase", "question", str(pending), "--why", "a key", "--yes")
    assert "The daemon erased the text of question" in said
    hive.ask("answer_question", id=pending, answer="No.")
    assert holding(hive, f"May I use {SECRET}") == [], "the answer's notice does not quote the question"
    for name in ("coder", "tester", "manager"):
        hive.run("erase", "agent", name, "--why", "a key", "--yes")
    assert holding(hive) == []
    assert SECRET not in json.dumps(hive.ask("state"))
    assert hive.ask("live", name="coder")["lines"] == []
    verified = hive.data("audit", "verify")
    assert verified["ok"]
    assert sum(one["rows"] for one in verified["erasures"]) >= 10
    hive.check_files()
    hive.down()
    assert holding(hive) == []
    hive.up()
    assert SECRET not in json.dumps(hive.ask("state"))


def test_erased_request_for_a_host_takes_host_reason_and_rule_along(hive: HiveProcess) -> None:
    with hive.agent("coder") as coder:
        allowed, denied, waiting = (
            coder.ask("request_egress", host=f"{name}-8484-hidden.example:443", why=f"{name}: {SECRET} is there")["id"]
            for name in ("allowed", "denied", "waiting")
        )
    hive.run("approve", str(allowed))
    hive.run("deny", str(denied))
    hive.run("egress", "allow", "kept-8484.example", "--agent", "coder")
    assert len(hive.ask("egress", agent="coder")["rules"]) == 3
    for id in (allowed, denied, waiting):
        hive.run("erase", "approval", str(id), "--why", "a key", "--yes")
    assert holding(hive, "8484-hidden") == []
    assert holding(hive) == []
    assert [rule["host"] for rule in hive.ask("egress", agent="coder")["rules"]] == ["kept-8484.example"]
    assert "was erased" in hive.try_run("approve", str(waiting)).stderr
    hive.run("deny", str(waiting))
    hive.run("erase", "agent", "coder", "--why", "a key", "--yes")
    hive.run("erase", "--older-than", "0h", "--why", "old", "--yes")
    assert [rule["host"] for rule in hive.ask("egress", agent="coder")["rules"]] == ["kept-8484.example"]
    hive.check_files()


def test_archived_and_backed_up_key_is_gone_from_archive_and_backups(hive: HiveProcess) -> None:
    secret, backups = "sk-kept-3131-secret", hive.folder / "backups"
    old = hive.ask("send", to="coder", body=f"Archived: {secret}")["id"]
    hive.ask("send", to="coder", body="The newest event is never archived.")
    hive.run("search", "Archived")
    assert hive.data("log", "archive", "--older-than", "0h")["segments"]
    new = hive.ask("send", to="coder", body=f"Not archived: {secret}")["id"]
    hive.run("backup", str(backups))
    found = holding(hive, secret, backups)
    assert {Path(path).suffix for path in found} >= {".zst"}, "the segment holds it"
    assert any(Path(path).is_relative_to(backups) for path in found)
    hive.run("erase", "message", str(old), "--why", "a key", "--yes")
    left = holding(hive, f"Archived: {secret}", backups)
    assert left
    assert all(Path(path).is_relative_to(backups) for path in left), "only the backup has it"
    hive.run("erase", "message", str(new), "--why", "a key", "--yes", "--backups")
    assert holding(hive, secret, backups) == []
    restored = hive.folder / "restored"
    hive.run("restore", str(backups), "--state", str(restored))
    assert holding(hive, secret, restored) == []
    assert hive.data("audit", "verify", "--state", str(restored))["ok"]
    hive.check_files()


def test_daemon_continues_a_decided_erasure_at_its_start(hive: HiveProcess) -> None:
    """The command decides the erasure and ends; the next daemon erases."""
    hive.ask("send", to="coder", body=f"Another {SECRET} in a message.")
    message = hive.events("MessageSent", to="coder")[-1]["id"]
    hive.down()
    decide = """
import asyncio, os, sys
from pathlib import Path
from hive.actors.erasing import erase_offline
from hive.audit import erasing
from hive.paths import Paths

erasing.erase_rows = lambda *_: os._exit(9)
paths = Paths(Path(sys.argv[1]), Path(sys.argv[2]))
asyncio.run(erase_offline(paths, "message", sys.argv[3], "a key", backups=False))
"""
    ended = hive.run_python(decide, str(hive.paths.state), str(hive.paths.run), str(message))
    assert ended == 9
    assert holding(hive)
    hive.up()
    eventually(lambda: hive.events("ErasureFinished", of=hive.events("Erased")[-1]["seq"]), "the erasure is finished")
    assert holding(hive) == []
    hive.check_files()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["erase", "message", "1", "--yes"], "--why"),
        (["erase", "message", "1", "--why", "x"], "say --yes"),
        (["erase", "message", "--why", "x", "--yes"], "Say what to erase"),
        (["erase", "--older-than", "soon", "--why", "x", "--yes"], "not an age"),
    ],
)
def test_incomplete_command_is_a_usage_error(hive: HiveProcess, arguments: list[str], says: str) -> None:
    done = hive.try_run(*arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_agents_cannot_erase(hive: HiveProcess) -> None:
    with hive.agent("manager") as manager:
        assert manager.say("erase", subject="message", name="1", why="x")["ok"] is False
