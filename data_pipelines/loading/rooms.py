"""Memory for the large arrays of batches, which is used again: new memory costs time beside what is read into it.

The system gives new memory page by page, each set to zero when it is first written. Whether malloc gives memory back to the
system in between is a matter of luck, so we keep it.
"""

import math
import sys
import threading

import numpy as np
from numpy.typing import DTypeLike

_ALIGNED = 64
"""Bytes; JAX takes arrays that begin so on a CPU without a copy."""


def _references(pieces: list[np.ndarray]) -> list[int]:
    """How many references there are to each."""
    return list(map(sys.getrefcount, pieces))


_UNHELD = _references([np.empty(1)])[0]
"""References to memory of ours that nobody else holds: those of the list, and of who asks."""


class Rooms:
    """At most so many pieces of memory; for threads.

    A piece is free when no array in it is held any more, in whole or in part, by anyone: every view of NumPy refers to the
    array that owns its memory, and what JAX takes without copying, or has yet to copy, refers to what it was given.
    """

    def __init__(self, most: int):
        self._most = most
        self._held: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array that holds what the memory held."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            for piece, count in zip(self._held, _references(self._held), strict=True):
                if piece.nbytes == size + _ALIGNED and count == _UNHELD:
                    return _array(piece, size, shape, dtype)
            piece = np.empty(size + _ALIGNED, np.uint8)
            if len(self._held) < self._most:
                self._held.append(piece)
            return _array(piece, size, shape, dtype)


def _array(piece: np.ndarray, size: int, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    begin = -piece.ctypes.data % _ALIGNED
    return piece[begin : begin + size].view(dtype).reshape(shape)
