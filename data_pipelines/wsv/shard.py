"""Encoding of one shard of a WSV dataset: clips in, the bytes of its files out, in memory."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import picture
from data_pipelines.wsv.clip import Clip, line, rows
from data_pipelines.wsv.folder import context
from data_pipelines.wsv.manifest import ArraySpec, Layout
from data_pipelines.wsv.moments import Moments
from wsm_jax.snapshot import FIELDS, channel, restore


def moments(layout: Layout) -> dict[str, Moments]:
    """Empty statistics for every channel ("channels/...") and core field ("core/...")."""
    sizes = {f"channels/{name}": channel(name).components for name in layout.channels}
    core = {f"core/{name}": max(size, 1) for name, size in FIELDS.items()} if layout.ticks else {}
    return {key: Moments(size) for key, size in (sizes | core).items()}


def encode(layout: Layout, shard: int, clips: Sequence[Clip], counted: dict[str, Moments]) -> dict[str, bytes]:
    """The files of a shard except its record, by name; adds the stored values to `counted`."""
    tables = [rows(clip, layout) for clip in clips]
    lines = [records.dumps(line(clip, layout)) for clip in clips]
    files = {records.text_file(shard): b"\n".join(lines) + b"\n"}
    specs = records.arrays(layout)
    for clip in clips:
        _count(layout, clip, counted)
    if layout.encoded:
        files[records.bytes_file(layout, shard)], index = _encode_pictures(layout, clips)
        path = records.index_path(layout)
        files[specs[path].file(shard)] = _encode_array(specs[path], shard, index)
    for path in list(tables[0]):
        files[specs[path].file(shard)] = _encode_array(specs[path], shard, np.stack([table.pop(path) for table in tables]))
    return files


def _count(layout: Layout, clip: Clip, counted: dict[str, Moments]) -> None:
    """Adds every pixel of the channels (none of JPEG files stored unchanged), the core fields of waves that exist, and the
    presence of every slot."""
    for name, values in clip.channels.items():
        # In pieces of one chunk: the float64 of a whole clip would take eight times its memory.
        for start in range(0, clip.frames, layout.frames_per_chunk):
            counted[f"channels/{name}"].add(np.asarray(restore(name, values[start : start + layout.frames_per_chunk])))
    if clip.core is not None:
        exists = np.asarray(clip.core.presence) > 0
        for name in FIELDS:
            values = np.asarray(getattr(clip.core, name))
            counted[f"core/{name}"].add(values if name == "presence" else values[exists])


def _encode_pictures(layout: Layout, clips: Sequence[Clip]) -> tuple[bytes, np.ndarray]:
    """The concatenated pictures of a shard, and (offset, length, crc32) [clip run 3]; 0 after the last run of a clip."""
    parts: list[bytes] = []
    index = np.zeros((len(clips), -(-layout.frames // layout.run), 3), np.uint64)
    offset = 0
    for number, clip in enumerate(clips):
        for run, start in enumerate(range(0, clip.frames, layout.run)):
            kept = clip.pictures
            data = (
                picture.encode(layout.encoded, clip.channels["rgb"][start : start + layout.run]) if kept is None else kept[run]
            )
            parts.append(data)
            index[number, run] = offset, len(data), zlib.crc32(data)
            offset += len(data)
    return b"".join(parts), index


def open_spec(metadata: dict[str, Any]) -> dict[str, Any]:
    """TensorStore's spec of an array: a missing chunk is an error, not zeros, so zeros are stored too."""
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
