"""This hive takes over a hive of the last release: its state, and agents that run.

`last_release/` names the commit, and has its event types and a state folder that it wrote: every type of event, an
archive, an erased message. A clone may lack tags, so a file names the commit. CONTRIBUTING says what a release does.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from missing_tool import missing_tool
from system.hive_process import HiveProcess, eventually

import hive
from hive.audit.anchor_check import refuse_truncated
from hive.audit.chain import verify_log
from hive.audit.check import check
from hive.errors import Unavailable
from hive.events import EVENT_TYPES
from hive.events.codec import Codec
from hive.events.log import EventLog
from hive.events.schema import READABLE_VERSIONS, SCHEMA_VERSION
from hive.paths import Paths
from hive.projections.hive import Hive, digest
from hive.projections.store import Store
from hive.runtimes.choose import choose
from hive.scripted_model import ScriptedModel, say
from hive.wire import OLDEST_WIRE, WIRE

from .conftest import ROOT, run

FOLDER = Path(__file__).parent / "last_release"
RELEASE: dict[str, Any] = json.loads((FOLDER / "release.json").read_text())
FETCH_MAX_S = 60.0
OLDER_MAX_S = 60.0


def test_version_differs_from_the_last_release() -> None:
    """Otherwise `needs_update` would not show after an upgrade."""
    assert hive.__version__ != RELEASE["version"]


def test_schema_is_raised_with_the_first_new_event_type() -> None:
    released = set((FOLDER / "event_types").read_text().split())
    assert released <= set(EVENT_TYPES), "an event type that a release wrote is read for ever"
    assert RELEASE["schema"] in READABLE_VERSIONS
    if set(EVENT_TYPES) != released:
        assert RELEASE["schema"] < SCHEMA_VERSION


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    shutil.copytree(FOLDER / "state", tmp_path / "state")
    return Paths(tmp_path / "state", tmp_path / "run")


def schema(paths: Paths) -> int:
    return int.from_bytes(paths.events.read_bytes()[60:64], "big")


def test_state_of_the_last_release_is_read(paths: Paths) -> None:
    assert refuse_truncated(paths) is None
    result = verify_log(paths, lambda _: None)
    assert (result.ok, sum(one.rows for one in result.erasures)) == (True, 10)
    same = {one.NAME for one in Hive().projections() if stored_version(paths, one.NAME) == one.VERSION}
    assert {one.projection for one in check(paths, lambda *_: None) if one.is_sound} >= same
    assert schema(paths) == RELEASE["schema"], "a reader changes nothing"


def stored_version(paths: Paths, name: str) -> int | None:
    db = apsw.Connection(
        f"file:{paths.projections}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    found = db.execute("SELECT version FROM positions WHERE projection = ?", (name,)).fetchone()
    db.close()
    return None if found is None else int(found[0])


def test_projections_of_the_last_release_are_loaded_or_refolded(paths: Paths) -> None:
    is_same = {one.NAME: stored_version(paths, one.NAME) == one.VERSION for one in Hive().projections()}
    log, loaded, folded = EventLog(paths.state), Hive(), Hive()
    store = Store(paths.state)
    refolded = store.load(loaded, log, Codec())
    assert refolded == [name for name, same in is_same.items() if not same]
    paths.projections.unlink()
    store.close()
    fresh = Store(paths.state)
    fresh.load(folded, log, Codec())
    assert list(map(digest, loaded.projections())) == list(map(digest, folded.projections()))
    assert schema(paths) == RELEASE["schema"], "nothing was written yet"
    log.append([("2026-12-01T00:00:00Z", "Booted", '{"hive_version":"x","runtime":"process"}', "actor:journal")])
    fresh.close()
    log.close()
    assert schema(paths) == SCHEMA_VERSION, "older hives refuse what this one may have written"


# Running agents


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel of the last release."""
    folder = tmp_path_factory.mktemp("released")
    _ensure_commit(RELEASE["commit"])
    run("git", "archive", f"--output={folder}/source.tar", RELEASE["commit"], cwd=ROOT)
    with tarfile.open(folder / "source.tar") as tar:
        tar.extractall(folder / "source", filter="data")
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "source")]
    python = Path(sysconfig.get_path("scripts")) / "python"
    run(python, *build, cwd=folder / "source")
    (wheel,) = (folder / "dist").glob("hive-*.whl")
    venv.create(folder / "venv")
    bin = folder / "venv" / "bin"
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    run(python, "-m", "pip", f"--python={bin}/python", "install", "--no-index", "--no-deps", wheel, cwd=folder)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run(bin / "hive", "--version", cwd=folder) == f"{RELEASE['version']}\n"
    return bin / "python"


