"""`hive audit` and `hive log import`, and how `hive up` refuses a truncated or damaged log."""

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from audit import journald, story
from audit.test_chain import edit
from audit.test_system_journal import eventually

from hive import lock
from hive.audit import anchors
from hive.audit.system_journal import SystemJournal
from hive.audit.transfer import BATCH_ROWS, UNDER_WAY_NAME
from hive.events.daemon import Warned
from hive.events.log import EventLog, Head
from hive.events.schema import PAGE_BYTES
from hive.paths import Paths

from .conftest import PATIENCE_S, Run

HEAD = len(story.EVENTS)
UP = ("up", "--no-dashboard", "--runtime", "process", "--model-url", "http://127.0.0.1:9")


@pytest.fixture
def written(paths: Paths) -> Paths:
    story.write(paths.state)
    anchors.add(paths.anchors, end(paths), story.BEGIN_MS)
    return paths


def end(paths: Paths) -> Head:
    log = EventLog(paths.state)
    log.close()
    return log.head


def state_of(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.state.iterdir() if path.is_file()}


def test_verify_lists_the_anchors_that_agree(hive: Run, written: Paths) -> None:
    done = hive("audit", "verify", "--no-journal")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        f"projections.db: agrees up to event {HEAD}",
        f"anchors.jsonl: agrees up to event {HEAD}",
    ]
    written.anchors.unlink()
    done = hive("audit", "verify", "--no-journal", "--json")
    assert done.returncode == 0
    assert [(one["where"], one["state"]) for one in json.loads(done.stdout)["anchors"]] == [
        ("projections.db", "agrees"),
        ("anchors.jsonl", "missing"),
    ]


def test_verify_detects_a_truncated_log(hive: Run, written: Paths) -> None:
    edit(written.events, "DELETE FROM events WHERE seq > 12")
    written.projections.unlink()
    done = hive("audit", "verify", "--no-journal")
    assert done.returncode == 1
    assert done.stderr.startswith("hive: Event 13 is missing: anchors.jsonl has seen events up to 20. 12 events before")
    assert "anchors.jsonl: contradicts" in done.stdout


def test_verify_with_the_system_journal(hive: Run, written: Paths) -> None:
    head = end(written)
    with journald.namespace() as name:
        journal = SystemJournal(name)
        log = EventLog(written.state)
        first = log.hash_at(1)
        log.close()
        assert first is not None
        assert journal.note(written.state, first, head)
        eventually(lambda: journal.noted(written.state, first, {0}), 1)
        done = hive("audit", "verify", "--journal-namespace", name)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"system journal: agrees up to event {HEAD}" in done.stdout


def test_missing_system_journal_exits_1_if_requested(hive: Run, written: Paths, tmp_path: Path) -> None:
    done = hive("audit", "verify", "--journal", PATH=str(tmp_path))
    assert done.returncode == 1
    assert "the system journal cannot be read: journalctl" in done.stderr
    assert f"Verified {HEAD} events" in done.stdout


def test_up_refuses_a_truncated_log(hive: Run, written: Paths) -> None:
    edit(written.events, "DELETE FROM events WHERE seq > 12")
    before = state_of(written)
    done = hive(*UP)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"hive: The log in {written.state} ends at event 12, not 20 as anchors.jsonl")
    assert "removing anchors.jsonl and projections.db there." in done.stderr
    assert state_of(written) == {**before, "daemon.lock": b""}


def test_up_refuses_a_missing_log_with_anchors(hive: Run, written: Paths) -> None:
    written.events.unlink()
    done = hive(*UP)
    assert done.returncode == 1
    assert "ends at event 0, not 20" in done.stderr
    assert not written.events.exists()


def _zero(raw: bytearray) -> None:
    raw[:16] = bytes(16)


