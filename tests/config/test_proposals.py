"""Pinning, tagging and deploying commits of an untrusted repository."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hive.config import quarantine
from hive.config.proposals import Proposals
from hive.config.repositories import Repositories
from hive.errors import AlreadyDone, HiveError, LimitReached, NotFound, Refused
from hive.paths import Paths

from .proposing_manager import Manager


@pytest.fixture
def proposals(paths: Paths, repositories: Repositories) -> Proposals:
    return Proposals(paths, repositories)


def deployed(proposals: Proposals, manager: Manager, id: int, files: dict[str, str]) -> str:
    sha = proposals.pin("coder", id, manager.commit(files))
    proposals.deploy("coder", id, sha)
    return sha


@pytest.mark.parametrize("named", ["{sha}", "{short}", "main", "HEAD", "refs/heads/main", "v1", "loose", "HEAD~0"])
def test_pin_returns_full_sha_for_any_kind_of_name(proposals: Proposals, manager: Manager, named: str):
    sha = manager.commit({"prompt.md": "new"})
    manager.git("tag", "-a", "-m", "annotated", "v1")
    manager.git("pack-refs", "--all")
    manager.git("branch", "loose")
    assert proposals.pin("coder", 1, named.format(sha=sha, short=sha[:7])) == sha
    assert proposals.tagged("coder", 1, "proposal") == sha


def test_packed_repository_with_detached_head_is_pinned(proposals: Proposals, manager: Manager):
    sha = manager.commit({"prompt.md": "new"})
    manager.git("gc", "--quiet")
    manager.git("checkout", "--quiet", "--detach")
    assert proposals.pin("coder", 1, "HEAD") == sha


def amend(manager: Manager) -> None:
    manager.write("prompt.md", "evil")
    manager.git("commit", "--quiet", "--amend", "-am", "evil")


def rewind(manager: Manager) -> None:
    manager.git("reset", "--quiet", "--hard", "HEAD~1")
    manager.git("reflog", "expire", "--expire=now", "--all")
    manager.git("gc", "--quiet", "--prune=now")


def delete_all(manager: Manager) -> None:
    shutil.rmtree(manager.folder)


@pytest.mark.parametrize("afterwards", [amend, rewind, delete_all])
def test_pinned_commit_survives_changes_to_proposed(
    proposals: Proposals, repositories: Repositories, manager: Manager, afterwards: Callable[[Manager], None]
):
    sha = proposals.pin("coder", 1, manager.commit({"prompt.md": "as proposed"}))
    afterwards(manager)
    proposals.check_pinned("coder", 1, sha)
    assert (repositories.generation("coder", sha) / "prompt.md").read_text() == "as proposed"


def test_moved_or_deleted_tag_is_refused(proposals: Proposals, repositories: Repositories, manager: Manager):
    sha = proposals.pin("coder", 1, manager.commit({"prompt.md": "one"}))
    git = repositories.applied("coder")
    git.run("update-ref", "refs/tags/proposal/1", repositories.main("coder"))
    with pytest.raises(Refused, match="points at"):
        proposals.check_pinned("coder", 1, sha)
    git.run("update-ref", "-d", "refs/tags/proposal/1")
    with pytest.raises(Refused, match="is missing"):
        proposals.check_pinned("coder", 1, sha)


@pytest.mark.parametrize(
    "ref", ["nope", "0123456789", "--all", "-x", "a..b", "main:x", "@{-1}", "x;y", "", "a b", "\n"]
)
def test_unknown_or_invalid_ref_pins_nothing(proposals: Proposals, manager: Manager, ref: str):
    with pytest.raises((NotFound, Refused)):
        proposals.pin("coder", 1, ref)
    assert proposals.tagged("coder", 1, "proposal") is None


def secret_repository(folder: Path) -> str:
    """A repository that the manager must not be able to read through the daemon."""
    folder.mkdir()
    secret = Manager(folder)
    secret.git("init", "--quiet", "-b", "main")
    secret.git("config", "user.name", "x")
    secret.git("config", "user.email", "x")
    return secret.commit({"secret": "secret"})


def by_gitfile(manager: Manager, secret: Path) -> None:
    shutil.rmtree(manager.folder / ".git")
    (manager.folder / ".git").write_text(f"gitdir: {secret}/.git\n")


def by_symlink(manager: Manager, secret: Path) -> None:
    shutil.rmtree(manager.folder / ".git")
    (manager.folder / ".git").symlink_to(secret / ".git")


def by_linked_repository(manager: Manager, secret: Path) -> None:
    shutil.rmtree(manager.folder)
    manager.folder.symlink_to(secret)


def by_alternates(manager: Manager, secret: Path) -> None:
    (manager.folder / ".git/objects/info").mkdir(exist_ok=True)
    (manager.folder / ".git/objects/info/alternates").write_text(f"{secret}/.git/objects\n")


def by_linked_objects(manager: Manager, secret: Path) -> None:
    shutil.rmtree(manager.folder / ".git/objects")
    (manager.folder / ".git/objects").symlink_to(secret / ".git/objects")


def by_linked_object_files(manager: Manager, secret: Path) -> None:
    for path in (secret / ".git/objects").glob("??/*"):
        link = manager.folder / ".git/objects" / path.parent.name / path.name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)


@pytest.mark.parametrize(
    "reach", [by_gitfile, by_symlink, by_linked_repository, by_alternates, by_linked_objects, by_linked_object_files]
)
def test_pin_cannot_reach_objects_of_other_repositories(
    proposals: Proposals,
    repositories: Repositories,
    manager: Manager,
    tmp_path: Path,
    reach: Callable[[Manager, Path], None],
):
    sha = secret_repository(tmp_path / "secret")
    reach(manager, tmp_path / "secret")
    with pytest.raises(HiveError):
        proposals.pin("coder", 1, sha)
    assert repositories.applied("coder").commit(sha) is None


def test_no_program_of_the_proposed_repository_runs(proposals: Proposals, manager: Manager, tmp_path: Path):
    ran = tmp_path / "ran"
    evil = manager.folder / ".git/evil"
    evil.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    evil.chmod(0o755)
    sha = manager.commit({".gitattributes": "* filter=evil diff=evil\n", "prompt.md": "x"})
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "uploadpack.packObjectsHook",
        "diff.evil.textconv",
        "filter.evil.smudge",
    ):
        manager.git("config", key, str(evil))
    hooks = manager.folder / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction", "pre-upload", "post-index-change"):
        shutil.copy(evil, hooks / hook)
    assert proposals.pin("coder", 1, sha) == sha
    proposals.deploy("coder", 1, sha)
    proposals.diff("coder", sha)
    assert not ran.exists()


def test_pipe_does_not_block_and_huge_file_is_refused(
    proposals: Proposals, manager: Manager, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quarantine, "COPY_LIMIT_BYTES", 1_000_000)
    sha = manager.commit({"prompt.md": "small"})
    os.mkfifo(manager.folder / ".git/packed-refs")
    assert proposals.pin("coder", 1, "main") == sha
    big = manager.folder / ".git/objects/pack" / f"pack-{'0' * 40}.pack"
    big.parent.mkdir(exist_ok=True)
    with big.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitReached, match="larger than"):
        proposals.pin("coder", 2, "main")


def test_malformed_object_is_refused(proposals: Proposals, manager: Manager):
    sha = manager.commit({"prompt.md": "x"})
    tree = manager.git("rev-parse", "HEAD^{tree}")
    listing = f"040000 tree {tree}\t.GIT\n"
    evil = subprocess.run(
        ["git", "-C", str(manager.folder), "mktree"], input=listing, capture_output=True, text=True, check=True
    ).stdout.strip()
    commit = manager.git("commit-tree", evil, "-p", sha, "-m", "x")
    with pytest.raises(Refused, match="hasDotgit"):
        proposals.pin("coder", 1, commit)
    assert proposals.tagged("coder", 1, "proposal") is None


def test_shallow_proposal_is_refused(proposals: Proposals, manager: Manager):
    sha = manager.commit({"prompt.md": "x"})
    manager.git("repack", "-adq")
    (manager.folder / ".git/shallow").write_text(sha + "\n")
    for path in (manager.folder / ".git/objects").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises((NotFound, Refused)):
        proposals.pin("coder", 1, sha)


def test_deploy_moves_main_and_refuses_stale_commit(proposals: Proposals, repositories: Repositories, manager: Manager):
    before = repositories.main("coder")
    one = deployed(proposals, manager, 1, {"a": "1"})
    assert repositories.main("coder") == one == proposals.tagged("coder", 1, "deployed")
    proposals.deploy("coder", 1, one)
    manager.git("checkout", "--quiet", "-b", "other", before)
    two = proposals.pin("coder", 2, manager.commit({"b": "2"}))
    with pytest.raises(Refused, match="silently undo"):
        proposals.deploy("coder", 2, two)
    assert proposals.tagged("coder", 2, "deployed") is None
    manager.git("pull", "--quiet", "--no-rebase", "--no-edit", "applied", "main")
    proposals.deploy("coder", 3, proposals.pin("coder", 3, "other"))


def test_tag_has_message_and_cannot_move(proposals: Proposals, repositories: Repositories, manager: Manager):
    sha = proposals.pin("coder", 1, manager.commit({"a": "1"}))
    for _ in range(2):
        proposals.tag("coder", 1, "failed", sha, "line one\nline \x1b[31mtwo")
    assert proposals.tag_message("coder", 1, "failed") == "line one\nline \\x1b[31mtwo"
    proposals.tag("coder", 1, "denied", sha, "")
    assert proposals.tagged("coder", 1, "denied") == sha
    with pytest.raises(AlreadyDone):
        proposals.tag("coder", 1, "failed", repositories.main("coder"), "another")


def test_diff_ignores_attributes_and_escapes_unicode(proposals: Proposals, manager: Manager):
    text = "access = '\u202egnihton\u202c' # \u200b\x1b[2K\rnothing\u3164\n"
    sha = manager.commit(
        {
            ".gitattributes": "* -diff binary\n",
            "agent.nix": text,
            "odd": "\udcff\n".encode("utf-8", "surrogateescape").decode("latin-1"),
        }
    )
    diff = proposals.diff("coder", proposals.pin("coder", 1, sha))
    assert "+access = '\\u202egnihton\\u202c' # \\u200b\\x1b[2K\\x0dnothing\\u3164" in diff.text
    assert "Binary files" not in diff.text
    assert not diff.stale and not diff.cut
    proposals.deploy("coder", 1, sha)
    assert proposals.diff("coder", sha).text == diff.text


def test_long_diff_is_cut_and_stale_commit_is_marked(
    proposals: Proposals, repositories: Repositories, manager: Manager
):
    before = repositories.main("coder")
    deployed(proposals, manager, 1, {"a": "1"})
    manager.git("checkout", "--quiet", "-b", "other", before)
    sha = proposals.pin("coder", 2, manager.commit({"b": "line\n" * 400_000}))
    diff = proposals.diff("coder", sha)
    assert diff.stale and diff.cut
    assert "-1" in diff.text


def test_second_rollback_goes_one_further_back(proposals: Proposals, repositories: Repositories, manager: Manager):
    for id, text in enumerate(("one", "two", "three"), 1):
        deployed(proposals, manager, id, {"prompt.md": text})
    for id, text in ((4, "two"), (5, "one")):
        sha = proposals.rollback_commit("coder")
        proposals.deploy("coder", id, proposals.pin_own("coder", id, sha))
        assert repositories.files("coder", sha)["prompt.md"].decode() == text
    named = proposals.rollback_commit("coder", repositories.applied("coder").text("rev-parse", "deployed/3")[:10])
    proposals.deploy("coder", 6, proposals.pin_own("coder", 6, named))
    assert repositories.files("coder", repositories.main("coder"))["prompt.md"] == b"three"
    with pytest.raises(NotFound):
        proposals.rollback_commit("coder", "feedfeed")


def test_rollback_of_the_first_configuration_is_refused(proposals: Proposals):
    with pytest.raises(NotFound, match="before this one"):
        proposals.rollback_commit("coder")
