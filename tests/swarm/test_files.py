"""The archive of an agent that moves: everything arrives, and nothing is written outside its folders."""

import io
import stat
import tarfile
from pathlib import Path

import pytest
import zstandard

from hive.errors import CorruptState
from hive.paths import Paths
from hive.swarm import files


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    for folder in files.places(paths, "coder").values():
        folder.mkdir(parents=True)
    return paths


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o4777
    member.size = 4 if kind == tarfile.REGTYPE else 0
    return member


def archive_of(archive: Path, *members: tarfile.TarInfo) -> str:
    with (
        archive.open("wb") as raw,
        zstandard.ZstdCompressor().stream_writer(raw) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for member in members:
            tar.addfile(member, io.BytesIO(b"evil") if member.size else None)
    return files.digest_of(archive)


def test_files_links_and_modes_arrive(paths: Paths, tmp_path: Path) -> None:
    state = paths.agent_state("coder")
    (state / "bin").mkdir()
    (state / "bin" / "tool").write_text("#!/bin/sh\n")
    (state / "bin" / "tool").chmod(0o755)
    (state / "python").symlink_to("/usr/bin/python3")
    digest = files.pack(paths, "coder", tmp_path / "archive")
    there = Paths(tmp_path / "there", tmp_path / "run")
    there.state.mkdir()
    for _ in range(2):  # A step that was killed is repeated.
        files.unpack(tmp_path / "archive", digest, there, "coder")
    arrived = there.agent_state("coder")
    assert stat.S_IMODE((arrived / "bin" / "tool").stat().st_mode) == 0o755
    assert str((arrived / "python").readlink()) == "/usr/bin/python3"
    assert not list(there.state.glob(".arriving*"))


def test_hostile_archive_writes_nothing_outside(paths: Paths, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    digest = archive_of(
        tmp_path / "archive",
        entry("state/link", tarfile.SYMTYPE, str(outside)),
        entry("state/link/through"),
        entry("state/file", tarfile.SYMTYPE, str(outside / "secret")),
        entry("state/file"),
        entry("state/../../outside/dots"),
        entry("state/hard", tarfile.LNKTYPE, "state/link/secret"),
        entry("state/pipe", tarfile.FIFOTYPE),
        entry("elsewhere"),
        entry("state/good"),
    )
    files.unpack(tmp_path / "archive", digest, paths, "coder")
    state = paths.agent_state("coder")
    assert (state / "good").read_text() == "evil"
    assert stat.S_IMODE((state / "good").stat().st_mode) == 0o755
    assert sorted(entry.name for entry in state.iterdir()) == ["file", "good", "link"]
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "mine"


def test_archive_with_another_digest_is_refused(paths: Paths, tmp_path: Path) -> None:
    archive_of(tmp_path / "archive", entry("state/good"))
    with pytest.raises(CorruptState, match="not those that its hive sent"):
        files.unpack(tmp_path / "archive", "0" * 64, paths, "coder")
