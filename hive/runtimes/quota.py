"""Project quotas of ext4 and xfs: the kernel counts what an agent's folders take, and refuses more than its limit.

The project id is the agent's host uid, which no other hive of this host has. New files inherit it from their folder.
A project id is not a permission: a file's owner may change it. The system call filter and, in a booted container, the
user namespace keep an agent from that.
"""

# ruff: noqa: PTH208

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from typing import Final, NamedTuple

from hive.runtimes import ownership

SYS_QUOTACTL_FD: Final = 443
"""Since Linux 5.14; it has the same number on every architecture."""
PROJECT_QUOTA: Final = 2
Q_GETQUOTA: Final = 0x800007
Q_SETQUOTA: Final = 0x800008
Q_XGETQSTATV: Final = 0x5808
STATE_BYTES: Final = 160
STATE_FLAGS: Final = struct.Struct("=bxH")
"""The start of struct fs_quota_statv: its version and flags."""
STATE_VERSION: Final = 1
PROJECTS_LIMITED: Final = 1 << 5
"""FS_QUOTA_PDQ_ENFD; without it the kernel counts, but refuses nothing."""
QUOTA: Final = struct.Struct("=8QI4x")
"""struct if_dqblk: hard and soft limit in KiB, bytes, hard and soft limit of files, files, two times, valid fields."""
VALID_LIMITS: Final = 1 | 4
KIB: Final = 1024
FILE_BYTES: Final = 4096
"""Each file counts as at least this, as in the walk of `disk_usage`."""

FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FSSETXATTR: Final = 0x401C5820
ATTRIBUTES: Final = struct.Struct("=5I8x")
"""struct fsxattr: flags, extent size, extents, project id, extent size for copies."""
INHERIT: Final = 0x200

_libc = ctypes.CDLL(None, use_errno=True)


class Usage(NamedTuple):
    """What a project takes and may take. Like the walk, a file counts as at least 4 KiB."""

    used_bytes: int
    limit_bytes: int
    """0: no limit."""


def offered(folder: str) -> bool:
    """Whether the file system of this folder limits projects and this process may set the limits."""
    if os.geteuid() != 0:
        return False
    try:
        fd = ownership.open_folder(os.path.realpath(folder))
    except OSError:
        return False
    try:
        state = ctypes.create_string_buffer(STATE_BYTES)
        STATE_FLAGS.pack_into(state, 0, STATE_VERSION, 0)
        _quotactl(fd, Q_XGETQSTATV, 0, state)
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(STATE_FLAGS.unpack_from(state)[1] & PROJECTS_LIMITED)


def limit(folder: str, project: int, limit_bytes: int) -> None:
    """Limit the project on the file system of this folder; 0 removes the limit.

    Raises:
        OSError: the file system has no project quotas.
    """
    new = QUOTA.pack(limit_bytes // KIB, 0, 0, limit_bytes // FILE_BYTES, 0, 0, 0, 0, VALID_LIMITS)
    with contextlib.closing(_Folder(folder)) as top:
        _quotactl(top.fd, Q_SETQUOTA, project, ctypes.create_string_buffer(new, QUOTA.size))


def usage(folder: str, project: int) -> Usage:
    """What the project takes on the file system of this folder. Raises OSError as `limit`."""
    found = ctypes.create_string_buffer(QUOTA.size)
    with contextlib.closing(_Folder(folder)) as top:
        try:
            _quotactl(top.fd, Q_GETQUOTA, project, found)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):  # As xfs says of a project without files.
                raise
            return Usage(0, 0)
    limit_kib, _, used_bytes, _, _, files, *_ = QUOTA.unpack(found.raw)
    return Usage(max(used_bytes, files * FILE_BYTES), limit_kib * KIB)


def assign(folder: str, project: int) -> None:
    """Make the tree part of the project, without following links. A tree that is already in it costs one look.

    The folder itself comes last, so that an interrupted call is repeated as a whole.

    Raises:
        OSError: the folder is a link or missing, or its file system has no project ids.
    """
    with contextlib.closing(_Folder(folder)) as top:
        if _project(top.fd) == (project, True):
            return
        ownership.walk(top.fd, lambda fd, name, facts: _assign_one(fd, name, facts, project))
        _set_project(top.fd, project, inherit=True)
        for name in os.listdir(top.fd):  # Those that came meanwhile did not inherit it.
            with contextlib.suppress(FileNotFoundError):
                _assign_one(top.fd, name, os.lstat(name, dir_fd=top.fd), project)


class _Folder:
    def __init__(self, path: str) -> None:
        self.fd = ownership.open_folder(path)

    def close(self) -> None:
        os.close(self.fd)


def _assign_one(fd: int, name: str, facts: os.stat_result, project: int) -> None:
    """Sockets, pipes and links cannot be opened for this; they have no blocks."""
    is_folder = stat.S_ISDIR(facts.st_mode)
    if name == "." or not (is_folder or stat.S_ISREG(facts.st_mode)):
        return
    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    try:
        _set_project(opened, project, inherit=is_folder)
    finally:
        os.close(opened)


def _project(fd: int) -> tuple[int, bool]:
    """The project of a file and whether new files inherit it."""
    flags, _, _, project, _ = ATTRIBUTES.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(ATTRIBUTES.size)))
    return project, bool(flags & INHERIT)


def _set_project(fd: int, project: int, *, inherit: bool) -> None:
    flags, size, extents, _, copy_size = ATTRIBUTES.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(ATTRIBUTES.size)))
    new = flags | INHERIT if inherit else flags
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, ATTRIBUTES.pack(new, size, extents, project, copy_size))


def _quotactl(fd: int, command: int, project: int, data: "ctypes.Array[ctypes.c_char]") -> None:
    request = ctypes.c_uint(command << 8 | PROJECT_QUOTA)
    if _libc.syscall(SYS_QUOTACTL_FD, fd, request, ctypes.c_uint(project), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"project quota: {os.strerror(number)}")
