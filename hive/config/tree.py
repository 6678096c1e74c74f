"""Lists, checks and writes the files of a commit, ignoring git attributes. Used by hive.config."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from hive.config.git import Git
from hive.errors import BadRequest

TREE_FILES_MAX = 5_000
TREE_LIMIT_BYTES = 32 * 1024 * 1024
"""Total size limit of one configuration."""
PATH_MAX_BYTES = 1_000
DEPTH_MAX = 32
LISTING_LIMIT_BYTES = TREE_FILES_MAX * 256
SYMLINK_TARGET_MAX_BYTES = 1_000

FILE: Final = "100644"
PROGRAM: Final = "100755"
_LINK: Final = "120000"
_SUBMODULE: Final = "160000"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Entry(msgspec.Struct, frozen=True):
    """One file of a commit."""

    mode: str
    sha: str
    size: int
    """Bytes."""
    path: str

    @property
    def is_file(self) -> bool:
        return self.mode != _LINK


def entries(git: Git, commit: str) -> list[Entry]:
    """List and check every file of the commit.

    Raises:
        BadRequest: names the path that is not allowed.
    """
    listing = git.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit, output_limit_bytes=LISTING_LIMIT_BYTES)
    found = [_entry(line) for line in listing.split(b"\0") if line]
    if len(found) > TREE_FILES_MAX:
        raise BadRequest(f"The configuration has more than {TREE_FILES_MAX} files.")
    if sum(entry.size for entry in found) > TREE_LIMIT_BYTES:
        raise BadRequest(f"The configuration is larger than {TREE_LIMIT_BYTES} bytes.")
    return found


def contents(git: Git, wanted: list[Entry]) -> list[bytes]:
    """The contents of the files, in the same order."""
    if not wanted:
        return []
    limit = sum(entry.size for entry in wanted) + len(wanted) * 128
    asked = "".join(f"{entry.sha}\n" for entry in wanted).encode()
    raw = git.run("cat-file", "--batch", stdin=asked, output_limit_bytes=limit)
    found, at = [], 0
    for entry in wanted:
        end_of_header = raw.index(b"\n", at)
        assert raw[at:end_of_header] == f"{entry.sha} blob {entry.size}".encode(), "git answers in the order asked"
        at = end_of_header + 1 + entry.size + 1
        found.append(raw[end_of_header + 1 : at - 1])
    return found


def write(git: Git, wanted: list[Entry], folder: Path) -> None:
    """Write the files into the empty `folder` and sync them to disk.

    Raises:
        BadRequest: a symbolic link leaves the tree.
    """
    links: list[tuple[Path, str]] = []
    folders = {folder}
    for entry, content in zip(wanted, contents(git, wanted), strict=True):
        path = folder / entry.path
        _make_folders(path.parent, folders)
        if entry.mode == _LINK:
            links.append((path, checked_target(entry.path, content)))
            continue
        mode = 0o755 if entry.mode == PROGRAM else 0o644
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for path, target in links:  # Last, so that no file is written through a link.
        path.symlink_to(target)
    for made in folders:
        flush_folder(made)


def flush_folder(folder: Path) -> None:
    """Sync the folder, so that renames and new files survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(line: bytes) -> Entry:
    head, _, raw_path = line.partition(b"\t")
    mode, _, sha, size = head.decode().split()
    path = checked_path(raw_path)
    if mode == _SUBMODULE:
        raise BadRequest(f"{path}: submodules are not fetched; commit the files themselves.")
    if mode not in (FILE, PROGRAM, _LINK):
        raise BadRequest(f"{path}: mode {mode} is not a file, a program or a link.")
    return Entry(mode, sha, int(size), path)


def checked_path(raw: bytes) -> str:
    """Decode and check a path. Raises BadRequest."""
    try:
        path = raw.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{raw!r}: a path must be UTF-8.") from error
    if len(raw) > PATH_MAX_BYTES or _CONTROL.search(path):
        raise BadRequest(f"{path[:100]!r}: a path must be under {PATH_MAX_BYTES} bytes and without control characters.")
    parts = path.split("/")
    if len(parts) > DEPTH_MAX or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise BadRequest(f"{path!r}: this path is not allowed.")
    return path


def checked_target(path: str, raw: bytes) -> str:
    """Check that a link is relative, has `..` only at its start, and stays in the tree.

    A later `..` could follow another link and leave the tree.
    """
    target = raw.decode(errors="replace")
    parts = PurePosixPath(target).parts
    climbs = len([part for part in parts if part == ".."])
    at_start = all(part == ".." for part in parts[:climbs])
    depth = len(PurePosixPath(path).parts) - 1
    if not parts or _CONTROL.search(target) or len(raw) > SYMLINK_TARGET_MAX_BYTES or "\ufffd" in target:
        raise BadRequest(f"{path}: the target of this symbolic link is not a valid path.")
    if target.startswith("/") or not at_start or climbs > depth:
        raise BadRequest(f"{path}: this symbolic link leaves the configuration.")
    return target


def _make_folders(folder: Path, made: set[Path]) -> None:
    if folder not in made:
        _make_folders(folder.parent, made)
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        made.add(folder)
