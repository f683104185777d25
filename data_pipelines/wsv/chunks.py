"""Chunks of an array, read without TensorStore's array driver, whose generality costs 0.2 ms a clip: more than the clip itself.

A shard file of zarr3 is chunks in any order and an index at its end: for each inner chunk (offset, bytes) as little-endian
uint64, in C order of the grid, 2^64 - 1 twice where it is missing, and the crc32c of all that. A chunk is its values,
compressed with zstd unless the layout says otherwise, and a crc32c. Indices are kept: a read of a bucket is one request.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import google_crc32c
import numpy as np
import zstandard

from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.manifest import ArraySpec

_KEPT_BYTES = 2**24
_MISSING = 2**64 - 1

Later = Callable[[], np.ndarray]
"""What is being read: calling it waits. Raises ValueError for what is damaged, OSError for what cannot be read."""


class Chunks:
    """One array of a dataset; for threads."""

    def __init__(self, folder: Folder, spec: ArraySpec):
        self._folder, self._spec = folder, spec
        self._steps = min(spec.steps_per_chunk, spec.shape[1])
        self._rows = -(-spec.shape[1] // self._steps)
        self._chunk = (self._steps, *spec.shape[2:])
        self._dtype = np.dtype(spec.dtype)
        self._most = max(_KEPT_BYTES // (16 * spec.clips_per_shard * self._rows), 16)
        self._indices: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock, self._local = threading.Lock(), threading.local()

    def index(self, shard: int) -> Later:
        """The places [clips rows 2] of the chunks of a shard."""
        with self._lock:
            found = self._indices.get(shard)
        if found is not None:
            return lambda: found
        need = 16 * self._spec.clips_per_shard * self._rows + 4
        (later,) = self._folder.fetch(self._spec.file(shard), [(-need, need)])

        def wait() -> np.ndarray:
            raw = later()
            if len(raw) != need or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                raise ValueError("the index of the shard does not match its checksum")
            index = np.frombuffer(raw[:-4], "<u8").reshape(self._spec.clips_per_shard, self._rows, 2)
            with self._lock:
                self._indices[shard] = index
                if len(self._indices) > self._most:
                    self._indices.popitem(last=False)
            return index

        return wait

    def values(self, index: np.ndarray, clip: int, steps: slice | np.ndarray) -> Later:
        """The values [n ...] of a clip at some steps, a slice of stride 1 or indices; `index` is that of its shard."""
        shard, place = divmod(clip, self._spec.clips_per_shard)
        wanted = np.arange(steps.start, steps.stop) if isinstance(steps, slice) else steps
        of = wanted // self._steps
        rows = np.unique(of)
        later = self._fetch(shard, index[place, rows].tolist())

        def wait() -> np.ndarray:
            result = np.empty((len(wanted), *self._spec.shape[2:]), self._dtype)
            for row, values in zip(rows.tolist(), later(), strict=True):
                start = row * self._steps
                if isinstance(steps, slice):
                    first, last = max(steps.start, start), min(steps.stop, start + self._steps)
                    result[first - steps.start : last - steps.start] = values[first - start : last - start]
                else:
                    result[of == row] = values[wanted[of == row] - start]
            return result

        return wait

    def clips(self, shard: int, count: int) -> Later:
        """The values [count ...] of the first step of the first clips of a shard."""
        index = self.index(shard)()
        later = self._fetch(shard, index[:count, 0].tolist())
        return lambda: np.stack([values[0] for values in later()])

    def _fetch(self, shard: int, places: list[list[int]]) -> Callable[[], list[np.ndarray]]:
        """Some chunks (offset, bytes) of a shard; those that lie side by side in a bucket are one request."""
        if any(offset == _MISSING for offset, _ in places):
            raise ValueError("a chunk is missing")
        runs: list[list[int]] = []
        for offset, length in places:
            if runs and runs[-1][0] + runs[-1][1] == offset and not self._folder.local:
                runs[-1][1] += length
            else:
                runs.append([offset, length])
        later = self._folder.fetch(self._spec.file(shard), runs)

        def wait() -> list[np.ndarray]:
            found, number = [], -1
            raw, begin = b"", 0
            for offset, length in places:
                if number < 0 or offset >= begin + runs[number][1] or offset < begin:
                    number += 1
                    raw, begin = later[number](), runs[number][0]
                whole = length == runs[number][1]
                found.append(self._decoded(raw if whole else raw[offset - begin : offset - begin + length], length))
            return found

        return wait

    def _decoded(self, raw: bytes, length: int) -> np.ndarray:
        """The values of a chunk of so many bytes."""
        data = raw[:-4]
        if len(raw) != length or google_crc32c.value(data) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("a chunk does not match its checksum")
        size = self._dtype.itemsize * int(np.prod(self._chunk))
        if self._spec.compressed:
            decoder = getattr(self._local, "decoder", None)
            if decoder is None:
                decoder = self._local.decoder = zstandard.ZstdDecompressor()
            try:
                data = decoder.decompress(data, max_output_size=size)
            except zstandard.ZstdError as error:
                raise ValueError(f"a chunk cannot be decoded ({error})") from error
        if len(data) != size:
            raise ValueError(f"a chunk has {len(data)} bytes, needed {size}")
        return np.frombuffer(data, self._dtype.newbyteorder("<")).reshape(self._chunk)
