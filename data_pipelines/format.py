"""WSV on disk, version 1: write a dataset shard by shard, read it clip by clip, verify it. See `manifest` for the files.

A shard is complete when its record stands in shards/, a dataset when manifest.json does; each file appears at once, so a
build that is killed anywhere loses no more than the shard it was at. Reading is by threads only: TensorStore's own threads
do not survive a fork.
"""

import io
import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import tensorstore as ts
from PIL import Image
from tqdm import tqdm

from data_pipelines import manifest as records
from data_pipelines.folder import Folder, context
from data_pipelines.manifest import SCHEMA_VERSION, ArraySpec, Layout, Moments
from wsm_jax.snapshot import FIELDS, WSV, Camera, Waves, channel, restore, store

__all__ = ["SCHEMA_VERSION", "Dataset", "Layout", "Writer", "create", "verify"]

JPEG = {"quality": 92, "subsampling": 0}
"""How real rgb is encoded: no chroma subsampling, so colours stay on their pixels."""

Frames = slice | Sequence[int] | np.ndarray | None
Index = int | np.integer


def create(path: str | PathLike, layout: Layout, *, name: str, sources: Sequence[dict], build: dict) -> "Writer":
    """Begins a dataset, or resumes the unfinished build that the same arguments began; any number of processes may call it.

    `sources` are dicts with at least "name" and "licence"; `build` holds the arguments that make the data (seed, ...).
    Raises ValueError when a finished dataset, another build or anything else is at `path`, OSError when the disk is full.
    """
    folder = Folder(path)
    wanted = records.head(layout, name, sources, build)
    if folder.read(records.MANIFEST) is not None:
        raise ValueError(f"{folder.path}: a finished dataset is here; write elsewhere, or delete it first")
    if records.load_build(folder) is None:
        if found := sorted(folder.list()):
            raise ValueError(f"{folder.path}: the folder holds other files ({found[0]}, ...); name a new or an empty one")
        folder.write(records.BUILD, records.dumps(wanted, indent=1), new=True)
    begun = records.load_build(folder) or {}
    for key in ("name", "layout", "sources", "build"):
        if begun.get(key) != wanted[key]:
            raise ValueError(
                f"{folder.path}: another build is unfinished here: its {key} is {begun.get(key)}, this one's {wanted[key]}; "
                "resume it with its own arguments, delete it, or write elsewhere"
            )
    present = folder.list()
    for spec in records.arrays(layout).values():
        if spec.metadata_file not in present:
            folder.write(spec.metadata_file, records.dumps(spec.metadata()))
    return Writer(folder, layout)


