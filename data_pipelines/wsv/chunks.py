"""Chunks of arrays on a local disk, read without TensorStore, whose generality costs 0.2 ms a clip: more than the clip itself.

A shard file of zarr3 is chunks in any order and an index at its end: for each inner chunk (offset, bytes) as little-endian
uint64, in C order of the grid, 2^64 - 1 twice where it is missing, and the crc32c of all that. A chunk is its values,
compressed with zstd unless the layout says otherwise, and a crc32c. Thread-safe; files are opened for each read and closed.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator

import google_crc32c
import numpy as np
import zstandard

from data_pipelines.wsv.manifest import ArraySpec

_KEPT = 4096
_MISSING = 2**64 - 1


class Chunks:
    """One array of a dataset in a local folder."""

    def __init__(self, root: str, spec: ArraySpec):
        self._root, self._spec = root, spec
        self._steps = min(spec.steps_per_chunk, spec.shape[1])
        self._rows = -(-spec.shape[1] // self._steps)
        self._chunk = (self._steps, *spec.shape[2:])
        self._dtype = np.dtype(spec.dtype)
        self._indices: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock, self._local = threading.Lock(), threading.local()

    def read(self, clip: int, steps: slice | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Values [n, ...] of a clip at some steps, a slice of stride 1 or indices, into `out` where it is given.

        Raises ValueError for what is damaged, OSError for what cannot be read.
        """
        shard, place = divmod(clip, self._spec.clips_per_shard)
        wanted = np.arange(steps.start, steps.stop) if isinstance(steps, slice) else steps
        result = np.empty((len(wanted), *self._spec.shape[2:]), self._dtype) if out is None else out
        if not len(wanted):
            return result
        file = os.open(f"{self._root}/{self._spec.file(shard)}", os.O_RDONLY)
        try:
            index = self._index(shard, file)
            if isinstance(steps, slice):
                rows = range(steps.start // self._steps, -(-steps.stop // self._steps))
                for row, values in zip(rows, self._chunks(file, index[place, rows.start : rows.stop]), strict=True):
                    start = row * self._steps
                    first, last = max(steps.start, start), min(steps.stop, start + self._steps)
                    result[first - steps.start : last - steps.start] = values[first - start : last - start]
            else:
                of = wanted // self._steps
                unique = np.unique(of)
                for row, values in zip(unique, self._chunks(file, index[place, unique]), strict=True):
                    here = of == row
                    result[here] = values[wanted[here] - row * self._steps]
        finally:
            os.close(file)
        return result

    def _chunks(self, file: int, index: np.ndarray) -> Iterator[np.ndarray]:
        """The values of some chunks (offset, bytes); those that lie side by side are read at once."""
        places = index.tolist()
        if any(offset == _MISSING for offset, _ in places):
            raise ValueError("a chunk is missing")
        last = 0
        for number in range(1, len(places) + 1):
            if number < len(places) and places[number][0] == sum(places[number - 1]):
                continue
            begin, end = places[last][0], sum(places[number - 1])
            raw = os.pread(file, end - begin, begin)
            for offset, length in places[last:number]:
                whole = offset == begin and length == end - begin
                yield self._decoded(raw if whole else raw[offset - begin : offset - begin + length], length)
            last = number

    def _index(self, shard: int, file: int) -> np.ndarray:
        with self._lock:
            found = self._indices.get(shard)
        if found is not None:
            return found
        count = self._spec.clips_per_shard * self._rows
        size, need = os.fstat(file).st_size, 16 * count + 4
        raw = os.pread(file, need, max(size - need, 0))
        if len(raw) != need or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("the index of the shard does not match its checksum")
        found = np.frombuffer(raw[:-4], "<u8").reshape(self._spec.clips_per_shard, self._rows, 2)
        with self._lock:
            self._indices[shard] = found
            if len(self._indices) > _KEPT:
                self._indices.popitem(last=False)
        return found

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
