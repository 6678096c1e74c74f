"""Which limit a run ran into when it ended by itself. Used by the shim; stdlib only."""

import os

FULL_BYTES = 1024 * 1024
"""A file system with less room than this is full."""

MEMORY = "memory"
PROCESSES = "processes"
DISK = "disk"

NO_SPACE = (b"No space left on device", b"Disk quota exceeded", b"ENOSPC", b"EDQUOT")
NO_MEMORY = (b"MemoryError", b"Cannot allocate memory", b"out of memory", b"ENOMEM")
NO_PROCESS = (b"Resource temporarily unavailable", b"can't start new thread", b"EAGAIN", b"Cannot fork")


def limit_hit(tail: bytes, folder: str, *, killed: bool, oom: bool | None, refused: bool | None) -> str | None:
    """The limit behind an abnormal end that nobody ordered, or None.

    `killed`: it ended by SIGKILL. `oom`: the kernel killed for memory. `refused`: forks were refused shortly before.
    The control groups' counts are decisive; without them (None) the program's last words are.
    """
    if killed and oom:
        return MEMORY
    if refused:
        return PROCESSES
    if _contains(tail, NO_SPACE) or _is_full(folder):
        return DISK
    if oom is None and _contains(tail, NO_MEMORY):
        return MEMORY
    if refused is None and _contains(tail, NO_PROCESS):
        return PROCESSES
    return None


def _contains(tail: bytes, words: tuple[bytes, ...]) -> bool:
    return any(word in tail for word in words)


def _is_full(folder: str) -> bool:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return False
    return facts.f_blocks > 0 and facts.f_bavail * facts.f_frsize < FULL_BYTES
