"""Gives an agent's uid access to folders without following links. Used by the daemon and the shim."""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH106, PTH208

import os
import stat
from collections.abc import Callable

READ_GROUP = 0o040
ENTER_GROUP = 0o010
SOCKET_MODE = 0o660
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(path: str) -> int:
    """Open a folder by its absolute path; refuse a link in any component."""
    fd = os.open("/", FOLDER)
    for part in path.split("/"):
        if not part or part == ".":
            continue
        try:
            below = os.open(part, FOLDER, dir_fd=fd)
        except OSError as error:
            what = "is a link or not a folder" if error.errno in (20, 40) else (error.strerror or "cannot be opened")
            raise OSError(error.errno, f"{path}: {part} {what}") from error
        finally:
            os.close(fd)
        fd = below
    return fd


def open_file(folder: str, relative: str) -> int:
    """Open a regular file that an agent may have created; refuse links, pipes and devices.

    Raises:
        OSError: FileNotFoundError if it does not exist, another one if it is not a regular file.
    """
    *parents, name = relative.split("/")
    below = open_folder("/".join((folder, *parents)))
    try:
        # O_NONBLOCK: opening a pipe must not block the daemon.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=below)
    finally:
        os.close(below)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{folder}/{relative} is not a regular file")
    return fd


def give(folder: int, uid: int) -> None:
    """Change the owner of the tree below an open folder to the agent (uid and gid are the same number)."""
    walk(folder, lambda fd, name, facts: _give_one(fd, name, facts, uid))


def remove(path: str) -> None:
    """Remove a stopped agent's tree of any depth (shutil.rmtree recurses); a missing tree is fine."""
    try:
        folder = open_folder(path)
    except FileNotFoundError:
        return
    try:
        _empty(folder)
    finally:
        os.close(folder)
    os.rmdir(path)


def _empty(folder: int) -> None:
    """Move nested folders to the top while removing, so that no path is longer than two names."""
    moved = 0
    while names := os.listdir(folder):
        for name in names:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                os.unlink(name, dir_fd=folder)
                continue
            os.chmod(name, stat.S_IRWXU, dir_fd=folder)
            below = os.open(name, FOLDER, dir_fd=folder)
            try:
                for entry in os.listdir(below):
                    if not stat.S_ISDIR(os.lstat(entry, dir_fd=below).st_mode):
                        os.unlink(entry, dir_fd=below)
                        continue
                    moved += 1
                    os.chmod(entry, stat.S_IRWXU, dir_fd=below)
                    os.rename(entry, f"removed-{os.urandom(8).hex()}-{moved}", src_dir_fd=below, dst_dir_fd=folder)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=folder)


def share(folder: int, gid: int) -> None:
    """Let the agent's group read the tree; the owner does not change."""
    walk(folder, lambda fd, name, facts: _share_one(fd, name, facts, gid))


def may(facts: os.stat_result, uid: int, *, write: bool) -> bool:
    """Whether the permission bits of a folder grant the agent access."""
    needed = 7 if write else 5
    shift = 6 if facts.st_uid == uid else 3 if facts.st_gid == uid else 0
    return (facts.st_mode >> shift) & needed == needed


def _give_one(fd: int, name: str, facts: os.stat_result, uid: int) -> None:
    # A hard-linked file may belong to another user.
    linked = stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1
    if (facts.st_uid, facts.st_gid) != (uid, uid) and not linked:
        os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)


def _share_one(fd: int, name: str, facts: os.stat_result, gid: int) -> None:
    if stat.S_ISSOCK(facts.st_mode):
        os.chown(name, -1, gid, dir_fd=fd, follow_symlinks=False)
        os.chmod(name, SOCKET_MODE, dir_fd=fd)
        return
    if not (stat.S_ISDIR(facts.st_mode) or (stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1)):
        return
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.fchown(opened, -1, gid)
        enter = ENTER_GROUP if facts.st_mode & stat.S_IXUSR else 0
        if stat.S_ISDIR(facts.st_mode):
            enter |= stat.S_ISGID  # The daemon's later sockets here inherit the group.
        os.fchmod(opened, stat.S_IMODE(facts.st_mode) | READ_GROUP | enter)
    finally:
        os.close(opened)


def walk(folder: int, act: Callable[[int, str, os.stat_result], None]) -> None:
    """Call `act` on the folder and everything below it on the same file system, without following links."""
    device = os.fstat(folder).st_dev
    act(folder, ".", os.fstat(folder))
    pending: list[tuple[str, ...]] = [()]
    while pending:
        parts = pending.pop()
        fd = open_below(folder, parts)
        try:
            for entry in os.listdir(fd):
                facts = os.lstat(entry, dir_fd=fd)
                if facts.st_dev != device:
                    continue
                act(fd, entry, facts)
                if stat.S_ISDIR(facts.st_mode):
                    pending.append((*parts, entry))
        finally:
            os.close(fd)


def open_below(folder: int, parts: tuple[str, ...]) -> int:
    """Open a nested folder with one descriptor at a time, whatever the depth of the tree."""
    fd = os.dup(folder)
    for part in parts:
        try:
            below = os.open(part, FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
