"""Reads a clip of a WSV dataset by docs/wsv.md, without wsm_jax:     read_clip(pathlib.Path("data"), 0)"""

import hashlib
import io
import json
import zlib

import numpy as np
import tensorstore as ts
from PIL import Image

LAYOUT = "clips frames height width frame_hz ticks waves channels rgb_codec clips_per_shard frames_per_chunk camera captions "
LAYOUT += "over lens ragged signals measures derived compression"
FIELDS = {"camera": {"position": 3, "rotation": 4, "focal": 1, "offset": 2, "distortion": 5}}
FIELDS["core"] = {"presence": 1, "centre": 3, "scale": 3, "rotation": 4, "exponents": 2, "colour": 3, "material": 2}
FIELDS["core"] |= {"velocity": 3, "angular_velocity": 3, "semantic": 1, "instance": 1}


def same(file, found, needed):
    if found != needed:
        raise ValueError(f"{file}: damaged, or not for this reader: {found}, needed {needed}")


def columns(x, fields):
    parts = zip(fields, np.split(x, np.cumsum([*fields.values()]), -1))
    return {name: part[..., 0] if fields[name] == 1 else part for name, part in parts if part.size}


def read_clip(root, number):
    """Channels in physical units [T H W C], camera, core, times (s), signals as (times, values), captions and events."""

    def small(key):
        same(root / key, hashlib.sha256(data := (root / key).read_bytes()).hexdigest(), manifest["files"][key]["sha256"])
        return data

    def rows(path, count):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{root}/{path}/"}, "fill_missing_data_reads": False}
        spec["metadata"] = json.loads(small(f"{path}/zarr.json"))
        return ts.open(spec, open=True).result()[number, :count].read().result()

    manifest = json.loads(raw := (root / "manifest.json").read_bytes())
    head, mark, tail = raw.partition(b'\n "sha256": "')
    seal = hashlib.sha256(head + mark + b"0" * 64 + tail[64:]).hexdigest()
    same(root, [manifest.get("format"), manifest.get("schema_version"), tail[:64].decode()], ["wsm_wsv", 2, seal])
    layout, arrays = manifest["layout"], {key.removesuffix("/zarr.json") for key in manifest["files"]}
    same(root, {*layout, layout["rgb_codec"]} - {*LAYOUT.split(), "array", "jpeg"}, set())
    shard, place = divmod(number, layout["clips_per_shard"])
    clip = json.loads(small(f"text/{shard:06d}.jsonl").splitlines()[place]) | {"channels": {}}
    frames, signals = clip.get("frames", layout["frames"]), clip.get("signals", {}).items()
    clip |= {path: rows(path, frames) for path in arrays & {"frame_time", "camera"}}
    clip |= {path: rows(path, layout["ticks"]) for path in arrays & {"core", "core_time"}}
    clip |= {path: columns(clip[path], FIELDS[path]) for path in arrays & set(FIELDS)}
    for name, row in manifest["channels"].items():
        if f"channels/{name}" in arrays:
            stored = rows(f"channels/{name}", frames)
        else:
            data, stored = (root / f"channels/rgb_jpeg/bytes/{shard:06d}").read_bytes(), []
            for offset, length, crc32 in rows("channels/rgb_jpeg/index", frames).tolist():
                same(f"{root}: rgb of clip {number}", zlib.crc32(data[offset : offset + length]), crc32)
                stored.append(np.asarray(Image.open(io.BytesIO(data[offset : offset + length]))))
        clip["channels"][name] = np.float32(stored) * np.float32(row["step"])
    return clip | {"signals": {k: (rows(f"signals/{k}_time", n), rows(f"signals/{k}", n)) for k, n in signals}}