class Writer:
    """Writes whole shards of one build; made by `create`. Picklable."""

    def __init__(self, folder: Folder, layout: Layout):
        self.folder, self.layout = folder, layout

    def missing(self) -> list[int]:
        """The shards that are not complete yet."""
        done = self.folder.list("shards/")
        return [shard for shard in range(self.layout.shards) if records.record_file(shard) not in done]

    def write(self, shard: int, clips: Sequence[WSV]) -> None:
        """Writes a shard from its clips, in order, whole or not at all.

        Raises ValueError when a clip does not fit the layout or the shard is complete already, OSError when the disk is full.
        """
        span = self.layout.span(shard)
        if len(clips) != len(span):
            raise ValueError(f"{self.folder.path}: shard {shard} holds clips {span}, {len(span)} of them; got {len(clips)}")
        if records.record_file(shard) in self.folder.list("shards/"):
            raise ValueError(f"{self.folder.path}: shard {shard} is complete already; write those that missing() names")
        for index, clip in zip(span, clips, strict=True):
            _check(clip, self.layout, f"{self.folder.path}: clip {index}")
        moments = _moments(self.layout)
        files = _encode(self.layout, shard, clips, moments)
        need = sum(len(data) for data in files.values())
        free = self.folder.free()
        if free is not None and free < need:
            raise self._full(shard, need)
        try:
            for key, data in files.items():
                self.folder.write(key, data)
            record = {
                "shard": shard,
                "clips": len(clips),
                "captions": sum(len(clip.text) for clip in clips),
                "events": sum(len(clip.events) for clip in clips),
                "moments": {key: value.record() for key, value in moments.items()},
                "files": {key: {"bytes": len(data), "sha256": records.sha256(data)} for key, data in files.items()},
            }
            if not self.folder.write(records.record_file(shard), records.dumps(record, indent=1), new=True):
                raise ValueError(f"{self.folder.path}: another process wrote shard {shard} at the same time; give each its own")
        except OSError as error:
            for key in files:
                self.folder.remove(key)
            if error.errno is None:
                raise
            raise self._full(shard, need) from error

    def _full(self, shard: int, need: int) -> OSError:
        rest = need * len(self.missing()) / 2**20
        return self.folder.full(f"shard {shard}", need, f" (all missing shards: about {rest:.1f} MiB)")

    def finish(self) -> dict[str, Any]:
        """Writes manifest.json, once, when every shard is complete; returns it. Raises ValueError naming what is missing."""
        folder, layout = self.folder, self.layout
        if folder.read(records.MANIFEST) is not None:
            raise ValueError(f"{folder.path}: the dataset is finished already")
        if missing := self.missing():
            raise ValueError(f"{folder.path}: {len(missing)} of {layout.shards} shards are missing: {missing[:20]}")
        files: dict[str, dict[str, Any]] = {}
        moments = _moments(layout)
        counts = {"clips": 0, "captions": 0, "events": 0}
        for shard in range(layout.shards):
            record = json.loads(folder.read(records.record_file(shard)) or b"{}")
            files |= record["files"]
            for key in counts:
                counts[key] += record[key]
            for key, value in moments.items():
                value.merge(record["moments"][key])
        if gone := sorted(set(files) - folder.list()):
            raise ValueError(f"{folder.path}: {gone[0]} is gone; delete the record of its shard in shards/ and write it again")
        singles = [records.BUILD, *(spec.metadata_file for spec in records.arrays(layout).values())]
        for key in singles + [records.record_file(shard) for shard in range(layout.shards)]:
            data = folder.read(key) or b""
            files[key] = {"bytes": len(data), "sha256": records.sha256(data)}
        counts |= {"shards": layout.shards, "frames": layout.clips * layout.frames, "ticks": layout.clips * layout.ticks}
        counts |= {"files": len(files), "bytes": sum(value["bytes"] for value in files.values())}
        groups = {"channels": {}, "core": {}}
        for key, value in moments.items():
            group, _, field = key.partition("/")
            groups[group][field] = value.summary()
        body = {**(records.load_build(folder) or {}), "counts": counts, "statistics": groups, "files": files}
        sealed = records.seal(body)
        if not folder.write(records.MANIFEST, sealed, new=True):
            raise ValueError(f"{folder.path}: another process finished the dataset at the same time")
        return json.loads(sealed)


def _moments(layout: Layout) -> dict[str, Moments]:
    keys = {f"channels/{name}": channel(name).components for name in layout.channels}
    return {key: Moments(size) for key, size in (keys | _core_sizes(layout)).items()}


def _core_sizes(layout: Layout) -> dict[str, int]:
    return {f"core/{name}": max(size, 1) for name, size in FIELDS.items()} if layout.ticks else {}


def _check(clip: WSV, layout: Layout, where: str) -> None:
    """Raises ValueError unless the clip fits the layout and is finite."""

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise ValueError(f"{where}: {what}")

    try:
        clip.check()
    except (ValueError, KeyError) as error:
        raise ValueError(f"{where}: {error}") from error
    size = (layout.height, layout.width)
    need(len(clip.frame_time) == layout.frames, f"{len(clip.frame_time)} frames, the layout has {layout.frames}")
    need(set(clip.channels) == set(layout.channels), f"channels {sorted(clip.channels)}, the layout has {layout.channels}")
    values: dict[str, Any] = {f"channel {name}": array for name, array in clip.channels.items()}
    for name, array in clip.channels.items():
        need(tuple(array.shape[1:3]) == size, f"channel {name!r} is {array.shape[1:3]} pixels, the layout has {size}")
    need((clip.camera is not None) == layout.camera, f"camera {'missing' if layout.camera else 'given, the layout has none'}")
    if clip.camera is not None:
        values |= {f"camera {name}": getattr(clip.camera, name) for name in records.CAMERA_FIELDS}
    need((clip.core is not None) == bool(layout.ticks), f"core {'missing' if layout.ticks else 'given, the layout has none'}")
    if clip.core is not None:
        for name, components in FIELDS.items():
            shape = (layout.ticks, layout.waves, *([components] if components else []))
            found = tuple(getattr(clip.core, name).shape)
            need(found == shape, f"core field {name!r} has shape {found}, the layout needs {shape}")
            values[f"core field {name}"] = getattr(clip.core, name)
        values["core_time"] = clip.core_time
    need(layout.captions or not clip.text, "captions given, the layout has none")
    for name, array in (values | {"frame_time": clip.frame_time}).items():
        need(bool(np.isfinite(np.asarray(array)).all()), f"{name} holds a value that is not finite")


