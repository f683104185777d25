"""Datasets of random clips for the tests of WSV: their layouts, what writes them, and what compares all that they hold."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from data_pipelines.wsv import Dataset, Layout, create
from data_pipelines.wsv import manifest as records
from tests.data_pipelines.datasets import FULL, SOURCES, fill
from wsm_jax.snapshot import CHANNELS, FIELDS, SEMANTIC_CLASSES, WSV, Camera, Waves, restore

JPEG = dataclasses.replace(FULL, rgb_codec="jpeg")
CORES = dataclasses.replace(FULL, frames=0, height=0, width=0, channels=(), camera=False)
TEXT = dataclasses.replace(CORES, ticks=0, waves=0)
RGB = dataclasses.replace(FULL, channels=("rgb",), ticks=0, waves=0, camera=False, captions=False, rgb_codec="jpeg")
ONE_SHARD = dataclasses.replace(FULL, clips_per_shard=64, frames_per_chunk=100, channels=("depth",))
SMALL = dataclasses.replace(JPEG, clips=2, clips_per_shard=1, channels=("rgb", "depth"))
SPLIT = dataclasses.replace(JPEG, clips_per_shard=1, channels=("rgb", "depth", "motion"))
PLAIN = dataclasses.replace(FULL, compression="none", channels=("rgb", "depth"))
"""Chunks are not compressed."""
LAYOUTS = {"full": FULL, "jpeg": JPEG, "cores": CORES, "text": TEXT, "rgb": RGB, "one_shard": ONE_SHARD}
LAYOUTS |= {"small": SMALL, "split": SPLIT, "plain": PLAIN}
BUILD = {"seed": 3, "zeros": "0" * 64}


def make_clip(layout: Layout, index: int) -> WSV:
    """A clip of random values over the whole range of every channel and field, the same for the same index."""
    rng = np.random.default_rng([7, index])
    size = (layout.frames, layout.height, layout.width)
    channels = {}
    for name in layout.channels:
        limits = np.iinfo(CHANNELS[name].dtype)
        stored = rng.integers(limits.min, limits.max, (*size, CHANNELS[name].components), CHANNELS[name].dtype, endpoint=True)
        channels[name] = restore(name, stored)
    camera, core, core_time = None, None, None
    if layout.camera:
        shapes = {key: (layout.frames, *([n] if n else [])) for key, n in records.CAMERA_FIELDS.items()}
        camera = Camera(**{key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()})
    if layout.ticks:
        lead = (layout.ticks, layout.waves)
        fields = {key: rng.normal(size=(*lead, *([n] if n else []))).astype(np.float32) for key, n in FIELDS.items()}
        fields["presence"] = np.float32(rng.random(lead) * (rng.random(lead) < 0.7))
        fields["semantic"] = rng.integers(0, len(SEMANTIC_CLASSES), lead).astype(np.int32)
        fields["instance"] = rng.integers(0, 9, lead).astype(np.int32)
        core, core_time = Waves(**fields), np.arange(layout.ticks) / 8.0
    text = tuple(f"clip {index}, wording {k}: ein großer Ball" for k in range(index % 3)) if layout.captions else ()
    events = ({"kind": "impact", "time": 0.25 * index, "instances": [1, 2]},) * (index % 2)
    return WSV(channels, (0.1 * index + np.arange(layout.frames)) / layout.frame_hz, camera, core, core_time, text, events)


def begin(path: Path | str, layout: Layout):
    """The writer of the build of these tests."""
    return create(path, layout, name="test", sources=SOURCES, build=BUILD)


def build(path: Path | str, layout: Layout) -> Path | str:
    """A finished dataset."""
    fill(begin(path, layout), functools.partial(make_clip, layout))
    return path


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def changed(before: dict[str, bytes], path: Path) -> list[str]:
    """The files that were added, removed or changed (pytest takes minutes to print how large bytes differ)."""
    after = contents(path)
    return sorted(key for key in before | after if before.get(key) != after.get(key))


def read_all(ds: Dataset) -> list:
    """Everything that a reader can get out of a dataset, as plain nested data."""
    out = []
    for index in range(len(ds)):
        core = ds.core(index)
        camera = ds.camera(index)
        out.append(ds.read(index, ds.layout.channels))
        out.append({} if camera is None else {key: getattr(camera, key) for key in records.CAMERA_FIELDS})
        out.append({} if core is None else {key: getattr(core[0], key) for key in FIELDS} | {"time": core[1]})
        out.append({"time": ds.frame_time(index), "text": ds.captions(index), "events": ds.events(index)})
    return out


def equal(a: list, b: list) -> bool:
    """Whether two results of `read_all` are the same, bit for bit."""
    np.testing.assert_equal(a, b)
    return True


def same_arrays(got, wanted) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
