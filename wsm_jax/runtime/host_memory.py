"""How a process on a CPU keeps the memory that it has."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def reuse_pages() -> bool:
    """Tells glibc's malloc to keep freed memory; returns whether it was there to be told. Call it before JAX starts.

    XLA on a CPU allocates its buffers anew at every step. malloc hands blocks of this size back to the system at once, which
    then has to map and clear every page again: a quarter of a training step of the quickstart. One arena, no separate
    mappings and no trimming keep the pages; the peak stays the same. Not for hosts of accelerators, whose many loader threads
    want arenas of their own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 256 << 20}
    return all(mallopt(name, value) == 1 for name, value in settings.items())
