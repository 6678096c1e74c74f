"""`hive projections rebuild` beside a real daemon: progress, and kill -9 of the daemon during each phase."""

import contextlib
import os
import signal
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from hive.events.codec import Codec
from hive.events.daemon import Warned
from hive.events.log import EventLog, stamp
from hive.names import MANAGER
from hive.projections.fresh import FRESH_NAME
from hive.sockets.client import Unreachable

from .conftest import MakeHive
from .hive_process import HiveProcess, eventually
from .test_agent_walls import ordinary

pytestmark = pytest.mark.system

HISTORY = 40_000
"""Enough events that a fold takes measurable time."""


@pytest.fixture
def long(make_hive: MakeHive) -> HiveProcess:
    """A stopped hive with a long log."""
    hive = make_hive().up()
    hive.ask("set_paused", name="manager", paused=True)
    hive.ask("send", to="manager", body="hello")
    hive.kill()
    log, warned = EventLog(hive.paths.state), Codec().encode(Warned(source="test", text="x" * 100))
    at = stamp(0)
    for _ in range(HISTORY // 2_000):
        log.append([(at, "Warned", warned, "actor:test")] * 2_000)
    log.close()
    return hive


def folding(hive: HiveProcess) -> list[int]:
    """Its rebuild processes."""
    found = []
    for pid in hive.processes():
        with contextlib.suppress(OSError):
            if b"hive.audit.rebuild" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def owners(hive: HiveProcess) -> set[tuple[int, int]]:
    """Owner and mode of the projection files."""
    files = [path.stat() for path in hive.paths.state.glob("projections.db*")]
    return {(file.st_uid, file.st_mode & 0o777) for file in files}


def test_rebuild_beside_a_daemon_reports_progress(long: HiveProcess) -> None:
    long.up()
    before = long.paths.projections.stat().st_ino
    with long.host() as host:
        host.send("rebuild_projections", progress=True)
        positions = []
        while "position" in (reply := host.reply()):
            positions.append(reply["position"])
    assert positions == sorted(positions)
    assert len(positions) > 1
    assert {row["seq"] for row in reply["projections"]} == {reply["projections"][0]["seq"]}
    assert reply["projections"][0]["seq"] >= positions[-1] > HISTORY
    assert long.paths.projections.stat().st_ino != before
    long.ask("send", to="manager", body="after")
    assert "rebuilt its projections" in long.run("projections", "rebuild")
    long.run("projections", "check")
    assert {row["state"] for row in long.data("projections", "status")} == {"stored"}
    assert owners(long) == {(os.geteuid(), 0o600)}
    long.down()
    long.check_files()


@pytest.mark.parametrize("when", ["it begins", "it folds", "it writes", "it has swapped"])
def test_daemon_killed_during_a_rebuild_leaves_valid_projections(long: HiveProcess, when: str) -> None:
    long.up()
    fresh, before = long.paths.state / FRESH_NAME, long.paths.projections.stat().st_ino
    reached: list[int] = []
    moments: dict[str, Callable[[], object]] = {
        "it begins": lambda: folding(long),
        "it folds": lambda: reached,
        "it writes": fresh.exists,
        "it has swapped": lambda: long.paths.projections.exists() and long.paths.projections.stat().st_ino != before,
    }

    def ask() -> None:
        with contextlib.suppress(EOFError, Unreachable, OSError), long.host() as host:
            host.send("rebuild_projections", progress=True)
            while "position" in (reply := host.reply()):
                reached.append(reply["position"])
            reached.append(HISTORY)

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: moments[when]() or not asking.is_alive(), when)
    long.kill()
    asking.join()
    eventually(lambda: not folding(long), "the rebuild process ends with the daemon")
    long.check_files()
    long.up()
    assert not fresh.exists()
    assert [row["body"] for row in long.events("MessageSent")] == ["hello"]
    long.run("projections", "rebuild")
    long.down()
    long.check_files()


MODULES = ("msgspec", "hive", "apsw", "typer", "starlette", "structlog")


def test_daemon_and_children_import_nothing_from_the_working_directory(make_hive: MakeHive) -> None:
    """Agents may write to the daemon's working directory, and the harness starts in the agent's own folder."""
    hive = make_hive(dashboard=True).up()
    ran = hive.folder / "ran"
    planted = f"open({str(ran)!r}, 'a').write(__name__); raise SystemExit(1)"
    for module in MODULES:
        (hive.folder / f"{module}.py").write_text(planted)
        (hive.paths.agent_state(MANAGER) / f"{module}.py").write_text(planted)
    hive.ask("rebuild_projections")
    hive.ask("restart", name=MANAGER)
    restarted = hive.event("Started", agent=MANAGER, reason="restart")["incarnation"]
    eventually(lambda: hive.replayed().agents.all[MANAGER].hello == restarted, "the harness connects")
    assert hive.ask("audit_state", until="3")["replay"]["seq"] == 3
    for pid in hive.processes():
        with contextlib.suppress(OSError):
            if b"hive.dashboard" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)  # The daemon restarts it.
    eventually(lambda: answers(hive.url), "the dashboard is back")
    assert not ran.exists()
    for module in MODULES:
        (hive.folder / f"{module}.py").unlink()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return urllib.request.urlopen(f"{url}/login", timeout=5).status == 200
    return False


def test_rebuild_keeps_the_owner_of_the_projections() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root stands beside somebody else's daemon")
    with tempfile.TemporaryDirectory(prefix="hive-user-") as home:
        python, user = ordinary(Path(home))
        hive = HiveProcess(python=python, user=user)
        try:
            hive.up()
            hive.run("projections", "rebuild")
            assert owners(hive) == {(user, 0o600)}
            hive.kill()
            hive.run("projections", "rebuild")
            assert owners(hive) == {(user, 0o600)}
            hive.up()
            hive.run("projections", "check")
            hive.down()
        finally:
            hive.close()
