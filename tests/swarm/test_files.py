"""The archive of an agent: everything arrives, little of it changes, and nothing is written outside its folders."""

import io
import stat
import tarfile
from pathlib import Path

import pytest

from hive.backup.chunks import Chunks, stored_form
from hive.errors import CorruptState
from hive.paths import Paths
from hive.swarm import pieces
from hive.swarm.pieces import Manifest


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "state", tmp_path / "run")
    for folder in pieces.places(paths, "coder").values():
        folder.mkdir(parents=True)
    return paths


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o4777
    member.size = 4 if kind == tarfile.REGTYPE else 0
    return member


@pytest.fixture
def chunks(tmp_path: Path) -> Chunks:
    (tmp_path / "chunks").mkdir()
    return Chunks(tmp_path / "chunks")


def archive_of(chunks: Chunks, *members: tarfile.TarInfo) -> Manifest:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w|") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"evil") if member.size else None)
    return Manifest("coder", (chunks.put(packed.getvalue()),))


def stored(chunks: Chunks, paths: Paths) -> Manifest:
    return Manifest("coder", tuple(chunks.put(piece) for piece in pieces.cut(paths, "coder")))


def test_files_links_and_modes_arrive(paths: Paths, chunks: Chunks, tmp_path: Path) -> None:
    state = paths.agent_state("coder")
    (state / "bin").mkdir()
    (state / "bin" / "tool").write_text("#!/bin/sh\n")
    (state / "bin" / "tool").chmod(0o755)
    (state / "python").symlink_to("/usr/bin/python3")
    (state / ("long" * 60)).write_text("a long name")
    large = bytes(range(256)) * 8_000
    (state / "large").write_bytes(large)
    manifest = stored(chunks, paths)
    there = Paths(tmp_path / "there", tmp_path / "run")
    there.state.mkdir()
    for _ in range(2):  # A step that was killed is repeated.
        pieces.unpack(chunks, manifest, there, "coder")
    arrived = there.agent_state("coder")
    assert stat.S_IMODE((arrived / "bin" / "tool").stat().st_mode) == 0o755
    assert str((arrived / "python").readlink()) == "/usr/bin/python3"
    assert (arrived / "large").read_bytes() == large
    assert (arrived / ("long" * 60)).read_text() == "a long name"
    assert not list(there.state.glob(".arriving*"))


def test_changes_cost_the_pieces_that_hold_them(paths: Paths, chunks: Chunks) -> None:
    state = paths.agent_state("coder")
    for number in range(600):
        (state / f"note-{number}").write_text(f"note {number}\n" * 20)
    (state / "large").write_bytes(b"".join(number.to_bytes(4, "big") for number in range(1_000_000)))
    before = stored(chunks, paths)
    assert all(len(piece) <= pieces.PIECE_BYTES + pieces.BLOCK for piece in pieces.cut(paths, "coder"))
    assert len(before.pieces) > 15
    (state / "note-300").write_text("changed")
    (state / "note-300b").write_text("new")
    with (state / "large").open("ab") as file:
        file.write(b"more")
    after = stored(chunks, paths)
    assert len(set(after.pieces) - set(before.pieces)) <= 5, "two cuts of small files, a header and the end of a file"


def test_unchanged_agent_has_the_same_fingerprint_and_pieces(paths: Paths, chunks: Chunks) -> None:
    (paths.agent_state("coder") / "notes.md").write_text("one")
    seen, cut = pieces.fingerprint(paths, "coder"), stored(chunks, paths)
    assert (pieces.fingerprint(paths, "coder"), stored(chunks, paths)) == (seen, cut)
    (paths.agent_state("coder") / "notes.md").write_text("two")
    assert pieces.fingerprint(paths, "coder") != seen


def test_login_stays_on_the_host_and_links_are_not_followed(paths: Paths, chunks: Chunks, tmp_path: Path) -> None:
    state = paths.agent_state("coder")
    (state / ".claude").mkdir()
    (state / ".claude" / ".credentials.json").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "key").write_text("secret")
    (state / "folder").symlink_to(tmp_path / "outside")
    (state / "file").symlink_to(tmp_path / "outside" / "key")
    assert not [piece for piece in pieces.cut(paths, "coder") if b"secret" in piece]


def test_damaged_piece_is_refused(chunks: Chunks) -> None:
    name, _ = stored_form(b"one")
    with pytest.raises(CorruptState, match="another hash"):
        chunks.take(name, stored_form(b"two")[1])
    with pytest.raises(CorruptState, match="damaged"):
        chunks.take(name, b"no such thing")


def test_hostile_archive_writes_nothing_outside(paths: Paths, chunks: Chunks, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("mine")
    manifest = archive_of(
        chunks,
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
    pieces.unpack(chunks, manifest, paths, "coder")
    state = paths.agent_state("coder")
    assert (state / "good").read_text() == "evil"
    assert stat.S_IMODE((state / "good").stat().st_mode) == 0o755
    assert sorted(entry.name for entry in state.iterdir()) == ["file", "good", "link"]
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "mine"
