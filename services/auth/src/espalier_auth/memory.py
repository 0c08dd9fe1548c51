"""Keeps what checks of passwords take of memory, so that the kernel has not to find and clear it anew for each."""

import ctypes

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MIB = 1 << 20


def keep_memory() -> None:
    """Lets the C library keep freed memory. Does nothing where it is not glibc.

    A check takes 19 MiB, which threads' own arenas give back and fetch again: 5,000 page faults, as long as a fifth of
    the check itself. It is overwritten at its end, so what is kept tells nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_TRIM_THRESHOLD, 256 * _MIB)
