"""A backup of a running hive: the daemon goes on, and the restored hive starts from a log that holds."""

import json
import threading

import pytest

from .conftest import MakeHive

pytestmark = pytest.mark.system


def test_hive_is_backed_up_while_it_runs_and_starts_elsewhere(make_hive: MakeHive) -> None:
    hive, other = make_hive().up(), make_hive()
    hive.spawn("coder")
    folder = str(hive.folder / "backups")
    first = json.loads(hive.run("backup", folder, "--json"))
    stop, sent = threading.Event(), list[int]()

    def write() -> None:
        while not stop.is_set():
            sent.extend(hive.ask("send", to="coder", body="x" * 1_000)["ids"])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        second = json.loads(hive.run("backup", folder, "--json"))
    finally:
        stop.set()
        writer.join()
    assert first["seq"] < second["seq"] <= hive.head()
    hive.down()

    restored = json.loads(other.run("restore", folder, "--json"))
    assert (restored["seq"], restored["hash"]) == (second["seq"], second["hash"])
    other.up()
    other.becomes_whole()
    assert set(other.ask("list")["agents"]) == {"coder", "manager"}
    assert other.row("coder")["paused"]
    assert other.ask("messages", agent="coder", limit=1)["messages"][0]["id"] in sent
    other.down()
    other.check_files()