def _halve(raw: bytearray) -> None:
    del raw[len(raw) // 2 :]


def _spoil_root(raw: bytearray) -> None:
    raw[PAGE_BYTES : PAGE_BYTES + 8] = b"\xff" * 8


def _spoil_end(raw: bytearray) -> None:
    raw[-PAGE_BYTES : 8 - PAGE_BYTES] = b"\xff" * 8


@pytest.mark.parametrize("damage", [_zero, _halve, _spoil_root, _spoil_end, bytearray.clear])
def test_up_refuses_a_damaged_log_without_changing_it(hive: Run, paths: Paths, damage: Any) -> None:
    story.write(paths.state, [*story.EVENTS[:1], *[("actor:x", Warned(source="x", text="y" * 400))] * 200])
    raw = bytearray(paths.events.read_bytes())
    damage(raw)
    paths.events.write_bytes(raw)
    done = hive(*UP)
    assert (done.returncode, done.stdout) == (1, "")
    assert str(paths.events) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert paths.events.read_bytes() == raw


def test_replay_of_one_agent(hive: Run, written: Paths) -> None:
    state = json.loads(hive("audit", "replay", "--until", "11", "--agent", "coder", "--json").stdout)["projections"]
    assert [row["name"] for row in state["agents"]["agents"]] == ["coder"]
    shown = hive("audit", "replay", "--until", "11", "--agent", "coder").stdout
    assert "message 2 waiting: operator says: write a parser" in shown
    assert "manager" not in shown
    done = hive("audit", "replay", "--until", "5", "--agent", "ghost")
    assert done.returncode == 1
    assert done.stderr == "hive: Cannot tell: as of event 5, the log has no event about ghost.\n"


def test_why_reports_missing_events(hive: Run, paths: Paths) -> None:
    story.write(paths.state, story.EVENTS[:6])
    done = hive("audit", "why", "approval", "1")
    assert done.returncode == 0
    gap = "Cannot tell whether it was carried out: up to event 6 the log holds no outcome."
    assert done.stdout.splitlines()[-1] == gap
    done = hive("audit", "why", "approval", "1", "--json")
    assert [row["type"] for row in json.loads(done.stdout)] == ["ApprovalRequested", "ApprovalResolved"]
    assert done.stderr.strip() == gap
    done = hive("audit", "why", "approval", "7")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Cannot tell: this log, up to event 6, says nothing of approval 7." in done.stderr


def test_export_and_import(hive: Run, written: Paths, tmp_path: Path) -> None:
    out, other = tmp_path / "log.jsonl", tmp_path / "other"
    out.write_text("what was there")
    said = json.loads(hive("audit", "export", "--out", str(out), "--json").stdout)
    head = json.loads(hive("audit", "verify", "--json").stdout)["head"]
    assert said == {"events": HEAD, "head": head, "file": str(out)}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert hive("audit", "export").stdout == out.read_text()
    assert hive("audit", "export", "--out", "-").stdout == out.read_text()
    done = hive("log", "import", str(out), "--state", str(other), "--head", head, "--json")
    assert json.loads(done.stdout) == {"events": HEAD, "head": head}
    assert hive("audit", "export", "--state", str(other)).stdout == out.read_text()
    shown = hive("log", "--json", "--from", "1").stdout
    assert hive("log", "--json", "--from", "1", "--state", str(other)).stdout == shown
    piped = hive("log", "import", "-", "--state", str(tmp_path / "third"), input=out.read_text())
    assert (piped.returncode, piped.stderr) == (0, "")
    assert hive("audit", "verify", "--state", str(tmp_path / "third")).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "other", "run", "state", "third"]


def test_failed_import_names_the_line(hive: Run, written: Paths, tmp_path: Path) -> None:
    lines = hive("audit", "export").stdout.splitlines(keepends=True)
    lines[6] = lines[6].replace("coder", "c0der")
    done = hive("log", "import", "-", "--state", str(tmp_path / "other"), input="".join(lines))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hive: Line 7: event 7 does not match its hash")
    assert not (tmp_path / "other" / "events.db").exists()
    done = hive("log", "import", "-", input="".join(lines))
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert hive("log", "import", str(tmp_path / "nowhere")).returncode == 1


