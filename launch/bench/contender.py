"""The contenders of `python -m launch.bench loader` that read files of this machine.

Every contender reads the same endless sequence of clips and yields them as uint8 [B n H W 3]. Ours and ArrayRecord use THREADS
of Grain (0: none), and sequential decoding as many of its own; ours is the first of HOSTS that load a batch together. Those
that read a bucket are in `launch.bench.bucket`; `launch.bench.process` runs either kind.
"""

import dataclasses
import functools
import io
import itertools
import mmap
import os
import pickle
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

AHEAD = 4
"""Batches that are not counted at the start of a turn, because threads prefetched them between turns."""
STAGES = ("bridge", "world")
"""Contenders that load the batches of a stage of the quickstart."""
_LEAST_BUSY = 0.1
"""Share of a core below which threads count as idle."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """A contender and its counters."""

    batches: Iterator[Sequence]
    path: Path
    """Files that it reads."""
    read: Callable[[], int]
    """Total bytes read from storage."""
    forget: Callable[[], object] = lambda: None
    """Releases mapped pages, so that the system can evict them."""
    requests: Callable[[], int] = lambda: 0
    """Total requests to a bucket."""
    ahead: int = 0
    """Maximum number of batches prefetched between turns; they are not counted."""


class Counter:
    """A count of bytes read."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self) -> int:
        return self.bytes


def open_local(name: str, root: Path, frames: int, batch: int, threads: int = 0, hosts: int = 1) -> Contender:
    """The contender of a name: its kind, and for ours the dataset: "loader rgb", "read jpeg", "array_record", ..."""
    kind, _, dataset = name.partition(" ")
    if kind == "sequential" and dataset == "originals":
        return _sequential(root, batch, frames, _originals(root), threads)
    windows = np.load(root / f"windows_{frames}.npy")
    endless = map(tuple, itertools.cycle(windows.tolist()))
    shape = np.load(root / "npy" / "00000.npy", mmap_mode="r").shape
    if kind in ("loader", "aligned"):
        return our_batches(root / dataset, frames, batch, threads, hosts, kind == "aligned")
    if kind in STAGES:
        return _stage_batches(root / dataset, kind, frames, batch, threads, hosts)
    if kind == "array_record":
        return _array_record(root / "clips.array_record", windows, shape, frames, batch, threads)
    if kind == "sequential":
        return _sequential(root / "clips.tar", batch, frames, _members(root / "clips.tar"), threads)
    opener, file = {
        "read": (_read, dataset),
        "zstd": (_zstd, dataset),
        "tar": (_tar, "clips.tar"),
        "npy": (_npy, "npy"),
        "memmap": (functools.partial(_memmap, shape), "frames.raw"),
    }[kind]
    clips, count, forget = opener(root / file, endless, frames)
    stack: Any = list if kind == "zstd" else np.stack
    return Contender(_batched(clips, batch, stack), root / file, count, forget)


def _batched(clips: Iterator, batch: int, stack: Callable[[list], Sequence]) -> Iterator[Sequence]:
    while True:
        yield stack(list(itertools.islice(clips, batch)))


Opened = tuple[Iterator, Callable[[], int], Callable[[], object]]
"""(clips, bytes read, release of pages)."""
Windows = Iterator[tuple[int, int]]


