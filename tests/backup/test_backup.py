"""A backup holds the state without its secrets and shares what is unchanged; a killed one leaves older ones whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit import story

from hive.audit.chain import verify_log
from hive.backup.known import known_backups
from hive.backup.manifest import Backups, decoded
from hive.backup.restoring import Restored, restore_backup
from hive.backup.writing import Written, write_backup
from hive.clock import SystemClock
from hive.config.git import Git
from hive.errors import BadRequest, CorruptState, NotFound
from hive.events import AnyEvent
from hive.events.base import MessageId
from hive.events.log import EventLog
from hive.events.messages import MessageSent
from hive.paths import Paths

from .conftest import AGENT, OUTSIDE, SECRETS

PATIENCE_S = 120.0
KEEP = 5

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from hive.backup.{module} import {function}
from hive.clock import SystemClock
from hive.paths import Paths

calls = 0

def tell(what):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

{call}
print(calls)
"""
BACKUP = KILLED_AT.format(
    module="writing",
    function="write_backup",
    call="write_backup(Paths(Path(sys.argv[2]), Path('/nonexistent')), Path(sys.argv[3]), SystemClock(), tell, keep=5)",
)
RESTORE = KILLED_AT.format(
    module="restoring", function="restore_backup", call="restore_backup(Path(sys.argv[3]), Path(sys.argv[2]), tell)"
)


