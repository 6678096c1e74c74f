"""The mirror in a running hive: what it pushes, and that a broken forge blocks nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.hive_process import HiveProcess, eventually

from .forge_server import ForgeServer
from .test_forge import ENCODED, TOKEN

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForgeServer]:
    folder = tmp_path / "forge"
    folder.mkdir()
    made = ForgeServer(folder, TOKEN)
    yield made
    made.close()


@pytest.fixture
def hive(server: ForgeServer) -> Iterator[HiveProcess]:
    made = HiveProcess()
    made.paths.state.mkdir(parents=True)
    made.paths.settings.write_text(f'[forge]\nurl = "{server.url}"\ntoken_file = "forge.token"\n')
    token = made.paths.state / "forge.token"
    token.touch(mode=0o600)
    token.write_text(TOKEN + "\n")
    yield made
    made.close()


def state(hive: HiveProcess) -> str:
    found: str = hive.ask("forge_status")["forge"]["state"]
    return found


def approve_a_change(hive: HiveProcess, text: str) -> int:
    proposed = hive.paths.proposed("coder")
    (proposed / "prompt.md").write_text(text)
    git = ["git", "-c", "safe.directory=*", "-C", str(proposed)]
    subprocess.run([*git, "commit", "--quiet", "-am", "x"], check=True)
    with hive.agent("manager") as lines:
        id: int = lines.ask("request_apply_commit", agent="coder", commit_ref="main")["id"]
    hive.ask("approve", id=id)
    hive.event("Rebuilt", agent="coder", approval_id=id, ok=True)
    return id


def test_approved_change_is_pushed_to_the_mirror(hive: HiveProcess, server: ForgeServer):
    hive.up().spawn("coder")
    eventually(lambda: state(hive) == "up to date", "the first push")
    assert set(server.refs("coder")) == {"refs/heads/main"}
    id = approve_a_change(hive, "new")
    wanted = {
        "refs/heads/main",
        *(f"refs/tags/{kind}/{id}" for kind in ("proposal", "approved", "building", "deployed")),
    }
    eventually(lambda: set(server.refs("coder")) == wanted, "the tags")
    assert server.refs("coder")["refs/heads/main"] == hive.event("Rebuilt", approval_id=id)["revision"]
    assert server.orgs["agent-configs"]["visibility"] == "private"
    hive.down()
    for path in hive.folder.rglob("*"):
        if path.is_file() and path.name != "forge.token":
            content = path.read_bytes()
            assert TOKEN.encode() not in content and ENCODED.encode() not in content, path


@pytest.mark.parametrize("mode", ["unavailable", "garbage", "hangs"])
def test_broken_forge_gives_one_warning_and_is_synced_later(hive: HiveProcess, server: ForgeServer, mode: str):
    server.mode = mode
    hive.up().spawn("coder")
    id = approve_a_change(hive, "new")
    assert hive.event("Warned", source="forge_mirror")
    eventually(lambda: state(hive) == "failing", "it says so")
    server.mode = "well"
    eventually(
        lambda: "coder" in "".join(server.repositories) and f"refs/tags/deployed/{id}" in server.refs("coder"), "it"
    )
    assert len(hive.events("Warned", source="forge_mirror")) == 1
    eventually(lambda: state(hive) == "up to date", "the mirror caught up")


def test_mirror_is_off_without_a_forge(hive: HiveProcess):
    hive.paths.settings.unlink()
    hive.up()
    assert state(hive) == "off"
    assert "off" in hive.run("forge", "status")
