"""The two repositories, their template and checked-out generations."""

import os
import stat
from pathlib import Path

import pytest

from hive.config.repositories import TEMPLATE, Repositories
from hive.errors import BadRequest, NotFound, Refused
from hive.paths import Paths

from .proposing_manager import Manager


def test_new_agent_has_template_in_both_repositories(repositories: Repositories, paths: Paths, manager: Manager):
    sha = repositories.main("coder")
    assert len(sha) == 40
    assert manager.git("rev-parse", "main") == sha
    assert sorted(manager.git("ls-files").split()) == sorted(TEMPLATE)
    assert manager.git("status", "--porcelain") == ""
    assert (paths.agent("coder") / "applied").resolve() == paths.applied("coder").resolve()


def test_ensure_is_idempotent(repositories: Repositories, manager: Manager):
    mine = manager.commit({"prompt.md": "mine"})
    assert repositories.ensure("coder") == repositories.main("coder")
    assert manager.git("rev-parse", "HEAD") == mine


def test_emptied_proposed_repository_is_recreated(repositories: Repositories, paths: Paths, manager: Manager):
    manager.git("clean", "-ffdxq")
    for path in sorted(paths.proposed("coder").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    repositories.ensure("coder")
    assert manager.git("rev-parse", "main") == repositories.main("coder")


def test_manager_can_fetch_applied_main(repositories: Repositories, manager: Manager):
    manager.git("fetch", "--quiet", "applied")
    assert manager.git("rev-parse", "applied/main") == repositories.main("coder")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_new_proposed_repository_has_owner_of_parent_folder(paths: Paths):
    paths.all_proposed.mkdir(parents=True)
    os.chown(paths.all_proposed, 54321, 54321)
    Repositories(paths).ensure("coder")
    assert {path.lstat().st_uid for path in paths.proposed("coder").rglob("*")} == {54321}
    assert {path.lstat().st_uid for path in paths.applied("coder").rglob("*")} == {0}


def test_generation_equals_the_tree_byte_for_byte(repositories: Repositories, paths: Paths):
    changes = {
        "tools/run": b"#!/bin/sh\r\necho $Id$\r\n",
        ".gitattributes": b"* text eol=lf ident export-ignore\n* filter=evil\n",
        "raw.bin": bytes(range(256)),
    }
    sha = repositories.commit_files("coder", changes, message="raw")
    folder = repositories.generation("coder", sha)
    assert folder == paths.generations("coder") / sha
    for path, content in changes.items():
        assert (folder / path).read_bytes() == content
    assert stat.S_IMODE((folder / "raw.bin").stat().st_mode) == 0o644
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert repositories.generation("coder", sha) == folder


def test_edited_program_stays_executable(repositories: Repositories, manager: Manager, paths: Paths):
    manager.write("run", "one")
    (manager.folder / "run").chmod(0o755)
    one = manager.commit({})
    repositories.applied("coder").run("fetch", "-q", str(manager.folder), f"{one}:refs/heads/one")
    two = repositories.commit_files("coder", {"run": b"two"}, message="edit", parent=one)
    assert os.access(repositories.generation("coder", two) / "run", os.X_OK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"model = 3\n", "agent.toml:1: model"),
        (b'\nmodell = "x"\n', "agent.toml:2: modell: unknown key; did you mean model"),
        (b"x = [\n", "agent.toml: not TOML"),
        (b'prompt = "gone.md"\n', "agent.toml: prompt: there is no file gone.md"),
    ],
)
def test_invalid_agent_file_is_reported_and_leaves_no_folder(
    repositories: Repositories, paths: Paths, text: bytes, said: str
):
    sha = repositories.commit_files("coder", {"agent.toml": text}, message="broken")
    with pytest.raises(BadRequest, match="^" + said):
        repositories.generation("coder", sha)
    assert list(paths.generations("coder").iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "a/../../outside", "loop/../../x", "..", ""])
def test_link_out_of_the_tree_is_refused(repositories: Repositories, target: str):
    git = repositories.applied("coder")
    blob = git.text("hash-object", "-w", "--stdin", stdin=target.encode())
    listing = f"120000 blob {blob}\tlink\n".encode()
    made = git.text("commit-tree", git.text("mktree", stdin=listing), "-m", "x")
    with pytest.raises(BadRequest, match=r"link"):
        repositories.generation("coder", made)


def test_link_within_the_tree_is_kept(repositories: Repositories):
    git = repositories.applied("coder")
    blob = git.text("hash-object", "-w", "--stdin", stdin=b"../prompt.md")
    inner = git.text("mktree", stdin=f"120000 blob {blob}\tlink\n".encode())
    prompt = git.text("rev-parse", "main:prompt.md")
    listing = f"040000 tree {inner}\tfolder\n100644 blob {prompt}\tprompt.md\n".encode()
    made = git.text("commit-tree", git.text("mktree", stdin=listing), "-m", "x")
    folder = repositories.generation("coder", made)
    assert (folder / "folder/link").readlink() == Path("../prompt.md")
    assert (folder / "folder/link").read_bytes() == (folder / "prompt.md").read_bytes()


def test_submodule_is_refused(repositories: Repositories):
    git = repositories.applied("coder")
    listing = f"160000 commit {repositories.main('coder')}\tsub\n".encode()
    made = git.text("commit-tree", git.text("mktree", "--missing", stdin=listing), "-m", "x")
    with pytest.raises(BadRequest, match="sub: submodules"):
        repositories.generation("coder", made)


def test_old_generations_are_removed_except_applied_main(paths: Paths):
    repositories = Repositories(paths, generations_kept=3)
    wanted = repositories.ensure("coder")
    repositories.generation("coder", wanted)
    made = []
    for number in range(5):
        made.append(repositories.commit_files("coder", {"n": b"%d" % number}, message="n"))
        repositories.generation("coder", made[-1])
    assert {path.name for path in paths.generations("coder").iterdir()} == {wanted, made[3], made[4]}


def test_sweep_removes_unfinished_folders(repositories: Repositories, paths: Paths):
    repositories.generation("coder", repositories.main("coder"))
    left = paths.generations("coder") / ".unfinished-x"
    left.mkdir()
    repositories.sweep("coder")
    assert not left.exists()


def test_invalid_requests_are_refused(repositories: Repositories):
    with pytest.raises(NotFound):
        repositories.generation("coder", "0" * 40)
    with pytest.raises(BadRequest):
        repositories.generation("coder", "main")
    with pytest.raises(NotFound):
        repositories.main("nobody")
    with pytest.raises(Refused, match="already has this"):
        repositories.commit_files("coder", {"gone": None}, message="nothing")
    for path in ("../x", "/x", ".git/config", "a/.GIT/x", "a//b", "a\nb"):
        with pytest.raises(BadRequest):
            repositories.commit_files("coder", {path: b"x"}, message="bad path")


def test_files_returns_contents_by_path(repositories: Repositories):
    assert set(repositories.files("coder", repositories.main("coder"))) == set(TEMPLATE)
    assert repositories.agent_file("coder", repositories.main("coder")).prompt == "prompt.md"