def _system_bytes() -> int:
    """Bytes that this process has read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def our_batches(path: Path | str, frames: int, batch: int, threads: int, hosts: int = 1, aligned: bool = False) -> Contender:
    """Our loader on a dataset of rgb, anywhere."""
    from launch.bench.files import our_loader

    batches = our_loader(path, frames, batch, threads, hosts, aligned)
    return Contender((found["channels"]["rgb"] for found in batches), Path(path), _system_bytes, ahead=AHEAD if threads else 0)


def _stage_batches(path: Path, stage: str, frames: int, batch: int, threads: int, hosts: int) -> Contender:
    """Our loader with the transforms of a stage: the first array of each batch stands for it."""
    from launch.bench.files import stage_loader

    batches = stage_loader(path, stage, frames, batch, threads, hosts)
    first = (found["channels"]["rgb"] if stage == "bridge" else found["tokens"] for found in batches)
    return Contender(first, path, _system_bytes, ahead=AHEAD if threads else 0)


def _read(path: Path, windows: Windows, frames: int) -> Opened:
    from data_pipelines.wsv import Dataset

    dataset = Dataset(path)
    clips = (dataset.read(clip, ["rgb"], slice(first, first + frames))["rgb"] for clip, first in windows)
    return clips, _system_bytes, lambda: None


def _zstd(path: Path, windows: Windows, frames: int) -> Opened:
    """Only the decoding, from memory, of the chunks that the clips touch: lists of [c H W 3]."""
    import zstandard

    from data_pipelines.wsv import Dataset, manifest

    dataset = Dataset(path)
    spec = manifest.arrays(dataset.layout)["channels/rgb"]
    steps, pieces = spec.steps_per_chunk, -(-spec.shape[1] // spec.steps_per_chunk)
    shape = (steps, *spec.shape[2:])
    size = int(np.prod(shape))
    shards = [(path / spec.file(shard)).read_bytes() for shard in range(dataset.layout.shards)]
    # a shard ends with (offset, length) of each chunk and a checksum of 4 bytes, as each chunk does
    count = spec.clips_per_shard * pieces
    tables = [np.frombuffer(data[-16 * count - 4 : -4], "<u8").reshape(-1, pieces, 2) for data in shards]
    decode = zstandard.ZstdDecompressor().decompress

    def clip(number: int, first: int) -> list[np.ndarray]:
        shard, row = divmod(number, spec.clips_per_shard)
        data, found = memoryview(shards[shard]), tables[shard][row, first // steps : (first + frames - 1) // steps + 1].tolist()
        parts = [decode(data[offset : offset + length - 4], max_output_size=size) for offset, length in found]
        return [np.frombuffer(part, np.uint8).reshape(shape) for part in parts]

    return itertools.starmap(clip, windows), Counter(), lambda: None


def _array_record(path: Path, windows: np.ndarray, shape: tuple[int, ...], frames: int, batch: int, threads: int) -> Contender:
    """Jasmine's way: unpickle the record of a whole episode and take a slice."""
    import grain

    source: Any = grain.sources.ArrayRecordDataSource(str(path))
    each, count = path.stat().st_size // len(source), Counter()

    def clip(window: np.ndarray) -> np.ndarray:
        number, first = window.tolist()
        count.bytes += each
        return unpickled(source[number], shape)[first : first + frames]

    options = grain.ReadOptions(threads, max(2 * threads, batch) if threads else 0)
    clips = grain.MapDataset.source(windows).repeat().map(clip)  # type: ignore[arg-type]
    return Contender(iter(clips.to_iter_dataset(options).batch(batch)), path, count, ahead=AHEAD if threads else 0)


def unpickled(record: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The frames of an episode in Jasmine's format."""
    found = pickle.loads(record)
    return np.frombuffer(found["raw_video"], np.uint8).reshape(found["sequence_length"], *shape[1:])


def _tar(path: Path, windows: Windows, frames: int) -> Opened:
    """WebDataset with PyAV: read a whole .mp4 and decode it up to the end of the clip."""
    import av

    tar, count = tarfile.open(path), Counter()  # noqa: SIM115 (as long as the process)
    members = tar.getmembers()

    def clip(number: int, first: int) -> np.ndarray:
        data = _member(tar, members[number])
        count.bytes += len(data)
        with av.open(io.BytesIO(data), "r") as film:
            decoded = itertools.islice(film.decode(video=0), first, first + frames)
            return np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])

    return itertools.starmap(clip, windows), count, lambda: None


