"""Buffers for the large arrays of batches, used again: fresh memory costs time, because the system zeroes each new page.

Whether malloc returns freed memory to the system depends on sizes and history, so the pool keeps it.
"""

import math
import sys
import threading

import numpy as np
from numpy.typing import DTypeLike

_ALIGNMENT = 64
"""Bytes; JAX takes arrays aligned to this on a CPU without a copy."""


def _reference_counts(buffers: list[np.ndarray]) -> list[int]:
    """Reference count of each buffer."""
    return list(map(sys.getrefcount, buffers))


_BASELINE_REFERENCES = _reference_counts([np.empty(1)])[0]
"""Reference count of a buffer that only the pool's list and `_reference_counts` refer to."""


class BufferPool:
    """At most `max_buffers` buffers that are used again; thread-safe.

    A buffer is free when no array in it, whole or in part, is referenced any more: every view of NumPy refers to the array
    that owns its memory, and an array that JAX uses without a copy, or has yet to copy, is referenced by JAX.
    """

    def __init__(self, max_buffers: int):
        self._max_buffers = max_buffers
        self._buffers: list[np.ndarray] = []
        self._lock = threading.Lock()

    def acquire(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array with undefined contents."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            for buffer, count in zip(self._buffers, _reference_counts(self._buffers), strict=True):
                if buffer.nbytes == size + _ALIGNMENT and count == _BASELINE_REFERENCES:
                    return _array(buffer, size, shape, dtype)
            buffer = np.empty(size + _ALIGNMENT, np.uint8)
            if len(self._buffers) < self._max_buffers:
                self._buffers.append(buffer)
            return _array(buffer, size, shape, dtype)


def _array(buffer: np.ndarray, size: int, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """The aligned part of a buffer as an array."""
    begin = -buffer.ctypes.data % _ALIGNMENT
    return buffer[begin : begin + size].view(dtype).reshape(shape)
