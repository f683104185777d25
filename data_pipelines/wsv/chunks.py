"""Reads of array chunks without TensorStore's array driver, whose generality costs time with small pictures.

A shard file of zarr3 is chunks in any order and an index at its end: for each inner chunk (offset, bytes) as little-endian
uint64, in C order of the grid, 2^64 - 1 twice where it is missing, and the crc32c of all that. A chunk is its values,
compressed with zstd unless the layout says otherwise, and a crc32c. Indices are cached: a read of a bucket is one request.

A compressed chunk is checked at every read. One that is not compressed is read whole and checked at the first read of a
process; later reads take only the requested steps, straight into the output.
"""

import dataclasses
import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c
import numpy as np
import zstandard

from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.manifest import ArraySpec

_INDEX_CACHE_BYTES = 2**24
_MISSING = 2**64 - 1
_MAX_CHUNKS = 512
"""Chunks and checksums per vectored read; Linux takes 1024 buffers."""
_MAX_CUTS = 4096
"""Divisions of windows into chunks that are cached."""
_CHECKSUM = memoryview(bytearray(4))
"""Buffer for checksums between chunks, which are not used."""


@dataclasses.dataclass(frozen=True)
class Index:
    """The index of a shard, and what was checked of its chunks."""

    file: str
    places: np.ndarray
    """(offset, bytes) of each chunk [clips rows 2]."""
    follows: list[bytes]
    """1 if a chunk follows its predecessor directly in the file, else 0; [clips] of [rows]."""
    sound: list[bytearray]
    """1 if a chunk that is not compressed has matched its checksum; [clips] of [rows]."""


Steps = slice | np.ndarray
"""A slice of stride 1 with both ends, or indices."""
_Piece = tuple[int, Steps, Steps]
"""(row of the chunk, steps in it, steps of the output)."""


