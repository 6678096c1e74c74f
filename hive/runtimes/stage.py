"""Folders of other owners, shown to an agent as its own: id-mapped mounts in a mount namespace of bubblewrap's.

Runs in the shim's child, as root, just before it becomes bubblewrap. Stdlib only. On disk nothing changes owner:
what the agent writes belongs to the folder's owner. A folder is opened component by component without following
links, because another agent may have written there.
"""

# pathlib would cost every shim a megabyte.
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
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_MOUNT_SETATTR = 442
"""The same numbers on every architecture: they are newer than the common table."""

Staged = tuple[str, str, bool, str]
"""Name in the stage folder, host path, read-only, and what to do where the file system cannot map ids: `plain` shows
it as it is, `give` hands it over to the agent, `share` lets the agent's group read it, `refuse` refuses."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(stage: str, staged: Sequence[Staged], uid: int) -> None:
    """Enter a mount namespace of our own in which `stage` holds the staged folders.

    Raises:
        OSError: the kernel refused, or a folder cannot be opened to the agent; the text says what to do.
    """
    trees = [(name, _tree(path, uid, read_only, fallback)) for name, path, read_only, fallback in staged]
    _check(_libc.unshare(CLONE_NEWNS), "a mount namespace for the agent")
    # Slave: the host's later mounts and unmounts still reach this namespace; nothing from here reaches the host.
    _check(_libc.mount(b"none", b"/", None, MS_REC_SLAVE, None), "a private mount tree")
    _check(_libc.mount(b"hive", stage.encode(), b"tmpfs", 0, b"mode=0700"), "a stage for mounts")
    for name, tree in trees:
        target = f"{stage}/{name}"
        os.mkdir(target)
        _call(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
        os.close(tree)


def _tree(path: str, uid: int, read_only: bool, fallback: str) -> int:
    """A detached mount of the folder, its owner mapped to the agent where the file system can."""
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
                f"the file system of {path} cannot map owners, and uid {uid} may not use the folder: "
                f"give it access with `setfacl -R -m u:{uid}:rwX -m d:u:{uid}:rwX {path}` and group or other permission"
            )
        return tree
    finally:
        os.close(folder)


def can_map(folder: int) -> bool:
    """Whether the file system of an open folder can map owners."""
    tree = _call(SYS_OPEN_TREE, folder, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
    try:
        return _map_owner(tree, 0, 0, 1)
    finally:
        os.close(tree)


def _map_owner(tree: int, owner_uid: int, owner_gid: int, uid: int) -> bool:
    """Show what `owner` owns as the agent's. False where kernel (before 5.12) or file system cannot."""
    if (owner_uid, owner_gid) == (uid, uid):
        return True
    try:
        namespace = _user_namespace(f"{owner_uid} {uid} 1", f"{owner_gid} {uid} 1")
    except OSError:
        return False
    try:
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.sizeof(attributes)
        return bool(_syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, size) >= 0)
    finally:
        os.close(namespace)


def _user_namespace(uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps, as a descriptor; no process stays in it."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ready_read)
        os.write(ready_write, b"y" if _libc.unshare(CLONE_NEWUSER) == 0 else b"n")
        signal.pause()
        os._exit(0)
    os.close(ready_write)
    try:
        if os.read(ready_read, 1) != b"y":
            raise OSError("the kernel refused a user namespace")
        for file, line in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{pid}/{file}", "w") as maps:
                maps.write(line)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    finally:
        os.close(ready_read)
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
