"""Has the C library give memory back that large requests took. Used by the daemon before it starts threads."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Of `malloc.h`."""
LARGE_BLOCK_BYTES = 64 * 1024
ARENAS_MAX = 2
"""Each thread would have its own, and what one frees the others cannot use."""


def give_memory_back() -> None:
    """Have large blocks mapped on their own and unmapped when freed; glibc would raise that threshold as it goes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # Another C library.
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES)
    mallopt(M_ARENA_MAX, ARENAS_MAX)