class Chunks:
    """One array of a dataset; thread-safe."""

    def __init__(self, folder: Folder, spec: ArraySpec):
        self._folder, self._spec = folder, spec
        self._steps = min(spec.steps_per_chunk, spec.shape[1])
        self._rows = -(-spec.shape[1] // self._steps)
        self._chunk = (self._steps, *spec.shape[2:])
        self._dtype = np.dtype(spec.dtype)
        self._step_bytes = self._dtype.itemsize * int(np.prod(spec.shape[2:]))
        self._direct = folder.local and not spec.compressed and sys.byteorder == "little"
        self._max_indices = max(_INDEX_CACHE_BYTES // (18 * spec.clips_per_shard * self._rows), 16)
        self._indices: OrderedDict[int, Index] = OrderedDict()
        self._cuts: dict[tuple[int, int], tuple[slice, ...]] = {}
        self._lock, self._local = threading.Lock(), threading.local()

    def empty(self, steps: Steps) -> np.ndarray:
        """An uninitialised array for the steps."""
        count = steps.stop - steps.start if isinstance(steps, slice) else len(steps)
        return np.empty((count, *self._spec.shape[2:]), self._dtype)

    def index(self, shard: int) -> Callable[[], Index]:
        """Requests the index of a shard; the returned function waits for it.

        Raises, then or now, ValueError for a damaged index, OSError for one that cannot be read.
        """
        found = self._indices.get(shard)
        if found is not None:
            return lambda: found
        file, need = self._spec.file(shard), 16 * self._spec.clips_per_shard * self._rows + 4
        (later,) = self._folder.fetch(file, [(-need, need)])

        def wait() -> Index:
            raw = later()
            if len(raw) != need or google_crc32c.value(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
                raise ValueError("the index of the shard does not match its checksum")
            places = np.frombuffer(raw[:-4], "<u8").reshape(self._spec.clips_per_shard, self._rows, 2)
            follows = np.zeros(places.shape[:2], np.uint8)
            follows[:, 1:] = places[:, 1:, 0] == places[:, :-1].sum(2, dtype=np.uint64)
            index = Index(file, places, [row.tobytes() for row in follows], [bytearray(self._rows) for _ in places])
            with self._lock:
                self._indices[shard] = index
                if len(self._indices) > self._max_indices:
                    self._indices.popitem(last=False)
            return index

        return wait

    def read(self, index: Index, clip: int, steps: Steps, out: np.ndarray) -> Callable[[], None]:
        """Reads a clip at some steps into `out` [n ...]; the returned function must be called, and waits for a bucket's answer.

        `index` is that of the clip's shard. Raises, then or now, as `index` does.
        """
        place = clip % self._spec.clips_per_shard
        if self._direct and isinstance(steps, slice) and out.flags.c_contiguous and out.dtype == self._dtype:
            self._read_directly(index, place, steps, out)
            return _done
        pieces = list(self._pieces(steps))
        rows = [row for row, _, _ in pieces]
        later = self._fetch(index.file, index.places[place, rows].tolist())

        def wait() -> None:
            for (_, inside, where), raw in zip(pieces, later(), strict=True):
                whole = isinstance(inside, slice) and inside == slice(0, self._steps) and out.flags.c_contiguous
                if whole and out.dtype == self._dtype and sys.byteorder == "little":
                    self._decode(raw, out[where])
                else:
                    buffer = self._buffer()
                    self._decode(raw, buffer)
                    out[where] = buffer[inside]

        return wait

    def ask(self, index: Index, clip: int, steps: Steps) -> None:
        """Sends the request for what `read` will read. Raises as it does."""
        rows = [row for row, _, _ in self._pieces(steps)]
        self._fetch(index.file, index.places[clip % self._spec.clips_per_shard, rows].tolist())

    def first_steps(self, shard: int, count: int) -> np.ndarray:
        """The values [count ...] of the first step of the first clips of a shard. Raises as `index` does."""
        index = self.index(shard)()
        found, buffer = self.empty(slice(0, count)), self._buffer()
        for number, raw in enumerate(self._fetch(index.file, index.places[:count, 0].tolist())()):
            self._decode(raw, buffer)
            found[number] = buffer[0]
        return found

    def _pieces(self, steps: Steps) -> Iterator[_Piece]:
        each = self._steps
        if isinstance(steps, slice):
            begin, end = steps.start, steps.stop
            for row in range(begin // each, -(-end // each) if end > begin else 0):
                start = row * each
                first, last = max(begin, start), min(end, start + each)
                yield row, slice(first - start, last - start), slice(first - begin, last - begin)
            return
        of = steps // each
        for row in np.unique(of).tolist():
            yield row, steps[of == row] - row * each, np.flatnonzero(of == row)

    def _read_directly(self, index: Index, place: int, steps: slice, out: np.ndarray) -> None:
        """Reads steps of uncompressed chunks straight into `out`; chunks that are not checked yet are read whole."""
        begin, end = steps.start, steps.stop
        if begin >= end:
            return
        first, inside = divmod(begin, self._steps)
        buffer, cuts = out.data.cast("B"), self._cut(inside, end - begin)
        end_row = first + len(cuts)
        sound = index.sound[place]
        if len(cuts) <= _MAX_CHUNKS and all(sound[first:end_row]) and all(index.follows[place][first + 1 : end_row]):
            buffers = [buffer[cuts[0]]]
            for cut in cuts[1:]:
                buffers += _CHECKSUM, buffer[cut]
            at = int(index.places[place, first, 0]) + inside * self._step_bytes
            self._folder.read_into(index.file, at, buffers, len(buffer) + _CHECKSUM.nbytes * (len(cuts) - 1))
            return
        for row, cut in enumerate(cuts, first):
            skip = inside * self._step_bytes if row == first else 0
            if sound[row]:
                self._folder.read_into(index.file, int(index.places[place, row, 0]) + skip, [buffer[cut]], cut.stop - cut.start)
            else:
                self._read_checked(index, place, row, buffer[cut], skip)

    def _cut(self, inside: int, count: int) -> tuple[slice, ...]:
        """Byte ranges, in a buffer of `count` steps, of the chunks that it spans; it begins at step `inside` of the first."""
        found = self._cuts.get((inside, count))
        if found is None:
            ends = [0, *range(self._steps - inside, count, self._steps), count]
            bytes_of = [self._step_bytes * end for end in ends]
            found = tuple(slice(*pair) for pair in itertools.pairwise(bytes_of))
            if len(self._cuts) < _MAX_CUTS:
                self._cuts[inside, count] = found
        return found

    def _read_checked(self, index: Index, place: int, row: int, out: memoryview, skip: int) -> None:
        """Reads the bytes of a chunk from `skip` on into `out`, once the whole chunk has matched its checksum."""
        offset, length = index.places[place, row].tolist()
        size = self._step_bytes * self._steps
        if offset == _MISSING or length != size + _CHECKSUM.nbytes:
            raise ValueError("a chunk is missing" if offset == _MISSING else f"a chunk has {length} bytes, needed {size + 4}")
        whole = out if out.nbytes == size else self._buffer().data.cast("B")
        checksum = bytearray(4)
        self._folder.read_into(index.file, offset, [whole, memoryview(checksum)], length)
        if google_crc32c.value(np.frombuffer(whole, np.uint8)) != int.from_bytes(checksum, "little"):
            raise ValueError("a chunk does not match its checksum")
        if whole is not out:
            out[:] = whole[skip : skip + out.nbytes]
        index.sound[place][row] = True

    def _fetch(self, file: str, places: list[list[int]]) -> Callable[[], list[bytes]]:
        """Requests chunks (offset, bytes) of a file; the returned function waits for their bytes."""
        if any(offset == _MISSING for offset, _ in places):
            raise ValueError("a chunk is missing")
        later = self._folder.fetch(file, places)

        def wait() -> list[bytes]:
            found = [part() for part in later]
            for raw, (_, length) in zip(found, places, strict=True):
                if len(raw) != length:
                    raise ValueError(f"a chunk has {len(raw)} bytes, its index says {length}")
            return found

        return wait

    def _buffer(self) -> np.ndarray:
        """This thread's buffer for one chunk: fresh memory would cost time."""
        found = getattr(self._local, "buffer", None)
        if found is None:
            found = self._local.buffer = np.empty(self._chunk, self._dtype.newbyteorder("<"))
        return found

    def _decode(self, raw: bytes, out: np.ndarray) -> None:
        """Decodes the little-endian values of a chunk into `out`. Raises ValueError for a damaged chunk."""
        data: Any = np.frombuffer(raw, np.uint8)[:-4]
        size = out.nbytes
        if google_crc32c.value(data) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("a chunk does not match its checksum")
        buffer = out.reshape(-1).view(np.uint8)
        if not self._spec.compressed:
            if len(data) != size:
                raise ValueError(f"a chunk has {len(data)} bytes, needed {size}")
            buffer[:] = data
            return
        decoder = getattr(self._local, "decoder", None)
        if decoder is None:
            decoder = self._local.decoder = zstandard.ZstdDecompressor()
        try:
            held = zstandard.frame_content_size(data)
            if held != size:
                raise ValueError(f"a chunk has {held} bytes, needed {size}")
            with decoder.stream_reader(data) as stream:
                if stream.readinto(buffer) != size:
                    raise ValueError("a chunk ends early")
        except zstandard.ZstdError as error:
            raise ValueError(f"a chunk cannot be decoded ({error})") from error


def _done() -> None:
    """Does nothing: the read is complete."""
