"""Copies objects and refs from an untrusted repository into a quarantine. Used by `hive.config.proposals`.

Git never runs in the untrusted repository: its config, hooks, alternates, gitfile or replaced refs could make git read
other files. Instead, regular files that look like git objects are copied into a quarantine repository without following
links. The fetch from the quarantine then checks every object.
"""

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hive.config.git import SHA, Git, GitFailed
from hive.errors import LimitReached, NotFound, Refused

COPY_LIMIT_BYTES = 64 * 1024 * 1024
"""Compressed size limit of one proposed repository. A configuration is a few text files."""
COPY_FILES_MAX = 20_000
COPY_TIME_LIMIT_S = 30
PACKS_MAX = 50
REFS_MAX = 2_000
REF_DEPTH_MAX = 8
REF_FILE_LIMIT_BYTES = 1_000
PACKED_REFS_LIMIT_BYTES = 1024 * 1024
CHUNK_BYTES = 256 * 1024

WANTED: Final = "refs/heads/wanted"
COMMIT_REF: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}(?:[~^][0-9]{0,4}){0,4}")
_REF_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_LOOSE_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_LOOSE_FILE: Final = re.compile(r"[0-9a-f]{38}")
_PACK: Final = re.compile(r"pack-[0-9a-f]{40}\.pack")
_NO_PLAIN_FILE: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EACCES, errno.ENODEV})
_HEAD_LINK: Final = re.compile(r"ref: (refs/heads/\S+)")


def copy_commit(source: Path, target: Path, commit_ref: str) -> str:
    """Copy the repository with work tree `source` into the new folder `target`; return the full sha of `commit_ref`.

    The only ref of `target` is WANTED, which names that commit.

    Raises:
        Refused: an invalid ref name, or not a repository. NotFound: no such commit. LimitReached: too large.
    """
    if COMMIT_REF.fullmatch(commit_ref) is None or ".." in commit_ref or "//" in commit_ref:
        raise Refused("commit_ref must be a commit id or a plain branch or tag name.")
    git = Git(target)
    git.run("init", "--quiet", "--bare", "--template=", str(target))
    copy = _Copy(target, time.monotonic() + COPY_TIME_LIMIT_S)
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(_folder(source.parent))
        work_tree = stack.enter_context(_folder(source.name, parent))
        git_dir = stack.enter_context(_folder(".git", work_tree))
        head, refs = copy.refs(git_dir)  # Refs before objects, so that the objects of each ref exist.
        copy.objects(git_dir)
    for pack in copy.packs:
        git.run("index-pack", str(pack))  # The untrusted .idx is not copied: git would trust it.
    if head is not None and head in refs:
        refs["HEAD"] = refs[head]
    sha = _resolved(git, refs, commit_ref)
    (target / "packed-refs").write_text(f"{sha} {WANTED}\n")
    return sha


def _resolved(git: Git, refs: dict[str, str], commit_ref: str) -> str:
    lines = [f"{sha} {name}\n" for name, sha in sorted(refs.items()) if name != "HEAD"]
    (git.git_dir / "packed-refs").write_text("".join(lines))
    if "HEAD" in refs:
        (git.git_dir / "HEAD").write_text(f"{refs['HEAD']}\n")
    sha = git.commit(commit_ref)
    if sha is None:
        raise NotFound(f"{commit_ref} is not a commit in the proposed repository; commit it there first.")
    return sha


