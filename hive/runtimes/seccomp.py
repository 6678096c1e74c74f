"""The sandbox's system call filter. It refuses set-user-id and set-group-id files, most socket families, and changes of
file flags: with them a file's owner could leave the project whose quota limits the agent's disk.

A mount maps a folder's owner to the agent, so a set-user-id file would run with that owner's rights on the host.
A filter cannot inspect the arguments of io_uring and openat2; both return "not implemented", which programs handle.
"""

import platform
import struct
from typing import NamedTuple

LOAD_WORD = 0x20
JUMP_EQUAL = 0x15
JUMP_GREATER_EQUAL = 0x35
JUMP_BITS = 0x45
RETURN = 0x06
ALLOW = 0x7FFF0000
NOT_PERMITTED = 0x00050001
NOT_IMPLEMENTED = 0x00050026
NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
ARGUMENTS_OFFSET = 16
"""In struct seccomp_data; each argument has 8 bytes, low half first on these architectures."""
SET_ID_BITS = 0o6000
CREATING = 0o100 | 0o20000000
"""O_CREAT and O_TMPFILE: only with one of them does the call read a mode."""
X32_CALLS = 0x40000000


class _Call(NamedTuple):
    number: int
    mode: int
    """The index of the mode argument."""
    flags: int | None = None
    """The index of the open flags argument."""


class _Machine(NamedTuple):
    architecture: int
    keyrings: tuple[int, ...]
    """add_key, request_key, keyctl: the session keyring is inherited from the daemon, and no namespace hides it."""
    sockets: tuple[int, int]
    """socket and socketpair."""
    ioctl: int
    calls: tuple[_Call, ...]


FAMILY_NOT_SUPPORTED = 0x00050061
"""As a kernel without the family answers."""
FAMILIES = (1, 2, 10)
"""Unix, inet and inet6. Others (vsock, packet, bluetooth, alg …) may bypass a network namespace."""
NETLINK = 16
NETLINK_ROUTE = 0
"""The one netlink protocol that programs need, to list their interfaces."""
HIDDEN_CALLS = (425, 437, 469)
"""io_uring_setup, openat2 and file_setattr have the same numbers on every architecture."""
FLAG_CHANGES = (0x401C5820, 0x40086602)
"""The requests FS_IOC_FSSETXATTR and FS_IOC_SETFLAGS of ioctl."""
_FCHMODAT2 = _Call(452, mode=2)
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        (248, 249, 250),
        (41, 53),
        16,
        (
            _Call(2, mode=2, flags=1),  # open
            _Call(85, mode=1),  # creat
            _Call(90, mode=1),  # chmod
            _Call(91, mode=1),  # fchmod
            _Call(133, mode=1),  # mknod
            _Call(257, mode=3, flags=2),  # openat
            _Call(259, mode=2),  # mknodat
            _Call(268, mode=2),  # fchmodat
            _FCHMODAT2,
        ),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        (217, 218, 219),
        (198, 199),
        29,
        (
            _Call(33, mode=2),  # mknodat
            _Call(52, mode=1),  # fchmod
            _Call(53, mode=2),  # fchmodat
            _Call(56, mode=3, flags=2),  # openat
            _FCHMODAT2,
        ),
    ),
}


def program() -> bytes | None:
    """The filter in bubblewrap's format; None for an architecture that is not in the table."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return None
    # Refuse calls of other architectures (32-bit programs, x32): their numbers differ.
    code = _load(ARCHITECTURE_OFFSET) + _step(JUMP_EQUAL, machine.architecture, 1, 0) + _step(RETURN, NOT_IMPLEMENTED)
    code += _load(NUMBER_OFFSET) + _step(JUMP_GREATER_EQUAL, X32_CALLS, 0, 1) + _step(RETURN, NOT_IMPLEMENTED)
    for number in (*HIDDEN_CALLS, *machine.keyrings):
        code += _step(JUMP_EQUAL, number, 0, 1) + _step(RETURN, NOT_IMPLEMENTED)
    for number in machine.sockets:
        block = _families()
        code += _step(JUMP_EQUAL, number, 0, len(block) // len(_load(0))) + block
    block = _load_argument(1)
    for request in FLAG_CHANGES:
        block += _step(JUMP_EQUAL, request, 0, 1) + _step(RETURN, NOT_PERMITTED)
    block += _step(RETURN, ALLOW)
    code += _step(JUMP_EQUAL, machine.ioctl, 0, len(block) // len(_load(0))) + block
    for call in machine.calls:
        block = b""
        if call.flags is not None:
            block += _load_argument(call.flags) + _step(JUMP_BITS, CREATING, 1, 0) + _step(RETURN, ALLOW)
        block += _load_argument(call.mode) + _step(JUMP_BITS, SET_ID_BITS, 0, 1)
        block += _step(RETURN, NOT_PERMITTED) + _step(RETURN, ALLOW)
        code += _step(JUMP_EQUAL, call.number, 0, len(block) // len(_load(0))) + block
    return code + _step(RETURN, ALLOW)


def _families() -> bytes:
    """Let the listed families through, and netlink with the one protocol."""
    block = _load_argument(0)
    for family in FAMILIES:
        block += _step(JUMP_EQUAL, family, 0, 1) + _step(RETURN, ALLOW)
    block += _step(JUMP_EQUAL, NETLINK, 1, 0) + _step(RETURN, FAMILY_NOT_SUPPORTED)
    block += _load_argument(2) + _step(JUMP_EQUAL, NETLINK_ROUTE, 0, 1) + _step(RETURN, ALLOW)
    return block + _step(RETURN, FAMILY_NOT_SUPPORTED)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _step(LOAD_WORD, offset)


def _load_argument(index: int) -> bytes:
    return _load(ARGUMENTS_OFFSET + 8 * index)
