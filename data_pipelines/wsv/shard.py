"""One shard of a WSV dataset: clips in, the bytes of its files out, made in memory and hashed before anything is written."""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from PIL import Image

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import context
from data_pipelines.wsv.manifest import ArraySpec, Layout
from data_pipelines.wsv.moments import Moments
from wsm_jax.snapshot import FIELDS, WSV, channel, restore, store

JPEG = {"quality": 92, "subsampling": 0}
"""How real rgb is encoded: no chroma subsampling, so colours stay on their pixels."""


def moments(layout: Layout) -> dict[str, Moments]:
    """Fresh statistics for every channel ("channels/...") and core field ("core/...")."""
    sizes = {f"channels/{name}": channel(name).components for name in layout.channels}
    core = {f"core/{name}": max(size, 1) for name, size in FIELDS.items()} if layout.ticks else {}
    return {key: Moments(size) for key, size in (sizes | core).items()}


def check(clip: WSV, layout: Layout, where: str) -> None:
    """Raises ValueError, beginning with `where`, unless the clip fits the layout and every number in it is finite."""

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise ValueError(f"{where}: {what}")

    need(set(clip.channels) == set(layout.channels), f"channels {sorted(clip.channels)}, the layout has {layout.channels}")
    need((clip.camera is not None) == layout.camera, f"camera {'missing' if layout.camera else 'given, the layout has none'}")
    need((clip.core is not None) == bool(layout.ticks), f"core {'missing' if layout.ticks else 'given, the layout has none'}")
    try:
        clip.check()
        records.dumps(list(clip.events))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    need(len(clip.frame_time) == layout.frames, f"{len(clip.frame_time)} frames, the layout has {layout.frames}")
    need(layout.captions or not clip.text, "captions given, the layout has none")
    need(all(isinstance(text, str) for text in clip.text), f"captions must be strings, got {clip.text}")
    for name, values in clip.channels.items():
        size = tuple(values.shape[1:3])
        need(size == (layout.height, layout.width), f"channel {name!r} has {size} pixels (H, W), the layout another size")
    for name, (values, shape) in _numbers(clip, layout).items():
        found = tuple(values.shape)
        need(found == shape, f"{name} has shape {found}, the layout needs {shape}")
        need(bool(np.isfinite(values).all()), f"{name} holds a value that is not finite")


def _numbers(clip: WSV, layout: Layout) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """Every array of a clip under the path where it is stored, with the shape that it must have."""
    size = (layout.frames, layout.height, layout.width)
    table: dict[str, tuple[np.ndarray, tuple[int, ...]]] = {}
    for name, values in clip.channels.items():
        table[f"channels/{name}"] = np.asarray(values), (*size, channel(name).components)
    if layout.frames:
        table["frame_time"] = (np.asarray(clip.frame_time), (layout.frames,))
    if clip.camera is not None:
        if not clip.camera.plain:
            raise ValueError(
                "camera: got an orthographic or a distorting one; WSV version 1 holds pinholes alone, rectify first"
            )
        for name, parts in records.CAMERA_FIELDS.items():
            table[f"camera/{name}"] = np.asarray(getattr(clip.camera, name)), (layout.frames, *([parts] if parts else []))
    if clip.core is not None:
        table["core_time"] = (np.asarray(clip.core_time), (layout.ticks,))
        for name, parts in FIELDS.items():
            shape = (layout.ticks, layout.waves, *([parts] if parts else []))
            table[f"core/{name}"] = np.asarray(getattr(clip.core, name)), shape
    return table


def encode(layout: Layout, shard: int, clips: Sequence[WSV], counted: dict[str, Moments]) -> dict[str, bytes]:
    """The files of a shard but its record, by name; counts the values that are stored into `counted`."""
    tables = [_numbers(clip, layout) for clip in clips]
    lines = [records.dumps({"captions": list(clip.text), "events": list(clip.events)}) for clip in clips]
    files = {records.text_file(shard): b"\n".join(lines) + b"\n"}
    specs = records.arrays(layout)
    for path in list(tables[0]):
        values = np.stack([_stored(path, table.pop(path)[0]) for table in tables])
        _count(layout, path, values, [clip.core.presence for clip in clips if clip.core is not None], counted)
        if path == "channels/rgb" and layout.jpeg:
            files[records.jpeg_file(shard)], values = _encode_jpeg(values)
            path = records.JPEG_INDEX
        files[specs[path].file(shard)] = _encode_array(specs[path], shard, values)
    return files


def _stored(path: str, values: np.ndarray) -> np.ndarray:
    group, _, name = path.partition("/")
    return store(name, values) if group == "channels" else values


def _count(layout: Layout, path: str, values: np.ndarray, presence: list[Any], counted: dict[str, Moments]) -> None:
    """Channels count every pixel; core fields the waves that exist, but presence itself every slot."""
    group, _, name = path.partition("/")
    if group == "channels":
        # In pieces of one chunk: the float64 of a whole shard would take eight times its memory.
        for clip in values:
            for start in range(0, layout.frames, layout.frames_per_chunk):
                counted[path].add(np.asarray(restore(name, clip[start : start + layout.frames_per_chunk])))
    elif group == "core":
        counted[path].add(values if name == "presence" else values[np.stack([np.asarray(p) for p in presence]) > 0])


def open_spec(metadata: dict[str, Any]) -> dict[str, Any]:
    """How every array is opened, wherever it is: a missing chunk is an error, never zeros, so zeros are stored too."""
    flags = {"fill_missing_data_reads": False, "store_data_equal_to_fill_value": True}
    return {"driver": "zarr3", "metadata": metadata, **flags}


def _encode_array(spec: ArraySpec, shard: int, values: np.ndarray) -> bytes:
    """The shard file of an array, encoded by TensorStore in memory, in one transaction."""
    memory = ts.KvStore.Spec({"driver": "memory"})
    array = ts.open(open_spec(spec.metadata()), kvstore=memory, context=context(), create=True).result()
    first = shard * spec.clips_per_shard
    with ts.Transaction() as transaction:
        array.with_transaction(transaction)[first : first + len(values)].write(values.astype(spec.dtype, copy=False)).result()
    assert array.kvstore is not None
    return array.kvstore[spec.file(shard).removeprefix(spec.path + "/")]


def _encode_jpeg(stored: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Frames [clip T H W 3] as one run of JPEG pictures, and [clip T 3] of (offset, length, crc32)."""
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


def decode_jpeg(data: bytes, crc32: int) -> np.ndarray:
    """One picture [H W 3]. Raises ValueError when the bytes are not those that were written."""
    if zlib.crc32(data) != crc32:
        raise ValueError("the checksum of a picture does not match")
    return np.asarray(Image.open(io.BytesIO(data)))
