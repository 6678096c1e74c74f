"""The walk that measures folders of agents: its sums, its bounds, and what it does not enter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hive.runtimes import disk_usage, ownership
from hive.runtimes.disk_usage import DEPTH_MAX, ENTRY_BYTES, usage

LIMIT = 10**9


def test_files_and_folders_are_summed(root: Path):
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(b"x" * 1_000_000)
    (root / "a/empty").touch()
    assert usage(str(root), LIMIT) == 3 * ENTRY_BYTES + ENTRY_BYTES + 1_003_520
    assert usage(str(root / "missing"), LIMIT) == 0


def test_hard_linked_file_counts_once(root: Path):
    (root / "file").write_bytes(b"x" * 1_000_000)
    once = usage(str(root), LIMIT)
    os.link(root / "file", root / "again")
    assert usage(str(root), LIMIT) == once


def test_links_are_not_followed(root: Path):
    (root / "inside").mkdir()
    (root / "outside").mkdir()
    (root / "outside/file").write_bytes(b"x" * 1_000_000)
    (root / "inside/link").symlink_to(root / "outside")
    assert usage(str(root / "inside"), LIMIT) == 2 * ENTRY_BYTES
    assert usage(str(root / "inside/link"), LIMIT) == 0


def test_sparse_file_counts_its_blocks(root: Path):
    with (root / "sparse").open("wb") as file:
        file.truncate(10**12)
    assert usage(str(root), LIMIT) <= 4 * ENTRY_BYTES


def test_walk_ends_at_the_limit(root: Path):
    for name in range(50):
        (root / str(name)).touch()
    assert usage(str(root), 10 * ENTRY_BYTES) == 10 * ENTRY_BYTES


def test_tree_deeper_than_any_program_needs_counts_as_full(root: Path):
    deep = ownership.open_folder(str(root))
    for _ in range(DEPTH_MAX + 5):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", ownership.FOLDER, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    done = subprocess.run(
        [sys.executable, "-I", "-S", disk_usage.__file__],
        input=f"{LIMIT} {root}\n{LIMIT} /proc/self/missing\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(LIMIT), "0"]
    ownership.remove(str(root / "d"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_other_file_systems_are_not_entered(root: Path):
    (root / "mounted").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(root / "mounted")], check=False).returncode != 0:
        pytest.skip("mount is not permitted")
    try:
        (root / "mounted/file").write_bytes(b"x" * 1_000_000)
        assert usage(str(root), LIMIT) <= 2 * ENTRY_BYTES
    finally:
        subprocess.run(["umount", str(root / "mounted")], check=True)
