"""Memory of the host: reuse of freed pages by malloc, and the peak of a job."""

import contextlib
import ctypes
import threading

import psutil

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Numbers of malloc's parameters, from glibc's malloc.h."""

NEVER_TRIM = 2**31 - 1
"""Free memory at the end of the heap above which malloc would return it to the system, in bytes: the largest int."""

HEAP_STEP_BYTES = 256 << 20
"""Least growth of the heap, in bytes, so that it grows seldom."""


def reuse_pages() -> bool:
    """Make glibc's malloc keep freed memory; True if the C library is glibc. Call it before JAX starts.

    XLA on a CPU allocates its buffers anew at every step. malloc returns blocks of this size to the system at once, which
    then has to map and clear every page again: a quarter of a training step of the quickstart. One arena, no separate
    mappings and no trimming keep the pages; the peak stays the same. Not for hosts of accelerators, whose many loader threads
    want arenas of their own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: NEVER_TRIM, _TOP_PAD: HEAP_STEP_BYTES}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


class PeakMemory:
    """Peak resident memory of this process and its descendants together, since the object was made.

    Pages that processes share are counted once for each, so the sum is an upper bound. A thread samples it every `seconds`.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._process, self._seconds, self._peak = psutil.Process(), seconds, 0
        self._sample()
        threading.Thread(target=self._watch, name="peak memory", daemon=True).start()

    def peak_gib(self) -> float:
        """Peak so far, in GiB."""
        self._sample()
        return self._peak / 2**30

    def _sample(self) -> None:
        total = 0
        for one in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended since
                total += one.memory_info().rss
        self._peak = max(self._peak, total)

    def _watch(self) -> None:
        while not threading.Event().wait(self._seconds):
            with contextlib.suppress(psutil.Error):
                self._sample()
