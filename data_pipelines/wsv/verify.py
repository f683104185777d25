"""Check of every byte of a WSV dataset, and of the clips that cannot be read because of damage."""

import functools
import hashlib
import itertools
import json
import os
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import Any

import numpy as np
import tensorstore as ts
from tqdm import tqdm

from data_pipelines.wsv import collection
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import shard as shards
from data_pipelines.wsv.folder import Folder, context

_THREADS = max(8, min(32, os.cpu_count() or 1))
_PIECE = 4 * 2**20
"""Bytes that a thread reads at a time; a damaged file is read whole, by one thread at a time."""
_BATCH = 1024
"""Files that are queued at a time."""


def verify(path: str | PathLike, progress: bool = True) -> list[str]:
    """Reads every byte; one line per problem: missing, truncated, changed, extra, miscounted. Empty: no damage.

    A line names the file, the problem, the dataset, the channel or field, the shard, and the clips that cannot be read. Every
    dataset of a collection is read.
    Raises FileNotFoundError when there is no dataset at all, NewerSchema (a ValueError) for one of a later version.
    """
    folder = Folder(path)
    if folder.read(collection.COLLECTION) is None:
        return _dataset(folder, progress)
    problems = []
    try:
        clips = collection.load(folder) or {}
    except ValueError as error:
        problems, clips = [str(error)], dict.fromkeys(collection.below(folder))
    known = {collection.COLLECTION, *clips}
    for part in sorted({key.split("/")[0] for key in folder.list()} - known):
        problems.append(f"{folder.name(part)}: extra, not of the collection")
    for part, count in clips.items():
        below = Folder(folder.name(part))
        try:
            problems += (found := _dataset(below, progress))
        except FileNotFoundError as error:
            problems.append(str(error))
            continue
        if not found and count not in (None, held := records.load(below)["counts"]["clips"]):
            problems.append(f"{folder.name(collection.COLLECTION)}: {part} has {held} clips, the collection says {count}")
    return problems


def _dataset(folder: Folder, progress: bool) -> list[str]:
    try:
        manifest = records.load(folder)
    except records.NewerSchema:
        raise
    except ValueError as error:
        return [str(error)]
    layout = records.layout_of(manifest)
    problems = [f"{folder.name(key)}: extra, not a file of the dataset" for key in extra(folder, manifest)]
    problems += [f"{folder.name(key)}: {problem}" for key, problem in damaged(folder, manifest, progress).items()]
    if manifest["counts"]["clips"] != layout.clips:
        problems.append(f"{folder.path}: the shards count {manifest['counts']['clips']} clips, the layout {layout.clips}")
    return problems


def extra(folder: Folder, manifest: dict[str, Any]) -> list[str]:
    """Files that do not belong to the dataset."""
    return sorted(folder.list() - set(manifest["files"]) - {records.MANIFEST})


def damaged(folder: Folder, manifest: dict[str, Any], progress: bool) -> dict[str, str]:
    """Reads every file of a dataset; file -> problem, for damaged files."""
    check, found = _Check(folder, manifest), {}
    keys = iter(sorted(manifest["files"]))
    bar = tqdm(total=len(manifest["files"]), desc=f"verify {manifest['name']}", unit="file", disable=not progress)
    with bar, ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(itertools.islice(keys, _BATCH)):
            for key, problem in zip(batch, pool.map(check.problem, batch), strict=True):
                bar.update()
                if problem:
                    found[key] = problem
    return found