def _npy(folder: Path, windows: Windows, frames: int) -> Opened:
    """Plain PyTorch datasets: read the array of a whole episode and take a slice."""
    files, count = sorted(folder.iterdir()), Counter()
    sizes = [file.stat().st_size for file in files]

    def clip(number: int, first: int) -> np.ndarray:
        count.bytes += sizes[number]
        return np.load(files[number])[first : first + frames]

    return itertools.starmap(clip, windows), count, lambda: None


def _memmap(shape: tuple[int, ...], path: Path, windows: Windows, frames: int) -> Opened:
    """The floor: copy the bytes of the clip from the page cache."""
    mapped, count = np.memmap(path, np.uint8, "r").reshape(-1, *shape), Counter()

    def clip(number: int, first: int) -> np.ndarray:
        found = mapped[number, first : first + frames]
        count.bytes += found.nbytes
        return found

    base: Any = mapped._mmap  # type: ignore[attr-defined]
    return itertools.starmap(clip, windows), count, lambda: base.madvise(mmap.MADV_DONTNEED)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _members(path: Path) -> Iterator[bytes]:
    with tarfile.open(path) as tar:
        for member in itertools.cycle(tar.getmembers()):
            yield _member(tar, member)


def _originals(folder: Path) -> Iterator[bytes]:
    return (file.read_bytes() for file in itertools.cycle(sorted(folder.glob("*.mp4"))))


def _sequential(path: Path, batch: int, frames: int, films: Iterator[bytes], threads: int) -> Contender:
    """PyAV, frame after frame, converted to RGB: lists of clips, each a list of pictures.

    Decodes THREADS pictures at once; with 0, PyAV's default.
    """
    import av

    count = Counter()

    def pictures() -> Iterator[np.ndarray]:
        for data in films:
            with av.open(io.BytesIO(data), "r") as film:
                if threads:
                    film.streams.video[0].thread_type = "AUTO"
                    film.streams.video[0].thread_count = threads
                for frame in film.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")
            count.bytes += len(data)

    found = pictures()
    clips = iter(lambda: list(itertools.islice(found, frames)), None)
    return Contender(_batched(clips, batch, list), path, count)


def turn(contender: Contender, seconds: float, cold: bool) -> dict[str, Any]:
    """Time whole batches for at least `seconds`, or one batch after evicting the files (`cold`)."""
    for _ in range(contender.ahead):
        next(contender.batches)
    if cold:
        contender.forget()
    forgot = cold and drop(contender.path)
    requests, read = contender.requests(), contender.read()
    clips, cpu, begin = 0, time.process_time(), time.perf_counter()
    while not clips or (not cold and time.perf_counter() - begin < seconds):
        clips += len(next(contender.batches))
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = {"clips_s": clips / wall, "cpu_ms": 1e3 * cpu / clips, "read": (contender.read() - read) / clips}
    found["requests"] = (contender.requests() - requests) / clips
    if contender.ahead:
        _rest()
    return {**found, "rss": resident(), "load": os.getloadavg()[0], "forgot": forgot, "ahead": contender.ahead}


def _rest() -> None:
    """Waits until the threads have prefetched all they may, so that the next contender has the processor."""
    while True:
        before, step = time.process_time(), 0.1
        time.sleep(step)
        if time.process_time() - before < _LEAST_BUSY * step:
            return


def resident() -> int:
    """Resident bytes of this process, shared ones included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def files(path: Path) -> list[Path]:
    """A file, or all files below a folder."""
    return [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())


def warm(root: Path) -> None:
    """Reads the files into the page cache through a small buffer: freeing large ones would change malloc's thresholds."""
    buffer = bytearray(2**16)
    for path in files(root):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(root: Path) -> bool:
    """Asks the system to evict the files; True if the end of the largest file was evicted."""
    paths = files(root)
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    largest = max(paths, key=lambda path: path.stat().st_size)
    handle = os.open(largest, os.O_RDONLY)
    try:
        os.preadv(handle, [bytearray(1)], largest.stat().st_size - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
