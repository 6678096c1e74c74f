"""`hive log archive` beside a running daemon: the daemon, its verbs and the command line read over the segments."""

from collections.abc import Iterator

import pytest

from .hive_process import HiveProcess

pytestmark = pytest.mark.system
SECRET = "sk-live-2121-secret"


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    one = HiveProcess()
    one.up().spawn("coder")
    yield one
    one.close()


def test_daemon_goes_on_over_an_archived_log(hive: HiveProcess) -> None:
    first = hive.ask("send", to="coder", body=f"first {SECRET}", key="k")["id"]
    hive.ask("send", to="coder", body="second")
    before = hive.run("log", "--json", "--from", "1", "--limit", "5")
    done = hive.data("log", "archive", "--older-than", "0h")
    assert done["events"] == done["archived_until"] >= hive.head() - 5
    assert hive.ask("send", to="coder", body=f"first {SECRET}", key="k")["id"] == first, "a key answered by a segment"
    assert hive.run("log", "--json", "--from", "1", "--limit", "5") == before
    assert hive.ask("events", limit=2)["events"][0]["seq"] == 1
    assert hive.ask("why", subject="message", name=str(first))["events"]
    with hive.agent("coder") as coder:
        assert [message["body"] for message in coder.ask("recv", max=9)["messages"]] == [f"first {SECRET}", "second"]
    hive.run("projections", "rebuild")
    hive.check_files()
    assert hive.data("audit", "verify")["ok"]
    hive.run("erase", "message", str(first), "--why", "a key", "--yes")
    assert SECRET not in hive.run("log", "--json", "--from", "1")
    hive.check_files()
    hive.kill()
    hive.paths.projections.unlink()
    hive.up()
    hive.check_files()
    assert hive.data("log", "archive", "--older-than", "0h")["segments"] == 1
    hive.down()
    assert hive.data("log", "archive")["events"] == 0
    hive.up()