def places(manifest: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """File -> (array path, "bytes", "text" or "record"; shard), for every file of a shard."""
    layout, found = records.layout_of(manifest), {}
    specs = records.arrays(layout, manifest["schema_version"])
    for shard in range(layout.shards):
        found |= {spec.file(shard): (path, shard) for path, spec in specs.items()}
        found |= {records.text_file(shard): ("text", shard), records.record_file(shard): ("record", shard)}
        if layout.encoded:
            found[records.bytes_file(layout, shard)] = ("bytes", shard)
    return found


class _Check:
    """Checks files of one dataset; thread-safe."""

    def __init__(self, folder: Folder, manifest: dict[str, Any]):
        self.folder, self.manifest, self.layout = folder, manifest, records.layout_of(manifest)
        self.specs = records.arrays(self.layout, manifest["schema_version"])
        self._lines = {records.text_file(shard): len(self.layout.span(shard)) for shard in range(self.layout.shards)}
        self._metadata = {spec.metadata_file: path for path, spec in self.specs.items()}
        self._lock = threading.Lock()

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        return places(self.manifest)

    def problem(self, key: str) -> str:
        """The problem of a file; empty if it is as written."""
        wanted = self.manifest["files"][key]
        found = self._digest(key, wanted["bytes"])
        if found and found[0] == wanted["sha256"]:
            needed = self._lines.get(key, found[1])
            return "" if found[1] == needed else f"{found[1]} lines for {needed} clips"
        with self._lock:  # one damaged file in memory at a time
            try:
                data = self.folder.read(key)
            except OSError as error:
                return f"{str(error).removeprefix(self.folder.name(key) + ': ')}; {self._loss(key, None)}"
            if data is None:
                what = "missing"
            elif len(data) != wanted["bytes"]:
                what = f"{'truncated' if len(data) < wanted['bytes'] else 'too long'}, {len(data)} bytes, "
                what += f"needed {wanted['bytes']}"
            else:
                what = "changed, its checksum does not match"
            return f"{what}; {self._loss(key, data)}"

    def _digest(self, key: str, size: int) -> tuple[str, int] | None:
        """The sha256 of a file of `size` bytes and its number of lines; None for a file that is shorter or cannot be read."""
        digest, lines = hashlib.sha256(), 0
        for start in range(0, max(size, 1), _PIECE):
            stop = start + _PIECE if start + _PIECE < size else None  # the last read reveals a file that is too long
            try:
                found = self.folder.store.read(key, byte_range=slice(start, stop)).result()
            except (ValueError, OSError):
                return None
            if found.state != "value":
                return None
            digest.update(found.value)
            lines += found.value.count(b"\n") if key in self._lines else 0
        return digest.hexdigest(), lines

    def _loss(self, key: str, data: bytes | None) -> str:
        """The clips that cannot be read because of a damaged file, in words."""
        name = f"dataset {self.manifest['name']}"
        if key in self._metadata:
            return f"{name}, {_field(self._metadata[key])}: no clip of it can be read"
        for latents, row in self.manifest.get("latents", {}).items():
            if key == row["file"]:
                return f"{name}, latents {latents}: none of them can be read; write them again with overwrite"
        if key not in self._places:
            return f"{name}: no clip needs it"
        path, shard = self._places[key]
        span = self.layout.span(shard)
        if path == "record":
            return f"{name}, shard {shard}: no clip needs it"
        if path == "text":
            broken = _broken(data or b"", span)
            where = f", {_clips(broken)} in a line that is damaged" if data and broken else ""
            return f"{name}, captions and events, shard {shard}: {_clips(span)} cannot be read{where}"
        lost = (
            list(span) if data is None else self._pictures(shard, data) if path == "bytes" else self._array(path, shard, data)
        )
        what = f"{_clips(lost)} cannot be read" if lost else "every clip can still be read"
        return f"{name}, {_field(path)}, shard {shard}: {what}"

    def _array(self, path: str, shard: int, data: bytes) -> list[int]:
        """The clips of an array that cannot be read, by the checksums of their chunks and of the index."""
        return [clip for clip, values in self._read(path, shard, data).items() if values is None]

    def _read(self, path: str, shard: int, data: bytes) -> dict[int, np.ndarray | None]:
        spec = self.specs[path]
        memory = {**shards.open_spec(spec.metadata()), "kvstore": {"driver": "memory"}}
        array: Any = ts.open(memory, context=context(), create=True).result()
        array.kvstore[spec.file(shard).removeprefix(path + "/")] = data
        found: dict[int, np.ndarray | None] = {}
        for clip in self.layout.span(shard):
            try:
                values = array[clip].read().result()
                found[clip] = values if path == records.index_path(self.layout) else np.zeros(0)  # or they all stay in memory
            except (ValueError, OSError, KeyError):
                found[clip] = None
        return found

    def _pictures(self, shard: int, data: bytes) -> list[int]:
        """The clips with a picture that does not match its checksum in the index; all clips without an index."""
        path = records.index_path(self.layout)
        try:
            index = self.folder.read(self.specs[path].file(shard)) or b""
        except OSError:
            index = b""
        view = memoryview(data)
        lost = []
        for clip, rows in self._read(path, shard, index).items():
            runs = [] if rows is None else [[int(value) for value in row] for row in rows]
            if rows is None or any(zlib.crc32(view[start : start + size]) != crc for start, size, crc in runs if size):
                lost.append(clip)
        return lost


def _field(path: str) -> str:
    """The name of an array in words."""
    if path == "bytes" or path.startswith("channels/rgb_"):
        return "channel rgb"
    return path.replace("channels/", "channel ") if path.startswith("channels/") else f"field {path}"


def _broken(data: bytes, span: Sequence[int]) -> list[int]:
    """The clips whose line is not valid; a changed letter of a caption does not show."""

    def sound(line: bytes) -> bool:
        try:
            return records.dumps(json.loads(line)) == line
        except (ValueError, RecursionError):
            return False

    lines = [*data.splitlines(), *[b""] * len(span)]
    return [clip for clip, line in zip(span, lines, strict=False) if not sound(line)]


def _clips(clips: Sequence[int]) -> str:
    """Clip numbers in words: "clips 2..5, 7"."""
    runs: list[list[int]] = []
    for clip in clips:
        if runs and clip == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], clip]
        else:
            runs.append([clip, clip])
    parts = [str(first) if first == last else f"{first}..{last}" for first, last in runs]
    return f"clip{'s' * (len(clips) > 1)} {', '.join(parts)}"