def _encode(layout: Layout, shard: int, clips: Sequence[WSV], moments: dict[str, Moments]) -> dict[str, bytes]:
    """The files of a shard, in memory; counts the values into `moments`."""
    files: dict[str, bytes] = {}
    data: dict[str, np.ndarray] = {}
    for name in layout.channels:
        stored = np.stack([store(name, np.asarray(clip.channels[name])) for clip in clips])
        for clip in stored:
            for start in range(0, layout.frames, layout.frames_per_chunk):
                moments[f"channels/{name}"].add(restore(name, clip[start : start + layout.frames_per_chunk]))
        if name == "rgb" and layout.jpeg:
            files[records.jpeg_file(shard)], data[records.JPEG_INDEX] = _encode_jpeg(stored)
        else:
            data[f"channels/{name}"] = stored
    if layout.frames:
        data["frame_time"] = np.stack([np.asarray(clip.frame_time, np.float64) for clip in clips])
    cameras = [clip.camera for clip in clips if clip.camera is not None]
    if cameras:
        data |= {f"camera/{key}": np.stack([np.asarray(getattr(c, key)) for c in cameras]) for key in records.CAMERA_FIELDS}
    cores = [clip.core for clip in clips if clip.core is not None]
    if cores:
        data["core_time"] = np.stack([np.asarray(clip.core_time, np.float64) for clip in clips])
        exists = np.stack([np.asarray(core.presence) for core in cores]) > 0
        for key in FIELDS:
            values = data[f"core/{key}"] = np.stack([np.asarray(getattr(core, key)) for core in cores])
            moments[f"core/{key}"].add(values if key == "presence" else values[exists])
    lines = [records.dumps({"captions": list(clip.text), "events": list(clip.events)}) for clip in clips]
    files[records.text_file(shard)] = b"\n".join(lines) + b"\n"
    for key, spec in records.arrays(layout).items():
        files[spec.file(shard)] = _encode_array(spec, shard, data.pop(key))
    return files


def _encode_array(spec: ArraySpec, shard: int, data: np.ndarray) -> bytes:
    """The shard file of an array, made by TensorStore in memory, so that it is hashed before it is written in one piece."""
    chunks = {**_open_spec(spec, spec.metadata()), "kvstore": {"driver": "memory"}, "store_data_equal_to_fill_value": True}
    array = ts.open(chunks, context=context(), create=True).result()
    first = shard * spec.clips_per_shard
    with ts.Transaction() as transaction:
        array.with_transaction(transaction)[first : first + len(data)].write(data.astype(spec.dtype, copy=False)).result()
    return array.kvstore[spec.file(shard).removeprefix(spec.path + "/")]


def _open_spec(spec: ArraySpec, metadata: dict[str, Any]) -> dict[str, Any]:
    """A missing chunk is an error, never a block of zeros."""
    return {"driver": "zarr3", "metadata": metadata, "fill_missing_data_reads": False}