def test_killed_import_leaves_no_log(hive: Run, environment: dict[str, str], written: Paths, tmp_path: Path) -> None:
    story.write(tmp_path / "long", [("actor:x", Warned(source="x", text="y"))] * (BATCH_ROWS + 1))
    lines = hive("audit", "export", "--state", str(tmp_path / "long")).stdout
    other = tmp_path / "other"
    command = [sys.executable, "-m", "hive", "log", "import", "-", "--state", str(other)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True) as importing:
        assert importing.stdin is not None
        importing.stdin.write(lines)
        importing.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while not (other / UNDER_WAY_NAME / "events.db").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        importing.kill()
    assert not (other / "events.db").exists()
    assert hive("log", "import", "-", "--state", str(other), input=lines).returncode == 0
    assert hive("audit", "verify", "--state", str(other)).stdout.startswith(f"Verified {BATCH_ROWS + 1} events.")
    assert not (other / UNDER_WAY_NAME).exists()


def test_export_of_a_damaged_log_leaves_no_file(hive: Run, written: Paths, tmp_path: Path) -> None:
    edit(written.events, "UPDATE events SET data = '{}' WHERE seq = 7")
    done = hive("audit", "export", "--out", str(tmp_path / "log.jsonl"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Event 7 does not match its hash" in done.stderr
    assert list(tmp_path.glob("log.jsonl*")) == []


def test_options_before_import_are_refused(hive: Run, written: Paths, tmp_path: Path) -> None:
    done = hive("log", "--state", str(tmp_path / "other"), "import", "-")
    assert done.returncode == 2
    assert "Options go after `import`" in done.stderr
    assert hive("log", "imprt", "-").returncode == 2


def test_export_while_a_daemon_runs(hive: Run, written: Paths) -> None:
    with lock.held(written.lock):
        log = EventLog(written.state)
        story.append(log, [("actor:x", Warned(source="x", text="in the WAL"))])
        lines = hive("audit", "export").stdout.splitlines()
        log.close()
    assert len(lines) == HEAD + 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_log_imported_by_root_belongs_to_the_folder_owner(hive: Run, written: Paths, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, 65534, 65534)
    assert hive("log", "import", "-", "--state", str(other), input=hive("audit", "export").stdout).returncode == 0
    assert {path.name: path.stat().st_uid for path in other.iterdir()} == dict.fromkeys(
        ("anchors.jsonl", "daemon.lock", "events.db"), 65534
    )


def test_audit_commands_work_on_a_read_only_copy(hive: Run, written: Paths, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written.state, copy)
    for path in copy.iterdir():
        path.chmod(0o444)
    copy.chmod(0o555)
    before = sorted(path.name for path in copy.iterdir())
    for line in ("audit verify", "audit replay --agent coder", "audit why agent coder", "audit export"):
        done = hive(*line.split(), "--state", str(copy))
        assert (done.returncode, done.stderr) == (0, ""), line
    assert "anchors.jsonl: agrees" in hive("audit", "verify", "--state", str(copy)).stdout
    assert sorted(path.name for path in copy.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("audit verify --json", "Verifying"),
        ("audit replay --json", "Replaying"),
        ("audit why agent coder --json", "Searching"),
        ("audit export", "Exporting"),
        ("log import - --state {other} --json", "Importing"),
    ],
)
def test_progress_appears_only_on_a_terminal(
    hive: Run, environment: dict[str, str], written: Paths, tmp_path: Path, line: str, label: str
) -> None:
    exported = hive("audit", "export").stdout
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "hive", *line.format(other=tmp_path / "other").split()]
    done = subprocess.run(
        command,
        env={**environment, "TERM": "xterm"},
        input=exported,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(slave)
    drawn = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.returncode == 0
    assert label in drawn
    assert label not in done.stdout
    assert all(json.loads(row) for row in done.stdout.splitlines())
