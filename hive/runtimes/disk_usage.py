"""Measures how much folders take on disk. Run by the disk watch as a niced process, `python -I -S disk_usage.py`.

Stdlib only. Reads lines of `LIMIT_BYTES FOLDER` and prints the bytes of each. The folders belong to agents: no link is
followed, no other file system is entered, and the walk of one folder ends at its limit. Every entry counts as at least
4 KiB, so that empty files are limited too.
"""

# pathlib and contextlib would double the start-up time.

import itertools
import os
import resource
import sys

if __name__ == "__main__":  # -I excludes the package from the path.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120

from hive.runtimes.ownership import FOLDER, open_folder

NICE = 19
ENTRY_BYTES = 4096
BLOCK_BYTES = 512
"""The unit of st_blocks."""
DEPTH_MAX = 1000
"""Each level needs a descriptor. A deeper tree counts as the whole limit: no program needs it."""


def usage(path: str, limit_bytes: int) -> int:
    """What the tree takes, up to the limit; 0 if it does not exist."""
    try:
        top = open_folder(path)
    except OSError:
        return 0
    device, taken = os.fstat(top).st_dev, 0
    linked: set[int] = set()
    """Inodes with several names that were counted."""
    entries_max = limit_bytes // ENTRY_BYTES + 1
    levels = [(top, _subfolders(top, entries_max))]
    taken += _files(top, device, linked)
    try:
        while levels:
            fd, names = levels[-1]
            if not names:
                os.close(fd)
                levels.pop()
                continue
            found = _open(names.pop(), fd)
            if found is None:
                continue
            if os.fstat(found).st_dev != device or len(levels) >= DEPTH_MAX:
                taken += limit_bytes if len(levels) >= DEPTH_MAX else 0
                os.close(found)
            else:
                levels.append((found, _subfolders(found, entries_max)))
                taken += _files(found, device, linked)
            if taken >= limit_bytes:
                break
        return min(taken, limit_bytes)
    finally:
        for fd, _ in levels:
            os.close(fd)


def _subfolders(fd: int, most: int) -> list[str]:
    """The names of at most `most` subfolders; that many reach the limit."""
    with os.scandir(fd) as entries:
        return list(itertools.islice((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), most))


def _files(fd: int, device: int, linked: set[int]) -> int:
    taken = ENTRY_BYTES
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:  # Removed meanwhile.
                continue
            if facts.st_dev != device or entry.is_dir(follow_symlinks=False) or facts.st_ino in linked:
                continue
            if facts.st_nlink > 1:
                linked.add(facts.st_ino)
            taken += max(facts.st_blocks * BLOCK_BYTES, ENTRY_BYTES)
    return taken


def _open(name: str, parent: int) -> int | None:
    try:
        return os.open(name, FOLDER, dir_fd=parent)
    except OSError:  # Removed or replaced by a link meanwhile.
        return None


def main() -> None:
    os.nice(NICE)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in sys.stdin:
        limit, _, path = line.rstrip("\n").partition(" ")
        sys.stdout.write(f"{usage(path, int(limit))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