def _encode_jpeg(stored: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Frames [clip T H W 3] as one run of JPEG files, and [clip T 3] of (offset, length, crc32)."""
    parts: list[bytes] = []
    index = np.zeros((*stored.shape[:2], 3), np.uint64)
    offset = 0
    for place in np.ndindex(*stored.shape[:2]):
        buffer = io.BytesIO()
        Image.fromarray(stored[place]).save(buffer, "JPEG", **JPEG)
        parts.append(buffer.getvalue())
        index[place] = offset, len(parts[-1]), zlib.crc32(parts[-1])
        offset += len(parts[-1])
    return b"".join(parts), index


class Dataset:
    """A finished dataset, for reading; picklable, for threads only.

    Raises FileNotFoundError (no dataset), ValueError (unfinished, damaged, newer schema), both naming path and file.
    """

    def __init__(self, path: str | PathLike):
        self.folder = Folder(path)
        self.manifest: dict[str, Any] = records.load(self.folder)
        self.layout: Layout = records.layout_of(self.manifest)
        self.name: str = self.manifest["name"]
        if gone := sorted(set(self.manifest["files"]) - self.folder.list()):
            raise FileNotFoundError(
                f"{self.folder.name(gone[0])}: missing, and {len(gone) - 1} more files of the dataset; restore from its source"
            )
        self._specs = records.arrays(self.layout)
        self._drop()

    def _drop(self) -> None:
        self._lock = threading.Lock()
        self._handles: dict[str, ts.TensorStore] = {}
        self._lines: OrderedDict[int, list[dict]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_handles", "_lines")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._drop()

    def __len__(self) -> int:
        return self.layout.clips

    def read(self, clip: Index, channels: Sequence[str], frames: Frames = None) -> dict[str, np.ndarray]:
        """Stored integers [T H W C] of some channels at some frames (all of them by default), in the order asked.

        Raises KeyError for a channel that the dataset lacks, IndexError, and ValueError naming a damaged file.
        """
        for name in channels:
            if name not in self.layout.channels:
                raise KeyError(f"{self.folder.path}: no channel {name!r}; it has {', '.join(self.layout.channels) or 'none'}")
        arrays = [f"channels/{name}" for name in channels if not (name == "rgb" and self.layout.jpeg)]
        found = self._read(clip, arrays, frames)
        result: dict[str, np.ndarray] = {}
        for name in channels:
            jpeg = name == "rgb" and self.layout.jpeg
            result[name] = self._read_jpeg(clip, frames) if jpeg else found[f"channels/{name}"]
        return result

    def camera(self, clip: Index, frames: Frames = None) -> Camera | None:
        """The camera at some frames; None when the dataset has none."""
        if not self.layout.camera:
            return None
        found = self._read(clip, [f"camera/{key}" for key in records.CAMERA_FIELDS], frames)
        return Camera(**{key: found[f"camera/{key}"] for key in records.CAMERA_FIELDS})

    def core(self, clip: Index, ticks: Frames = None) -> tuple[Waves, np.ndarray] | None:
        """The waves [K N ...] and their times [K] s; None when the dataset has no core."""
        if not self.layout.ticks:
            return None
        found = self._read(clip, [*(f"core/{key}" for key in FIELDS), "core_time"], ticks)
        return Waves(**{key: found[f"core/{key}"] for key in FIELDS}), found["core_time"]

    def frame_time(self, clip: Index) -> np.ndarray:
        """Times of the frames [T], s."""
        return self._read(clip, ["frame_time"], None)["frame_time"] if self.layout.frames else np.zeros(0)

    def captions(self, clip: Index) -> tuple[str, ...]:
        """What the clip shows, in words; several wordings, or none."""
        return tuple(self._text(clip)["captions"])

    def events(self, clip: Index) -> tuple[dict, ...]:
        """What happens, as {"kind", "time", "instances"}."""
        return tuple(self._text(clip)["events"])

    def clip(self, clip: Index) -> WSV:
        """Everything about a clip, in physical units."""
        channels = {name: restore(name, values) for name, values in self.read(clip, self.layout.channels).items()}
        core = self.core(clip)
        waves, core_time = core if core else (None, None)
        time, text = self.frame_time(clip), self.captions(clip)
        return WSV(channels, time, self.camera(clip), waves, core_time, text, self.events(clip))

    def _shard(self, clip: Index) -> int:
        if not 0 <= clip < len(self):
            raise IndexError(f"{self.folder.path}: clip {clip} is not in 0..{len(self) - 1}")
        return int(clip) // self.layout.clips_per_shard

    def _read(self, clip: Index, paths: Sequence[str], steps: Frames) -> dict[str, np.ndarray]:
        """Rows of several arrays at once; a damaged file is named."""
        shard = self._shard(clip)
        chosen = {path: _steps(steps, self._specs[path].shape[1]) for path in paths}
        with ts.Batch() as batch:
            futures = {path: self._array(path)[int(clip), chosen[path]].read(batch=batch) for path in paths}
        result: dict[str, np.ndarray] = {}
        for path, future in futures.items():
            try:
                result[path] = future.result()
            except (ValueError, OSError, KeyError) as error:
                raise self._damaged(self._specs[path].file(shard), error) from error
        return result

    def _array(self, path: str) -> ts.TensorStore:
        """The handle of an array, opened once, by metadata that match their checksum."""
        with self._lock:
            if path not in self._handles:
                metadata = json.loads(self._checked(self._specs[path].metadata_file))
                kvstore = self.folder.store.spec().to_json()
                kvstore["path"] += path + "/"
                spec = {**_open_spec(self._specs[path], metadata), "kvstore": kvstore}
                self._handles[path] = ts.open(spec, context=context(), open=True, assume_metadata=True, read=True).result()
            return self._handles[path]

    def _checked(self, key: str) -> bytes:
        """A whole small file, if it is the one that was written."""
        data = self.folder.read(key)
        if data is None or records.sha256(data) != self.manifest["files"][key]["sha256"]:
            raise self._damaged(key, "missing" if data is None else "its checksum does not match")
        return data

    def _damaged(self, key: str, why: object) -> ValueError:
        return ValueError(f"{self.folder.name(key)}: damaged or cut short; restore it from its source, or rebuild it ({why})")

    def _text(self, clip: Index) -> dict[str, Any]:
        """The line of a clip in its shard's text; the last shards read are kept."""
        shard = self._shard(clip)
        with self._lock:
            if shard not in self._lines:
                self._lines[shard] = [json.loads(line) for line in self._checked(records.text_file(shard)).splitlines()]
                if len(self._lines) > 64:
                    self._lines.popitem(last=False)
            return self._lines[shard][int(clip) % self.layout.clips_per_shard]

    def _read_jpeg(self, clip: Index, frames: Frames) -> np.ndarray:
        """Decoded rgb [T H W 3]; only the bytes of these frames are read, and each picture is checked before decoding."""
        key = records.jpeg_file(self._shard(clip))
        index = self._read(clip, [records.JPEG_INDEX], frames)[records.JPEG_INDEX]
        result = np.zeros((len(index), self.layout.height, self.layout.width, 3), np.uint8)
        with ts.Batch() as batch:
            ranges = [slice(int(offset), int(offset + length)) for offset, length, _ in index]
            futures = [self.folder.store.read(key, byte_range=where, batch=batch) for where in ranges]
        for row, future in enumerate(futures):
            try:
                data = future.result().value
            except (ValueError, OSError) as error:
                raise self._damaged(key, error) from error
            if zlib.crc32(data) != index[row, 2]:
                raise self._damaged(key, f"picture {row} of clip {clip}: its checksum does not match")
            result[row] = np.asarray(Image.open(io.BytesIO(data)))
        return result


def _steps(steps: Frames, total: int) -> slice | np.ndarray:
    """An index for TensorStore, which does not count negative indices from the end. Raises IndexError."""
    if steps is None:
        return slice(0, total)
    if isinstance(steps, slice):
        first, last, stride = steps.indices(total)
        if stride == 1:
            return slice(first, max(first, last))
        return np.arange(first, last, stride)
    index = np.asarray(steps, np.int64).reshape(-1)
    if index.size and (index.min() < 0 or index.max() >= total):
        raise IndexError(f"frames {index.min()}..{index.max()} asked, the clip has 0..{total - 1}")
    return index


def verify(path: str | PathLike, progress: bool = True) -> list[str]:
    """Reads every byte; one line a problem: missing, cut short, changed, not of the dataset, miscounted. Empty: sound.

    Raises FileNotFoundError when there is no dataset at all.
    """
    folder = Folder(path)
    try:
        manifest = records.load(folder)
    except ValueError as error:
        return [str(error)]
    files, present = manifest["files"], folder.list() - {records.MANIFEST}
    layout = records.layout_of(manifest)
    problems = [f"{folder.name(key)}: not a file of the dataset" for key in sorted(present - set(files))]
    for key in tqdm(sorted(files), desc=f"verify {manifest['name']}", unit="file", disable=not progress):
        data, wanted = folder.read(key), files[key]
        if data is None:
            problems.append(f"{folder.name(key)}: missing")
        elif len(data) != wanted["bytes"]:
            kind = "truncated" if len(data) < wanted["bytes"] else "too long"
            problems.append(f"{folder.name(key)}: {kind}, {len(data)} bytes, needed {wanted['bytes']}")
        elif records.sha256(data) != wanted["sha256"]:
            problems.append(f"{folder.name(key)}: changed, its checksum does not match")
    for shard in range(layout.shards):
        lines = (folder.read(records.text_file(shard)) or b"").count(b"\n")
        if lines != len(layout.span(shard)):
            problems.append(f"{folder.name(records.text_file(shard))}: {lines} lines for {len(layout.span(shard))} clips")
    if manifest["counts"]["clips"] != layout.clips:
        problems.append(f"{folder.path}: the shards count {manifest['counts']['clips']} clips, the layout {layout.clips}")
    return problems
