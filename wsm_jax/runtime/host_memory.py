"""Memory of the host: how a process keeps what it has, and the most that a job has held."""

import contextlib
import ctypes
import threading

import psutil

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


class PeakMemory:
    """The most resident memory that this process and its descendants have held together since this was made.

    Pages that processes share are counted once for each, so the sum is an upper bound. Looks every `seconds`, in a thread.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._process, self._seconds, self._peak = psutil.Process(), seconds, 0
        self._look()
        threading.Thread(target=self._watch, name="peak memory", daemon=True).start()

    def peak_gib(self) -> float:
        """GiB."""
        self._look()
        return self._peak / 2**30

    def _look(self) -> None:
        total = 0
        for one in (self._process, *self._process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended since
                total += one.memory_info().rss
        self._peak = max(self._peak, total)

    def _watch(self) -> None:
        while not threading.Event().wait(self._seconds):
            with contextlib.suppress(psutil.Error):
                self._look()
