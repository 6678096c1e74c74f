"""The forge client against real git over HTTP and against broken forges."""

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive.config import forge as forge_module
from hive.config.forge import Forge, ForgeFailed, ForgeUnreachable
from hive.config.proposals import KINDS, Proposals
from hive.config.repositories import Repositories
from hive.paths import Paths

from .forge_server import MODES, ForgeServer

TOKEN = "5up3r53cr3tt0k3n0f7h3f0rg3"
ENCODED = base64.b64encode(f"hive:{TOKEN}".encode()).decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ForgeServer]:
    folder = tmp_path / "forge"
    folder.mkdir()
    made = ForgeServer(folder, TOKEN)
    yield made
    made.close()


@pytest.fixture
def forge(server: ForgeServer) -> Iterator[Forge]:
    with Forge(server.url + "/", "agent-configs", TOKEN) as made:
        yield made


def mirror(forge: Forge, repositories: Repositories) -> None:
    forge.ensure_org()
    forge.ensure_repository("coder")
    forge.push("coder", repositories.applied("coder"))


def test_push_mirrors_main_and_all_tags(forge: Forge, server: ForgeServer, repositories: Repositories, paths: Paths):
    sha = repositories.main("coder")
    proposals = Proposals(paths, repositories)
    for kind in KINDS:
        proposals.tag("coder", 7, kind, sha, "a note" if kind in ("failed", "denied") else None)
    repositories.applied("coder").run("update-ref", "refs/heads/private", sha)
    for _ in range(2):
        mirror(forge, repositories)
    refs = server.refs("coder")
    assert set(refs) == {"refs/heads/main", *(f"refs/tags/{kind}/7" for kind in KINDS)}
    assert refs["refs/heads/main"] == sha
    assert server.orgs["agent-configs"]["visibility"] == "private"
    assert server.repositories["agent-configs/coder"]["private"] is True
    assert server.git("coder", "for-each-ref", "--format=%(contents)", "refs/tags/denied/7") == "a note"


def test_push_overwrites_diverged_and_missing_refs(
    forge: Forge, server: ForgeServer, repositories: Repositories, paths: Paths
):
    sha = repositories.main("coder")
    Proposals(paths, repositories).tag("coder", 1, "proposal", sha)
    mirror(forge, repositories)
    before = server.refs("coder")
    other = server.git("coder", "-c", "user.name=x", "-c", "user.email=x", "commit-tree", "main^{tree}", "-m", "evil")
    server.git("coder", "update-ref", "refs/heads/main", other)
    server.git("coder", "update-ref", "refs/tags/approved/9", other)
    server.git("coder", "update-ref", "-d", "refs/tags/proposal/1")
    server.orgs["agent-configs"]["visibility"] = "public"
    server.repositories["agent-configs/coder"]["private"] = False
    mirror(forge, repositories)
    assert server.refs("coder") == before
    assert server.orgs["agent-configs"]["visibility"] == "private"
    assert server.repositories["agent-configs/coder"]["private"] is True


def test_token_is_in_no_file_argument_or_error(
    forge: Forge, server: ForgeServer, repositories: Repositories, paths: Paths
):
    forge.ensure_org()
    forge.ensure_repository("coder")
    server.slow_s = 0.3
    pushed = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not pushed.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    looking = threading.Thread(target=look)
    looking.start()
    forge.push("coder", repositories.applied("coder"))
    pushed.set()
    looking.join()
    assert any(b"git-remote-http" in line or b"remote-http" in line for line in seen)
    assert not any(TOKEN.encode() in line or ENCODED.encode() in line for line in seen)
    files = [path.read_bytes() for path in paths.state.rglob("*") if path.is_file()]
    assert files and not any(TOKEN.encode() in content or ENCODED.encode() in content for content in files)
    assert b"remote" not in (paths.applied("coder") / ".git/config").read_bytes()


def test_error_of_a_wrong_token_does_not_contain_it(server: ForgeServer, repositories: Repositories):
    with Forge(server.url, "agent-configs", "wr0ngt0k3n") as forge:
        with pytest.raises(ForgeFailed, match="write:organization") as failed:
            forge.ensure_org()
        assert "wr0ng" not in str(failed.value)
        with pytest.raises(ForgeFailed) as failed:
            forge.push("coder", repositories.applied("coder"))
        assert "wr0ng" not in str(failed.value)
        assert base64.b64encode(b"hive:wr0ngt0k3n").decode() not in str(failed.value)


@pytest.mark.parametrize("mode", MODES[1:])
def test_broken_forge_fails_within_time_limit(
    forge: Forge, server: ForgeServer, repositories: Repositories, mode: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forge_module, "ANSWER_TIME_LIMIT_S", 1)
    monkeypatch.setattr(forge_module, "PUSH_TIME_LIMIT_S", 1)
    forge._client.timeout = 1
    server.mode = mode
    with pytest.raises(ForgeUnreachable):
        forge.ensure_org()
    with pytest.raises(ForgeFailed):
        forge.push("coder", repositories.applied("coder"))


def test_absent_forge_is_unreachable(server: ForgeServer):
    server.close()
    with Forge(server.url, "agent-configs", TOKEN) as forge, pytest.raises(ForgeUnreachable, match="does not answer"):
        forge.ensure_org()


def test_redirect_does_not_receive_the_token(forge: Forge, server: ForgeServer):
    server.mode = "redirects"
    with pytest.raises(ForgeUnreachable):
        forge.ensure_org()
    assert len(server.bearers) == 1


@pytest.mark.parametrize("url", ["ftp://x", "http://user:pass@x", "file:///x", "x", "http://"])
def test_forge_url_must_be_http_without_user(url: str):
    with pytest.raises(ForgeFailed, match="without a user"):
        Forge(url, "agent-configs", TOKEN)