def run(program: str, kill_at: int, state: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The program, ended by SIGKILL at its nth step; 0 lets it end."""
    command = [sys.executable, "-c", program, str(kill_at), str(state), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd="/")


def kill_points(program: str, state: Path, folder: Path, count: int) -> list[int]:
    """Steps at which a run is killed: the first, the last ones, and some between."""
    done = run(program, 0, state, folder)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    return sorted({1, 2, last - 1, last, *range(3, last, max(1, last // count))})


def backup(paths: Paths, folder: Path, keep: int = KEEP) -> Written:
    return write_backup(paths, folder, SystemClock(), lambda _: None, keep=keep)


def restore(folder: Path, state: Path, name: str | None = None) -> Restored:
    return restore_backup(folder, state, lambda _: None, name=name)


def send(paths: Paths, text: str) -> None:
    log = EventLog(paths.state)
    event: AnyEvent = MessageSent(id=MessageId(log.head.seq + 100), sender="operator", to="coder", body=text)
    story.append(log, [("operator:mara uid=0 way=cli", event)])
    log.close()


def files(state: Path) -> dict[str, Any]:
    """Every name below a state folder that a backup must hold, with its content or its link."""
    found: dict[str, Any] = {}
    for folder, names, others in os.walk(state):
        for name in (*names, *others):
            path = Path(folder, name)
            key = os.fsdecode(os.fsencode(path.relative_to(state)))
            if path.is_symlink():
                found[key] = path.readlink()
            elif path.is_file() and "objects" not in path.parts:
                found[key] = (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
    left_out = ("projections.db", "events.db", "daemon.lock", "backups.json", ".credentials.json", *SECRETS)
    return {key: value for key, value in found.items() if not key.endswith(left_out)}


def test_restored_state_is_the_same(paths: Paths, tmp_path: Path) -> None:
    written = backup(paths, tmp_path / "backups")
    restored = restore(tmp_path / "backups", tmp_path / "new")
    assert files(tmp_path / "new") == files(paths.state)
    assert (restored.seq, restored.hash) == (written.seq, written.hash)
    new = Paths(tmp_path / "new", tmp_path / "run2")
    assert verify_log(new, lambda _: None).head == verify_log(paths, lambda _: None).head
    for repository in (new.applied(AGENT), new.proposed(AGENT)):
        Git(repository / ".git").run("fsck", "--strict")
    assert Git(new.applied(AGENT) / ".git").commit("main") == Git(paths.applied(AGENT) / ".git").commit("main")


def test_secrets_and_derived_files_are_left_out_and_named(paths: Paths, tmp_path: Path) -> None:
    written = backup(paths, tmp_path / "backups")
    left_out = {one.path for one in written.left_out}
    assert {*SECRETS, f"agents/{AGENT}/state/.claude/.credentials.json", f"agents/{AGENT}/state/pipe"} <= left_out
    assert "projections.db" in left_out
    backups = Backups.opened(tmp_path / "backups")
    for entry in backups.load(written.backup).entries:
        content = b"".join(map(backups.chunks.get, entry.chunks))
        assert not any(secret.encode() in content for secret in SECRETS.values()), entry.path
        assert OUTSIDE.encode() not in content, entry.path


def test_second_backup_stores_only_what_changed(paths: Paths, tmp_path: Path) -> None:
    first = backup(paths, tmp_path / "backups")
    send(paths, "another message")
    second = backup(paths, tmp_path / "backups")
    assert second.seq == first.seq + 1
    assert second.new_chunks <= 2 < first.new_chunks  # The log's page, and the note of the first backup.


def test_earlier_backup_can_be_restored_and_old_ones_are_removed(paths: Paths, tmp_path: Path) -> None:
    first = backup(paths, tmp_path / "backups", keep=2)
    send(paths, "second")
    second = backup(paths, tmp_path / "backups", keep=2)
    assert restore(tmp_path / "backups", tmp_path / "earlier", first.backup[:18]).seq == first.seq
    (paths.agent_state(AGENT) / "big.bin").unlink()
    third = backup(paths, tmp_path / "backups", keep=1)
    assert third.removed_backups == 2
    backups = Backups.opened(tmp_path / "backups")
    assert backups.names() == [third.backup]
    with pytest.raises(NotFound, match="0 backups"):
        restore(tmp_path / "backups", tmp_path / "other", second.backup)
    stored = sum(1 for path in (tmp_path / "backups" / "chunks").rglob("*") if path.is_file())
    assert stored == len({chunk for entry in backups.load(third.backup).entries for chunk in entry.chunks})


def test_backup_killed_at_any_step_leaves_the_older_one_whole(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    first = backup(paths, folder, keep=KEEP)
    for number, step in enumerate(kill_points(BACKUP, paths.state, folder, 6)):
        send(paths, f"before the kill at step {step}")
        (paths.agent_state(AGENT) / f"new-{step}").write_text(str(step))
        assert run(BACKUP, step, paths.state, folder).returncode == -signal.SIGKILL
        assert restore(folder, tmp_path / f"new-{number}").seq >= first.seq
    send(paths, "after all kills")
    last = backup(paths, folder, keep=1)
    assert restore(folder, tmp_path / "last").seq == last.seq
    assert not [path for path in folder.rglob("*") if "unfinished" in path.name]


def test_restore_killed_at_any_step_is_done_again(paths: Paths, tmp_path: Path) -> None:
    written = backup(paths, tmp_path / "backups")
    for step in kill_points(RESTORE, tmp_path / "whole", tmp_path / "backups", 6):
        target = tmp_path / "restored" / "state"
        assert run(RESTORE, step, target, tmp_path / "backups").returncode == -signal.SIGKILL
        assert not target.exists()
    assert restore(tmp_path / "backups", target).seq == written.seq
    assert [path.name for path in target.parent.iterdir()] == ["state"]


def test_damaged_backup_is_refused_before_anything_is_written(paths: Paths, tmp_path: Path) -> None:
    backup(paths, tmp_path / "backups")
    for piece in sorted((tmp_path / "backups" / "chunks").rglob("*")):
        if not piece.is_file():
            continue
        whole = piece.read_bytes()
        for damage in (
            whole[:-1],
            whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
        ):
            piece.write_bytes(damage)
            with pytest.raises(CorruptState, match=piece.name):
                restore(tmp_path / "backups", tmp_path / "new")
        piece.write_bytes(whole)
        break
    (manifest,) = (tmp_path / "backups" / "manifests").iterdir()
    manifest.write_bytes(manifest.read_bytes().replace(b"notes.md", b"notes.mz"))
    with pytest.raises(CorruptState, match="another hash"):
        restore(tmp_path / "backups", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".restoring-*"))


def test_log_that_does_not_hold_is_not_backed_up(paths: Paths, tmp_path: Path) -> None:
    backup(paths, tmp_path / "backups")
    raw = bytearray(paths.events.read_bytes())
    at = raw.index(b"write a parser")
    raw[at] ^= 1
    paths.events.write_bytes(raw)
    with pytest.raises(CorruptState, match="nothing was backed up"):
        backup(paths, tmp_path / "backups")
    assert len(Backups.opened(tmp_path / "backups").names()) == 1


def test_wrong_folders_are_refused(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="in the state folder"):
        backup(paths, paths.state / "backups")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(BadRequest, match="not empty"):
        backup(paths, tmp_path / "full")
    with pytest.raises(NotFound, match="no backups"):
        restore(tmp_path / "full", tmp_path / "new")
    backup(paths, tmp_path / "backups")
    with pytest.raises(BadRequest, match="not empty"):
        restore(tmp_path / "backups", tmp_path / "full")


def test_link_put_in_a_folders_place_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    written = backup(paths, tmp_path / "backups")
    entries = {
        decoded(entry.path): entry for entry in Backups.opened(tmp_path / "backups").load(written.backup).entries
    }
    assert entries[f"agents/{AGENT}/state/folder-link".encode()].kind == "link"
    assert not [path for path in entries if path.startswith(f"agents/{AGENT}/state/folder-link/".encode())]


def test_newest_backup_is_noted(paths: Paths, tmp_path: Path) -> None:
    backup(paths, tmp_path / "one")
    written = backup(paths, tmp_path / "two")
    assert [one.folder for one in known_backups(paths)] == [str(tmp_path / "two"), str(tmp_path / "one")]
    assert known_backups(paths)[0].seq == written.seq
    done = subprocess.run(
        [sys.executable, "-m", "hive", "doctor", "--json", "--state", str(paths.state), "--run", str(paths.run)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    (fact,) = [fact for fact in json.loads(done.stdout) if fact["name"] == "backup"]
    assert fact["good"]
    assert str(tmp_path / "two") in fact["says"]