def _ensure_commit(commit: str) -> None:
    """Fetch it into a shallow clone; skip only where that is impossible."""
    if _has(commit):
        return
    ask = ["git", "rev-parse", "--is-shallow-repository"]
    inside = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False)
    if inside.returncode != 0:
        pytest.skip("this is no git checkout, so the last release cannot be built")
    assert inside.stdout.strip() == "true", f"this clone lacks commit {commit}, which last_release/release.json names"
    fetch = ["git", "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "origin", commit]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(fetch, cwd=ROOT, env=environment, capture_output=True, timeout=FETCH_MAX_S, check=False)
    if not _has(commit):
        pytest.skip(f"this clone is shallow, lacks commit {commit} and cannot fetch it")


def _has(commit: str) -> bool:
    done = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False)
    return done.returncode == 0


def _run_of(hive: HiveProcess, name: str) -> tuple[str, int]:
    running = hive.running(name)
    assert running is not None
    return running.incarnation, running.pid


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.mark.system
@pytest.mark.timeout(300)
def test_agents_of_the_last_release_go_on_under_this_daemon(
    released: Path, installed: Path, model: ScriptedModel
) -> None:
    try:
        runtime = choose("bubblewrap").kind
    except Unavailable as error:
        missing_tool(str(error))
    model.play("coder", lambda _: say("done"))
    one = HiveProcess(runtime=runtime, model_url=model.url, python=str(released))
    try:
        _taken_over(one, released, installed / "python")
    finally:
        one.close()


def _taken_over(one: HiveProcess, released: Path, today: Path) -> None:
    one.up().spawn("coder", paused=False)
    first = one.ask("send", to="coder", body="before the upgrade")["id"]
    one.event("MessageAcked", id=first)
    started = {name: _run_of(one, name) for name in ("manager", "coder")}
    one.kill()

    one.runs_with(str(today))
    one.up()
    assert {name: _run_of(one, name) for name in ("manager", "coder")} == started
    assert [row["hive_version"] for row in one.events("Booted")] == [RELEASE["version"], hive.__version__]
    second = one.ask("send", to="coder", body="after the upgrade")["id"]
    one.event("MessageAcked", id=second)
    assert one.event("MessageDelivered", id=second)["incarnation"] == started["coder"][0]
    eventually(lambda: one.row("coder")["needs_update"], "an agent of the older release needs an update")

    one.run("restart", "coder")
    third = one.ask("send", to="coder", body="to the new harness")["id"]
    one.event("MessageAcked", id=third)
    assert one.events("Started", agent="coder")[-1]["harness_version"] == hive.__version__
    assert not one.row("coder")["needs_update"]
    assert one.row("manager")["needs_update"], "it was not restarted"

    one.down()
    one.check_files()
    command = [str(released), "-m", "hive", "up", "--runtime", "process", "--no-dashboard"]
    older = subprocess.run(
        command, env=one.environment(), cwd=one.folder, capture_output=True, text=True, timeout=OLDER_MAX_S, check=False
    )
    assert older.returncode == 1
    assert f"has schema {SCHEMA_VERSION}; this hive reads {RELEASE['schema']}" in older.stderr


@pytest.mark.system
def test_one_older_wire_is_understood_and_others_are_refused() -> None:
    one = HiveProcess()
    try:
        one.up()
        for wire in range(OLDEST_WIRE, WIRE + 1):
            with one.agent("manager") as agent:
                assert agent.ask("hello", incarnation="a", wire=wire)["wire"] == WIRE
                agent.ask("whoami")
        for wire in (OLDEST_WIRE - 1, WIRE + 1):
            with one.agent("manager") as agent:
                for reply in (agent.say("hello", incarnation="a", wire=wire), agent.say("whoami")):
                    assert (reply["ok"], reply["code"]) == (False, "wire_unsupported")
                    assert f"speaks version {wire}" in reply["error"]
                    assert "hive restart manager" in reply["error"]
    finally:
        one.close()
