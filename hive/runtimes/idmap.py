"""Id-mapped mounts: an agent sees folders of other owners as its own.

Runs as root in the shim's child, just before it executes bubblewrap. Stdlib only. Ownership on disk does not change:
files that the agent writes belong to the folder's owner. Folders are opened component by component without following
links, because another agent may have planted one.
"""

# Importing pathlib costs each shim 1 MB of memory.
# ruff: noqa: PTH102, PTH123

import ctypes
import os
import signal
from collections.abc import Sequence

from hive.runtimes import ownership

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_IDMAP = 0x00100000
MS_REC_SLAVE = 0x4000 | (1 << 19)
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MAX_FD = 1 << 20
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_MOUNT_SETATTR = 442
"""These newer calls have the same numbers on every architecture."""

IdmappedFolder = tuple[str, str, bool, str]
"""Name below the mount point, host path, read-only, and the fallback where the file system cannot map ids: `plain`
mounts it unchanged, `give` changes its owner to the agent, `share` lets the agent's group read it, `refuse` refuses."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter_mount_namespace(mount_point: str, folders: Sequence[IdmappedFolder], uid: int) -> None:
    """Enter a new mount namespace with the folders mounted below `mount_point`.

    Raises:
        OSError: the kernel refused, or the agent cannot be given access; the text says what to do.
    """
    trees = [(name, _tree(path, uid, read_only, fallback)) for name, path, read_only, fallback in folders]
    _check(_libc.unshare(CLONE_NEWNS), "a mount namespace for the agent")
    # Slave: later mounts and unmounts of the host propagate here; nothing propagates to the host.
    _check(_libc.mount(b"none", b"/", None, MS_REC_SLAVE, None), "a private mount tree")
    _check(_libc.mount(b"hive", mount_point.encode(), b"tmpfs", 0, b"mode=0700"), "a tmpfs for mounts")
    for name, tree in trees:
        target = f"{mount_point}/{name}"
        os.mkdir(target)
        _call(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)


def _tree(path: str, uid: int, read_only: bool, fallback: str) -> int:
    """A detached mount of the folder, with its owner mapped to the agent if the file system supports it."""
    folder = ownership.open_folder(path)
    try:
        owner = os.fstat(folder)
        tree = _call(SYS_OPEN_TREE, folder, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
        if _map_owner(tree, owner.st_uid, owner.st_gid, uid) or fallback == "plain":
            return tree
        if fallback == "give":
            ownership.give(folder, uid)
        elif fallback == "share":
            ownership.share(folder, uid)
        elif not ownership.may(owner, uid, write=not read_only):
            raise OSError(
                f"the file system of {path} has no id-mapped mounts, and uid {uid} has no access to the folder: "
                f"grant it with `setfacl -R -m u:{uid}:rwX -m d:u:{uid}:rwX {path}` and group or other permission"
            )
        return tree
    finally:
        os.close(folder)


def mount(kind: str, target: str, options: str, flags: int, source: str = "hive") -> None:
    """Mount a file system that has no device, or bind a folder.

    Raises:
        OSError: the kernel refused.
    """
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(result, f"a {kind} for the container's root")


def mount_range(path: str, target: str, first: int, count: int, *, required: bool = True) -> None:
    """Mount a folder of this host at `target`, with ids from 0 shifted to `first`; unshifted only if not required.

    Raises:
        OSError: the file system has no id-mapped mounts; the text says what to do.
    """
    folder = ownership.open_folder(path)
    try:
        tree = _call(SYS_OPEN_TREE, folder, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
    finally:
        os.close(folder)
    if not _set_map(tree, f"0 {first} {count}", f"0 {first} {count}") and required:
        raise OSError(f"the file system of {path} has no id-mapped mounts: move the tree to ext4, xfs or btrfs")
    os.mkdir(target)
    _call(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def can_map(folder: int) -> bool:
    """Whether the file system of an open folder supports id-mapped mounts."""
    tree = _call(SYS_OPEN_TREE, folder, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
    try:
        return _map_owner(tree, 0, 0, 1)
    finally:
        os.close(tree)


def _map_owner(tree: int, owner_uid: int, owner_gid: int, uid: int) -> bool:
    """Map the owner to the agent. False if the kernel (before 5.12) or the file system cannot."""
    return (owner_uid, owner_gid) == (uid, uid) or _set_map(tree, f"{owner_uid} {uid} 1", f"{owner_gid} {uid} 1")


def _set_map(tree: int, uid_map: str, gid_map: str) -> bool:
    """Map ids on a detached mount. False if the kernel or the file system cannot."""
    try:
        namespace = _user_namespace(uid_map, gid_map)
    except OSError:
        return False
    try:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.sizeof(attributes)
        return bool(_syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, size) >= 0)
    finally:
        os.close(namespace)


def _user_namespace(uid_map: str, gid_map: str) -> int:
    """A descriptor of a user namespace with these maps; no process stays in it."""
    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    pid = os.fork()
    if not pid:
        # The caller may be the daemon. Its locks must not outlive it here, so only the two pipes stay open.
        os.dup2(end_read, 0)
        os.dup2(ready_write, 1)
        os.closerange(2, MAX_FD)
        os.write(1, b"y" if _libc.unshare(CLONE_NEWUSER) == 0 else b"n")
        os.read(0, 1)  # Until the caller kills this process, or ends.
        os._exit(0)
    os.close(ready_write)
    os.close(end_read)
    try:
        if os.read(ready_read, 1) != b"y":
            raise OSError("the kernel refused a user namespace")
        for file, line in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{pid}/{file}", "w") as maps:
                maps.write(line)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    finally:
        os.close(ready_read)
        os.close(end_write)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _syscall(number: int, *arguments: object) -> int:
    typed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *typed))


def _call(number: int, *arguments: object) -> int:
    result = _syscall(number, *arguments)
    _check(result, f"mount call {number}")
    return result


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refused {what}: {os.strerror(number)}")
