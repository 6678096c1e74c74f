"""A harness under a daemon of another version, and a harness whose program is replaced on the disk."""

import shutil
from pathlib import Path

import hive
from hive.harness.connection import WIRE
from hive.scripted_model import say

from .conftest import Run


def test_harness_names_its_wire(run: Run) -> None:
    run.start()
    run.peer.wait_for(lambda: run.peer.got("hello"))
    assert {hello["wire"] for hello in run.peer.got("hello")} == {WIRE}


def test_refused_wire_ends_the_harness_with_the_reason(run: Run) -> None:
    run.peer.wire_refusal = "This daemon speaks version 7. Restart the agent."
    run.start()
    assert run.process is not None
    assert run.process.wait(timeout=60) == 3
    assert run.log.read_text().splitlines()[-1] == run.peer.wire_refusal


def test_harness_replaced_on_disk_executes_itself_before_its_next_turn(run: Run, tmp_path: Path) -> None:
    run.python_path = tmp_path / "installed"
    package = run.python_path / "hive"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(hive.__file__).parent, package, ignore=ignored)
    run.start([say("done")])
    run.peer.wait_for(lambda: run.peer.parked)
    pid = run.pid

    # An installer removes the old files and writes new ones. A module in memory does not fit the new modules of a turn.
    newer = tmp_path / "newer"
    shutil.copytree(package, newer, ignore=ignored)
    claude = newer / "harness" / "claude.py"
    claude.write_text(f"from hive.harness.newer import ADDED\n{claude.read_text()}")
    (newer / "harness" / "newer.py").write_text("from hive.wire import ADDED\n")
    (newer / "wire.py").write_text((newer / "wire.py").read_text() + "\nADDED = 1\n")
    shutil.rmtree(package)
    newer.rename(package)

    id = run.peer.put("one")
    run.peer.ended()
    assert run.peer.acked == [id]
    assert run.pid == pid
    assert run.log.read_bytes().count(b"harness.started") == 2
    assert len({hello["incarnation"] for hello in run.peer.got("hello")}) == 1