@contextlib.contextmanager
def _folder(name: str | Path, parent: int | None = None) -> Iterator[int]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError as error:
        raise Refused(f"The proposed repository has no folder {Path(name).name}, or it is a link.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Copy:
    """One copy and its limits. Every name is opened relative to its folder, without following links."""

    def __init__(self, target: Path, deadline: float) -> None:
        self._target = target
        self._deadline = deadline
        self._bytes = 0
        self._files = 0
        self.packs: list[Path] = []

    def refs(self, git_dir: int) -> tuple[str | None, dict[str, str]]:
        """The branch of HEAD and the sha of each ref. Refs with unusual names are skipped."""
        found: dict[str, str] = {}
        for line in self._small(git_dir, "packed-refs", PACKED_REFS_LIMIT_BYTES).splitlines():
            sha, _, name = line.partition(" ")
            if SHA.fullmatch(sha) and _is_plain(name):
                found[name] = sha
        with contextlib.suppress(Refused), _folder("refs", git_dir) as folder:
            self._loose_refs(folder, "refs", found)
        if len(found) > REFS_MAX:
            raise LimitReached(f"The proposed repository has more than {REFS_MAX} refs; delete some.")
        head = self._small(git_dir, "HEAD", REF_FILE_LIMIT_BYTES).strip()
        if SHA.fullmatch(head):
            found["HEAD"] = head
        link = _HEAD_LINK.fullmatch(head)
        return (link[1] if link else None), found

    def objects(self, git_dir: int) -> None:
        """Copy loose objects and packs."""
        with _folder("objects", git_dir) as objects:
            for name in self._names(objects):
                if _LOOSE_FOLDER.fullmatch(name):
                    self._folder_of_objects(objects, name, _LOOSE_FILE)
            if "pack" in self._names(objects):
                self._folder_of_objects(objects, "pack", _PACK)
        self.packs = sorted((self._target / "objects/pack").glob("*.pack"))
        if len(self.packs) > PACKS_MAX:
            raise LimitReached(f"The proposed repository has more than {PACKS_MAX} packs; run git gc there.")

    def _folder_of_objects(self, objects: int, name: str, wanted: re.Pattern[str]) -> None:
        with _folder(name, objects) as folder:
            into = self._target / "objects" / name
            into.mkdir(exist_ok=True)
            for file in self._names(folder):
                if wanted.fullmatch(file):
                    self._file(folder, file, into / file)

    def _loose_refs(self, folder: int, prefix: str, found: dict[str, str]) -> None:
        for name in self._names(folder):
            path = f"{prefix}/{name}"
            if not _is_plain(path) or len(found) > REFS_MAX:
                continue
            sha = self._small(folder, name, REF_FILE_LIMIT_BYTES).strip()
            if SHA.fullmatch(sha):
                found[path] = sha
            elif not sha and path.count("/") < REF_DEPTH_MAX:
                with contextlib.suppress(Refused), _folder(name, folder) as inner:
                    self._loose_refs(inner, path, found)

    def _names(self, folder: int) -> list[str]:
        names = []
        with os.scandir(folder) as found:
            for entry in found:
                names.append(entry.name)
                if len(names) > COPY_FILES_MAX:
                    raise LimitReached(f"A folder of the proposed repository has more than {COPY_FILES_MAX} files.")
        return sorted(names)

    def _small(self, folder: int, name: str, limit: int) -> str:
        """The text of a small file; empty if it is missing, not a regular file or too long."""
        try:
            with self._open(folder, name) as descriptor:
                raw = os.read(descriptor, limit + 1)
        except FileNotFoundError:
            return ""
        return raw.decode(errors="replace") if len(raw) <= limit else ""

    def _file(self, folder: int, name: str, target: Path) -> None:
        self._files += 1
        if self._files > COPY_FILES_MAX:
            raise LimitReached(f"The proposed repository has more than {COPY_FILES_MAX} objects; run git gc there.")
        with contextlib.suppress(FileNotFoundError), self._open(folder, name) as descriptor, target.open("xb") as file:
            while chunk := os.read(descriptor, CHUNK_BYTES):
                self._bytes += len(chunk)
                if self._bytes > COPY_LIMIT_BYTES:
                    raise LimitReached(f"The proposed repository is larger than {COPY_LIMIT_BYTES} bytes.")
                if time.monotonic() > self._deadline:
                    raise LimitReached(f"Reading the proposed repository took longer than {COPY_TIME_LIMIT_S} s.")
                file.write(chunk)

    @contextlib.contextmanager
    def _open(self, folder: int, name: str) -> Iterator[int]:
        """Open a regular file without following links or blocking on a pipe. Raises FileNotFoundError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError as error:
            if error.errno in _NO_PLAIN_FILE:
                raise FileNotFoundError(name) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(name)
            yield descriptor
        finally:
            os.close(descriptor)


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    plain = all(_REF_PART.fullmatch(part) and ".." not in part and not part.endswith((".lock", ".")) for part in parts)
    return plain and parts[0] == "refs" and len(name) <= REF_FILE_LIMIT_BYTES


def fetch(quarantine: Path, into: Git, tag: str) -> None:
    """Fetch WANTED and its history into the ref `tag` and check every object.

    Raises:
        Refused: objects are missing or malformed.
    """
    try:
        into.run(
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            str(quarantine),
            f"{WANTED}:{tag}",
        )
    except GitFailed as error:
        raise Refused(f"The proposed commit cannot be fetched: {error}") from error
