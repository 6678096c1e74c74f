"""Which files the daemon opens below an agent's folders."""

import os
from pathlib import Path

import pytest

from hive.runtimes import ownership


def test_regular_file_is_opened(root: Path):
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("x")
    with os.fdopen(ownership.open_file(str(root), "a/b/file")) as file:
        assert file.read() == "x"


@pytest.mark.parametrize("planted", ["link", "link/file", "folder-link/passwd", "pipe", "folder"])
def test_links_pipes_and_folders_are_refused(root: Path, planted: str):
    (root / "file").write_text("x")
    (root / "link").symlink_to(root / "file")
    (root / "folder-link").symlink_to("/etc")
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=r"."):
        ownership.open_file(str(root), planted)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_missing_file_raises_file_not_found(root: Path):
    with pytest.raises(FileNotFoundError):
        ownership.open_file(str(root), "a/b")


def test_deep_tree_is_given_and_removed(root: Path):
    fd = ownership.open_folder(str(root))
    deep = os.dup(fd)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", ownership.FOLDER, dir_fd=deep)
        os.close(deep)
        deep = below
    ownership.give(fd, os.getuid())
    os.close(deep)
    os.close(fd)
    (root / "d/d/shut").mkdir(mode=0)
    (root / "d/link").symlink_to("/etc/passwd")
    (root / "keep").mkdir()
    (root / "d/keep").symlink_to(root / "keep")
    ownership.remove(str(root / "d"))
    ownership.remove(str(root / "d"))
    assert [path.name for path in root.iterdir()] == ["keep"]
    assert Path("/etc/passwd").exists()
