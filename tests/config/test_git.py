"""The git wrapper: limits, clean environment, redacted errors."""

import time
from pathlib import Path

import pytest

from hive.config.git import Git, GitFailed
from hive.errors import Unavailable


@pytest.fixture
def git(tmp_path: Path) -> Git:
    made = Git(tmp_path / "x.git")
    made.run("init", "--quiet", "--bare", "--template=", str(tmp_path / "x.git"))
    return made


def test_git_ignores_environment_and_user_settings(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".gitconfig").write_text("[user]\nname = evil\n[alias]\nx = !false\n")
    for key, value in {
        "HOME": str(tmp_path),
        "GIT_DIR": "/nonexistent",
        "GIT_EXTERNAL_DIFF": "false",
        "GIT_CONFIG_PARAMETERS": "'user.name'='evil'",
        "GIT_SSH_COMMAND": "false",
    }.items():
        monkeypatch.setenv(key, value)
    assert "evil" not in git.text("config", "--list")
    assert git.text("rev-parse", "--absolute-git-dir") == str(tmp_path / "x.git")


def test_git_over_the_output_limit_is_killed(git: Git):
    with pytest.raises(Unavailable, match="printed more than 10 bytes"):
        git.run("help", "-a", output_limit_bytes=10)
    assert len(git.run("help", "-a", output_limit_bytes=10, cut_output=True)) == 10


def test_git_over_the_time_limit_is_killed_with_its_children(git: Git, tmp_path: Path):
    mark = tmp_path / "pid"
    secrets = {"alias.wait": f"!echo $$ > {mark}; sleep 600"}
    for limit_s in (1, 10, 60):  # Retried with more time until the child has started.
        with pytest.raises(Unavailable, match=f"took longer than {limit_s} s"):
            git.run("wait", secrets=secrets, time_limit_s=limit_s)
        if mark.exists() and mark.read_text():
            break
    deadline = time.monotonic() + 30
    while runs(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether the process is alive. A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_errors_redact_secrets(git: Git):
    secret = "Authorization: token abcdef0123456789"
    with pytest.raises(GitFailed) as failed:
        git.run("fail", secrets={"http.extraHeader": secret, "alias.fail": "!echo bad abcdef0123456789 >&2; false"})
    assert "abcdef" not in str(failed.value)
    with pytest.raises(GitFailed) as failed:
        git.run("fetch", "https://user:hunter22@example.invalid/x")
    assert "hunter22" not in str(failed.value)


@pytest.mark.parametrize("url", ["ext::sh -c true", "https://127.0.0.1:1/x", "git://127.0.0.1/x", "ssh://127.0.0.1/x"])
def test_other_protocols_are_refused(git: Git, url: str):
    with pytest.raises(GitFailed, match="not allowed"):
        git.run("fetch", url)


def test_large_input_and_output_do_not_deadlock(git: Git):
    blob = git.text("hash-object", "-w", "--stdin", stdin=b"x" * 100_000)
    out = git.run("cat-file", "--batch", stdin=f"{blob}\n".encode() * 60, output_limit_bytes=10_000_000)
    assert len(out) > 6_000_000
