"""The contenders of `python -m launch.bench loader --latency_ms=MS`, which read the same files from a bucket.

The object store is at AWS_ENDPOINT_URL_S3 (see `launch.bench.object_store`). The number of clips in work is that of requests in
flight, TENSORSTORE_S3_REQUEST_CONCURRENCY, plus a batch.
"""

import dataclasses
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from launch.bench.contender import Contender, our_batches, unpickled


def open_bucket(
    name: str, root: Path, windows: np.ndarray, shape: tuple[int, ...], frames: int, batch: int, hosts: int
) -> Contender:
    """Our loader on a dataset in the bucket, or clips that are one request each: "array_record", "zstd" or "npy".

    The bucket has the name of the contender, so the store counts the requests of each.
    """
    import grain

    from data_pipelines.wsv.folder import Folder

    bucket, reads = name.replace("_", "-"), int(os.environ["TENSORSTORE_S3_REQUEST_CONCURRENCY"])
    counts = f"{os.environ['AWS_ENDPOINT_URL_S3']}/{bucket}?counts"

    def counted(key: str) -> int:
        with urllib.request.urlopen(counts) as answer:
            return json.load(answer)[key]

    number = {"read": lambda: counted("bytes"), "requests": lambda: counted("requests")}
    if name not in ("array_record", "zstd", "npy"):
        threads = -(-reads // batch) + 1
        found = our_batches(f"s3://{bucket}/{name}", frames, batch, threads, hosts)
        return dataclasses.replace(found, path=root / name, ahead=threads + 2, **number)
    kind = {"array_record": _record_there, "zstd": _zstd_there, "npy": _npy_there}[name]
    path, episode = kind(root, Folder(f"s3://{bucket}").store, shape)

    def clip(window: np.ndarray) -> np.ndarray:
        number, first = window.tolist()
        return episode(number)[first : first + frames].copy()  # a view would keep its whole episode

    work = reads + batch
    clips = grain.MapDataset.source(windows).repeat().map(clip)  # type: ignore[arg-type]
    batches = iter(clips.to_iter_dataset(grain.ReadOptions(work, work)).batch(batch))
    return Contender(batches, path, ahead=-(-2 * work // batch) + 1, **number)


Episodes = tuple[Path, Callable[[int], np.ndarray]]


def _record_there(root: Path, store: Any, shape: tuple[int, ...]) -> Episodes:
    """The best case of ArrayRecord, which cannot read buckets: a record is one request, and its place is known.

    The bytes of an average record come from the bucket; array_record then decodes the record from the page cache of the same
    file, where reading costs almost nothing.
    """
    import grain

    path = root / "clips.array_record"
    source: Any = grain.sources.ArrayRecordDataSource(str(path))
    each = path.stat().st_size // len(source)

    def episode(number: int) -> np.ndarray:
        store.read(path.name, byte_range=slice(number * each, (number + 1) * each)).result()
        return unpickled(source[number], shape)

    return path, episode


def _zstd_there(root: Path, store: Any, shape: tuple[int, ...]) -> Episodes:
    """The bound of that layout: the same bytes arrive, and zstd alone is decoded, without ArrayRecord and pickle."""
    import zstandard

    path, files = root / "clips.array_record", sorted((root / "npy").iterdir())
    each, size = path.stat().st_size // len(files), int(np.prod(shape))
    packed = [zstandard.ZstdCompressor(3).compress(np.load(file).tobytes()) for file in files]

    def episode(number: int) -> np.ndarray:
        store.read(path.name, byte_range=slice(number * each, (number + 1) * each)).result()
        data = zstandard.ZstdDecompressor().decompress(packed[number], max_output_size=size)
        return np.frombuffer(data, np.uint8).reshape(shape)

    return path, episode


def _npy_there(root: Path, store: Any, shape: tuple[int, ...]) -> Episodes:
    """The array of a whole episode, not compressed."""
    names, size = [f"npy/{file.name}" for file in sorted((root / "npy").iterdir())], int(np.prod(shape))

    def episode(number: int) -> np.ndarray:
        data = store.read(names[number]).result().value  # np.load parses the header by ast: not thread-safe in 3.11
        return np.frombuffer(data, np.uint8, offset=len(data) - size).reshape(shape)

    return root / "npy", episode
