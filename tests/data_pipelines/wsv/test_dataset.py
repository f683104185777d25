"""WSV on disk: what is written is read, whatever stops a build; what is damaged is named and never read."""

import dataclasses
import errno
import functools
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from PIL import Image

from data_pipelines.wsv import SCHEMA_VERSION, Dataset, Layout, create, verify
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.moments import Moments
from tests.data_pipelines.datasets import FULL, SOURCES, fill
from wsm_jax.snapshot import CHANNELS, FIELDS, SEMANTIC_CLASSES, WSV, Camera, Waves, restore, store

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


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """One finished dataset a layout; tests must not change them."""
    root = tmp_path_factory.mktemp("wsv")
    return {name: build(root / name, layout) for name, layout in LAYOUTS.items()}


@pytest.fixture
def copy(built, tmp_path):
    """A function that gives a copy of a finished dataset, to be damaged."""
    return lambda name: Path(shutil.copytree(built[name], tmp_path / "copy", dirs_exist_ok=True))


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


# What is written is read.


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_channel_and_field_comes_back(built, name):
    layout, ds = LAYOUTS[name], Dataset(built[name])
    assert ds.layout == layout
    assert ds.name == "test"
    assert len(ds) == layout.clips
    for index in range(layout.clips):
        wanted, got = make_clip(layout, index), ds.clip(np.int64(index)).check()
        assert set(got.channels) == set(layout.channels)
        for key in layout.channels:
            if key != "rgb" or layout.rgb_codec == "array":
                same_arrays(got.channels[key], wanted.channels[key])
                same_arrays(ds.read(index, [key])[key], store(key, wanted.channels[key]))
        same_arrays(got.frame_time, wanted.frame_time)
        same_arrays(ds.frame_time(index), wanted.frame_time)
        assert (got.camera is None) == (not layout.camera)
        for key in records.CAMERA_FIELDS if layout.camera else ():
            same_arrays(getattr(got.camera, key), getattr(wanted.camera, key))
        assert (ds.core(index) is None) == (not layout.ticks)
        for key in FIELDS if layout.ticks else ():
            same_arrays(getattr(got.core, key), getattr(wanted.core, key))
        if layout.ticks:
            same_arrays(got.core_time, wanted.core_time)
        assert got.text == ds.captions(index) == wanted.text
        assert got.events == ds.events(index) == wanted.events
    assert verify(built[name], progress=False) == []


@pytest.mark.parametrize("name", ["full", "jpeg"])
@pytest.mark.parametrize(
    "frames",
    [None, slice(2, 6), slice(None), slice(1, None, 3), slice(5, 1, -2), slice(3, 3), slice(-2, None), [4, 0, 0, 6], [], [3]],
    ids=str,
)
def test_frames_index_like_numpy(built, name, frames):
    ds = Dataset(built[name])
    whole, part = ds.read(3, ds.layout.channels), ds.read(3, ds.layout.channels, frames)
    index = slice(None) if frames is None else np.asarray(frames, int) if isinstance(frames, list) else frames
    for key, values in whole.items():
        same_arrays(part[key], values[index])
    camera, all_cameras = ds.camera(3, frames), ds.camera(3)
    assert camera is not None
    assert all_cameras is not None
    same_arrays(camera.rotation, np.asarray(all_cameras.rotation)[index])
    waves, seconds = ds.core(3, frames) or (None, None)
    all_waves, all_seconds = ds.core(3) or (None, None)
    same_arrays(waves.centre, np.asarray(all_waves.centre)[index])
    same_arrays(seconds, np.asarray(all_seconds)[index])


def test_numpy_indices_are_taken(built):
    ds = Dataset(built["full"])
    same_arrays(ds.read(np.int32(1), ("depth",), np.array([2, 5]))["depth"], ds.read(1, ("depth",), [2, 5])["depth"])


def test_jpeg_keeps_a_smooth_picture(tmp_path):
    layout = dataclasses.replace(RGB, clips=3, frames=4, height=32, width=48)
    v, u, t = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 48), np.arange(4), indexing="ij")
    ramp = np.stack([u, v, 0.5 + 0.1 * t * u], -1).transpose(2, 0, 1, 3).astype(np.float32)
    clips = [WSV({"rgb": (1.0 - 0.2 * i) * ramp}, np.arange(4) / 8.0) for i in range(3)]
    fill(begin(tmp_path / "ds", layout), clips.__getitem__)
    ds = Dataset(tmp_path / "ds")
    for i, clip in enumerate(clips):
        error = np.asarray(ds.clip(i).channels["rgb"]) - np.asarray(clip.channels["rgb"])
        assert 10 * np.log10(1 / np.mean(error**2)) > 40
    # The bytes are plain JPEG pictures, one after another.
    start = (tmp_path / "ds" / records.bytes_file(layout, 1)).read_bytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(start))), ds.read(2, ["rgb"])["rgb"][0])


def test_all_zero_chunks_are_stored_and_read(tmp_path):
    layout = dataclasses.replace(FULL, clips=1, channels=("depth",), camera=False, ticks=0, waves=0)
    writer = begin(tmp_path / "ds", layout)
    writer.write(0, [WSV({"depth": np.zeros((7, 6, 8, 1), np.float32)}, np.arange(7) / 8.0)])
    writer.finish()
    assert not Dataset(tmp_path / "ds").read(0, ["depth"])["depth"].any()


def test_jax_arrays_are_taken(tmp_path):
    import jax

    layout = dataclasses.replace(FULL, clips=1)
    writer = begin(tmp_path / "ds", layout)
    clip = make_clip(layout, 0)
    writer.write(0, [jax.tree.map(lambda x: jax.numpy.asarray(x) if x.dtype != np.float64 else x, clip)])
    writer.finish()
    np.testing.assert_array_equal(Dataset(tmp_path / "ds").clip(0).channels["motion"], clip.channels["motion"])


def test_pickling_drops_the_handles(built):
    ds = Dataset(built["jpeg"])
    before = len(pickle.dumps(ds))
    wanted = read_all(ds)
    data = pickle.dumps(ds)
    assert len(data) == before
    assert equal(read_all(pickle.loads(data)), wanted)
    writer = pickle.loads(pickle.dumps(begin(built["full"].parent / "unfinished", FULL)))
    assert writer.missing() == [0, 1, 2]


def test_threads_read_what_one_thread_reads(built):
    ds, fresh = Dataset(built["jpeg"]), Dataset(built["jpeg"])
    wanted = [ds.read(i, ds.layout.channels) | {"text": ds.captions(i)} for i in range(5)]
    with ThreadPoolExecutor(8) as pool:
        order = [i % 5 for i in range(80)]
        found = list(pool.map(lambda i: fresh.read(i, fresh.layout.channels) | {"text": fresh.captions(i)}, order))
    for i, values in zip(order, found, strict=True):
        np.testing.assert_equal(values, wanted[i])


def test_a_url_is_as_good_as_a_path(built, tmp_path):
    build(f"file://{tmp_path}/ds", SMALL)
    assert changed(contents(built["small"]), tmp_path / "ds") == []
    assert equal(read_all(Dataset(f"file://{tmp_path}/ds/")), read_all(Dataset(built["small"])))
    assert verify(f"file://{tmp_path}/ds", progress=False) == []


# The manifest.


def test_statistics_are_those_of_all_the_values(built):
    manifest = Dataset(built["full"]).manifest
    clips = [make_clip(FULL, index) for index in range(FULL.clips)]
    values = {("channels", key): np.stack([c.channels[key] for c in clips]) for key in FULL.channels}
    exists = np.stack([c.core.presence for c in clips]) > 0
    assert 0 < exists.sum() < exists.size
    for key, size in FIELDS.items():
        field = np.stack([getattr(c.core, key) for c in clips])
        values["core", key] = (field if key == "presence" else field[exists]).reshape(-1, max(size, 1))
    assert set(manifest["statistics"]["core"]) == set(FIELDS)
    for (group, key), x in values.items():
        flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
        found = manifest["statistics"][group][key]
        assert found["count"] == len(flat)
        for word, wanted in {"mean": flat.mean(0), "std": flat.std(0), "min": flat.min(0), "max": flat.max(0)}.items():
            np.testing.assert_allclose(found[word], wanted, rtol=1e-9, atol=1e-12 * np.abs(flat).max(), err_msg=f"{key} {word}")


def test_moments_do_not_lose_a_small_spread_on_a_large_mean():
    x = 1e6 + np.random.default_rng(0).normal(size=(1000, 2))
    whole, parts = Moments(2), Moments(2)
    whole.add(x)
    for piece in (x[:1], x[1:500], x[500:500], x[500:]):
        moments = Moments(2)
        moments.add(piece)
        parts.merge(json.loads(json.dumps(moments.record())))
    for key in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(parts.summary()[key], whole.summary()[key], rtol=1e-9)
    np.testing.assert_allclose(parts.summary()["std"], x.std(0), rtol=1e-9)
    assert Moments(2).summary()["mean"] == []


def test_manifest_counts_and_names_every_file(built):
    manifest, files = Dataset(built["jpeg"]).manifest, contents(built["jpeg"])
    counts = manifest["counts"]
    assert {k: counts[k] for k in ("clips", "shards", "frames", "ticks")} == {
        "clips": 5,
        "shards": 3,
        "frames": 35,
        "ticks": 45,
    }
    assert (counts["captions"], counts["events"]) == (0 + 1 + 2 + 0 + 1, 2)
    assert set(manifest["files"]) == set(files) - {"manifest.json"}
    assert counts["bytes"] == sum(len(files[key]) for key in manifest["files"])
    assert manifest["sources"] == SOURCES
    assert manifest["build"] == BUILD
    assert manifest["schema_version"] == SCHEMA_VERSION


# A build that stops goes on; two processes share one.

WORKER = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_dataset as t
from data_pipelines.wsv.folder import Folder
path, kill_at, shards = sys.argv[1], int(sys.argv[2]), [int(s) for s in sys.argv[3].split(",")]
plain, written = Folder.write, 0

def write(self, files):
    global written
    for key, data in files.items():
        written += 1
        if written == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, {{key: data}})

writer = t.begin(path, t.SPLIT)
if kill_at:
    Folder.write = write
for shard in shards:
    print("shard", shard, flush=True)
    writer.write(shard, [t.make_clip(t.SPLIT, shard)])
"""


def worker(path: Path, shards: str, kill_at: int = 0) -> subprocess.Popen:
    """A process that builds some shards of a dataset, and kills itself before its file number `kill_at`, if that is not 0."""
    here = Path(__file__).resolve()
    code = WORKER.format(tests=str(here.parent), root=str(here.parents[2]))
    arguments = [sys.executable, "-c", code, str(path), str(kill_at), shards]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def test_two_processes_that_are_killed_and_resumed_give_the_same_bytes(built, tmp_path):
    path, per_shard = tmp_path / "ds", len(records.arrays(SPLIT)) + 2
    # One kills itself in the middle of shard 1, the other is killed from outside, somewhere in shard 4 (or just after it).
    one, two = worker(path, "0,1", kill_at=per_shard + per_shard // 2), worker(path, "2,3,4")
    assert two.stdout is not None
    assert [two.stdout.readline() for _ in range(3)] == ["shard 2\n", "shard 3\n", "shard 4\n"]
    time.sleep(0.01)
    two.kill()
    two.communicate(timeout=60)
    one.communicate(timeout=60)
    assert one.returncode == -signal.SIGKILL
    assert any(".1." in key for key in contents(path)), "it was to be killed when a part of shard 1 was written"
    with pytest.raises(ValueError, match=r'unfinished build.*"seed": 3.*'):
        Dataset(path)
    assert "unfinished" in verify(path, progress=False)[0]
    assert {1} <= set(begin(path, SPLIT).missing()) <= {1, 4}
    build(path, SPLIT)
    assert verify(path, progress=False) == []
    # A write that was cut off may leave the file that it wrote to under another name, which no reader sees.
    assert [key for key in changed(contents(built["split"]), path) if not key.endswith(".__lock")] == []


def test_finish_names_the_missing_shards_and_happens_once(tmp_path):
    writer = begin(tmp_path / "ds", TEXT)
    writer.write(1, [make_clip(TEXT, index) for index in TEXT.span(1)])
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing: \[0, 2\]"):
        writer.finish()
    with pytest.raises(ValueError, match="shard 1 is complete"):
        writer.write(1, [make_clip(TEXT, index) for index in TEXT.span(1)])
    for shard in (0, 2):
        writer.write(shard, [make_clip(TEXT, index) for index in TEXT.span(shard)])
    path = tmp_path / "ds" / records.text_file(2)
    text = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=r"text/000002\.jsonl: gone"):
        writer.finish()
    path.write_bytes(text)
    assert writer.finish() == Dataset(tmp_path / "ds").manifest
    with pytest.raises(ValueError, match="finished already"):
        writer.finish()
    with pytest.raises(ValueError, match="finished dataset is here"):
        begin(tmp_path / "ds", TEXT)


def test_what_another_release_began_is_refused(tmp_path):
    begin(tmp_path / "ds", FULL)
    file = tmp_path / "ds" / records.BUILD
    begun = json.loads(file.read_text())
    for key, other in {"schema_version": 1, "tick_hz": 9.0, "semantic_classes": ["void"], "channels": {}}.items():
        file.write_text(json.dumps({**begun, key: other}))
        before = contents(tmp_path / "ds")
        with pytest.raises(ValueError, match=rf"another release began what is unfinished here: its {key} is .*wsm_jax"):
            begin(tmp_path / "ds", FULL)
        assert not changed(before, tmp_path / "ds")
    file.write_text(json.dumps(begun))
    begin(tmp_path / "ds", FULL)


def test_another_build_is_refused(tmp_path):
    begin(tmp_path / "ds", FULL)
    before = contents(tmp_path / "ds")
    same = {"layout": FULL, "name": "test", "sources": SOURCES, "build": BUILD}
    others = {
        "layout": JPEG,
        "name": "other",
        "sources": [{"name": "x", "licence": "MIT"}],
        "build": {"seed": 4},
    }
    for key, other in others.items():
        arguments = {**same, key: other}
        with pytest.raises(ValueError, match=f"another build is unfinished here: its {key}"):
            create(tmp_path / "ds", arguments.pop("layout"), **arguments)
    begin(tmp_path / "ds", FULL)
    assert changed(before, tmp_path / "ds") == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.tex"):
        begin(tmp_path / "mine", FULL)
    assert list(contents(tmp_path / "mine")) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.replace(channels={k: v for k, v in c.channels.items() if k != "depth"}), "channels"),
        (lambda c: c.replace(channels={k: v[:, :5] for k, v in c.channels.items()}), "pixels"),
        (lambda c: c.replace(channels={**c.channels, "depth": c.channels["depth"][:, :5]}), "aligned|pixels"),
        (lambda c: c.replace(channels={**c.channels, "depth": np.full_like(c.channels["depth"], np.nan)}), "not finite"),
        (lambda c: c.replace(camera=None), "camera missing"),
        (lambda c: c.replace(core=None), "core missing"),
        (lambda c: c.replace(core=c.core[:4], core_time=c.core_time[:4]), "core"),
        (lambda c: c.replace(frame_time=c.frame_time[::-1]), "increase"),
        (lambda c: c.replace(frame_time=c.frame_time[:4]), "channel|frames"),
        (lambda c: c.replace(events=({"time": float("nan")},)), "JSON|JSON compliant"),
        (lambda c: c.replace(events=({"time": object()},)), "cannot be stored as JSON"),
    ],
)
def test_a_clip_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, change, message):
    writer = begin(tmp_path / "ds", FULL)
    before = contents(tmp_path / "ds")
    clips = [make_clip(FULL, 2), change(make_clip(FULL, 3))]
    with pytest.raises(ValueError, match=f"(?s)clip 3: .*({message})"):
        writer.write(1, clips)
    assert changed(before, tmp_path / "ds") == []


def test_other_misuse_is_refused(tmp_path, built):
    writer = begin(tmp_path / "ds", RGB)
    with pytest.raises(ValueError, match=r"shard 0 is clips 0\.\.1; got 1"):
        writer.write(0, [make_clip(RGB, 0)])
    with pytest.raises(IndexError, match="shard 3"):
        writer.write(3, [])
    clip = make_clip(RGB, 0)
    for extra in (
        {"text": ("a",)},
        {"camera": make_clip(FULL, 0).camera},
        {"core": make_clip(FULL, 0).core, "core_time": np.arange(9) / 8},
    ):
        with pytest.raises(ValueError, match="layout has none"):
            writer.write(0, [clip, clip.replace(**extra)])
    with pytest.raises(ValueError, match=r"\['licence'\] missing"):
        create(tmp_path / "no", RGB, name="x", sources=[{"name": "y"}], build={})
    with pytest.raises(ValueError, match="cannot be stored as JSON"):
        create(tmp_path / "no", RGB, name="x", sources=[], build={"f": print})
    assert not (tmp_path / "no").exists()
    changes = {"clips": 0, "channels": ("rgb", "rgb"), "rgb_codec": "png", "frames": 0, "waves": 0, "frames_per_chunk": 0}
    for key, value in changes.items():
        with pytest.raises(ValueError, match="Layout"):
            dataclasses.replace(FULL, **{key: value})
    with pytest.raises(KeyError, match="unknown channel 'heat'"):
        dataclasses.replace(FULL, channels=("heat",))
    ds = Dataset(built["rgb"])
    with pytest.raises(KeyError, match="no channel 'depth'; it has rgb"):
        ds.read(0, ["rgb", "depth"])
    for clip in (-1, 5):
        for verb in (ds.clip, ds.frame_time, ds.captions, ds.events, lambda i: ds.read(i, ["rgb"])):
            with pytest.raises(IndexError, match=rf"clip {clip} is not in 0\.\.4"):
                verb(clip)
    for frames in ([7], [-1]):
        with pytest.raises(IndexError, match=r"it has 0\.\.6"):
            ds.read(0, ["rgb"], frames)


# Damage is named, never read.


def kinds() -> dict[str, str]:
    """One file of every kind of the small dataset."""
    files = {"manifest": "manifest.json", "build": "build.json", "record": records.record_file(1), "text": records.text_file(1)}
    specs = records.arrays(SMALL)
    for path in (records.index_path(SMALL), "channels/depth", "frame_time", "camera", "core_time", "core"):
        files[path] = specs[path].file(1)
    for path in ("channels/depth", "core"):
        files[f"{path} metadata"] = specs[path].metadata_file
    return files | {"jpeg": records.bytes_file(SMALL, 1)}


def outcome(path: Path) -> list | Exception:
    """What reading everything gives: the data, or the error that names the file."""
    try:
        return read_all(Dataset(path))
    except (ValueError, FileNotFoundError) as error:
        return error


UNREAD = ("build", "record")
"""Kinds that only a build needs: damage there is found by verify, and cannot spoil what is read."""


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_to_any_kind_of_file_is_named(built, copy, damage):
    path, wanted = copy("small"), read_all(Dataset(built["small"]))
    rng = np.random.default_rng(5)
    for kind, key in kinds().items():
        file = path / key
        good = file.read_bytes()
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes({"flip": bytes(bad), "truncate": good[: len(good) // 2]}[damage])
        found = outcome(path)
        if kind in UNREAD and damage != "remove":
            assert equal(found, wanted)
        else:
            assert isinstance(found, Exception), f"{kind}: read without complaint"
            assert key in str(found) or (kind == "manifest" and str(path) in str(found)), f"{kind}: {found}"
        if kind != "manifest":
            problems = verify(path, progress=False)
            assert len(problems) == 1, f"{kind}: {problems}"
            assert key in problems[0]
            assert {"flip": "changed", "remove": "missing"}.get(damage, "truncated") in problems[0]
        elif damage != "remove":
            assert str(file) in verify(path, progress=False)[0]
        file.write_bytes(good)
    assert equal(read_all(Dataset(path)), wanted)


READS = {
    "channels/depth": lambda ds: ds.read(0, ["depth"])["depth"],
    records.index_path(SMALL): lambda ds: ds.read(0, ["rgb"])["rgb"],
    "jpeg": lambda ds: ds.read(0, ["rgb"])["rgb"],
    "core": lambda ds: ds.core(0)[0].presence,
    "text": lambda ds: (ds.captions(0), ds.events(0)),
    "manifest": lambda ds: ds.manifest,
}


@pytest.mark.parametrize("key", READS)
def test_no_single_flipped_byte_and_no_shorter_file_gives_wrong_data(tmp_path, key):
    small = dataclasses.replace(SMALL, clips=1, frames=2, height=2, width=3, ticks=2, waves=2, frames_per_chunk=1)
    path = build(tmp_path / "ds", small)
    names = {"jpeg": records.bytes_file(SMALL, 0), "text": records.text_file(0), "manifest": "manifest.json"}
    name = names[key] if key in names else records.arrays(small)[key].file(0)
    good, wanted = (path / name).read_bytes(), READS[key](Dataset(path))
    for place in np.unique(np.linspace(0, len(good) - 1, 40).astype(int)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << (int(place) % 8)
        for bad in (bytes(flipped), good[:place]):
            (path / name).write_bytes(bad)
            with pytest.raises(ValueError, match=re.escape(name)):
                READS[key](Dataset(path))
    (path / name).write_bytes(good)
    np.testing.assert_equal(READS[key](Dataset(path)), wanted)


def test_a_file_that_vanishes_under_an_open_dataset_is_read_as_it_was_or_missed(copy):
    path = copy("jpeg")
    ds, late = Dataset(path), Dataset(path)
    for key, channel in ((records.arrays(JPEG)["channels/depth"].file(0), "depth"), (records.bytes_file(JPEG, 0), "rgb")):
        whole = ds.read(0, [channel])[channel]
        (path / key).unlink()
        np.testing.assert_array_equal(ds.read(0, [channel])[channel], whole)
        with pytest.raises(ValueError, match=key):
            late.read(0, [channel])


def test_verify_lists_every_problem(copy):
    path = copy("full")
    depth, text = path / records.arrays(FULL)["channels/depth"].file(2), path / records.text_file(0)
    depth.write_bytes(depth.read_bytes() + b"\0")
    text.unlink()
    (path / "notes.txt").write_text("mine")
    (path / "channels" / "depth" / "c.9.0.0.0.0").write_bytes(b"stale")
    problems = sorted(verify(path))
    wanted = [("c.2.0.0.0.0", "too long"), ("c.9.0.0.0.0", "extra"), ("notes.txt", "extra"), ("000000.jsonl", "missing")]
    assert len(problems) == 4
    assert all(any(name in line and word in line for line in problems) for name, word in wanted), problems


def test_what_is_no_dataset_of_this_release_is_refused(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        verify(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("not a folder")
    for verb in (Dataset, verify, lambda path: begin(path, FULL)):
        with pytest.raises(NotADirectoryError, match="file: a file; needed the folder"):
            verb(tmp_path / "file")
    path = copy("text")
    manifest = json.loads((path / "manifest.json").read_bytes())

    def refused(message: str, **changes) -> None:
        (path / "manifest.json").write_bytes(records.seal({**manifest, **changes}))
        with pytest.raises(ValueError, match=message):
            Dataset(path)
        if changes.get("schema_version") == 3:
            with pytest.raises(ValueError, match=message):
                verify(path, progress=False)
        else:
            assert len(verify(path, progress=False)) == 1

    refused(r"schema version 3, this release reads up to version 2; update", schema_version=3)
    refused("schema version None is not a number; damaged", schema_version=None)
    refused("not a WSV dataset", format="zip")
    refused("semantic classes", semantic_classes=["nothing", "cat"])
    table = {"rgb": {"components": 3, "unit": "sRGB 0..1", "dtype": "uint16", "step": 1 / 65535}}
    refused("channel 'rgb' was stored as", channels=table)
    # A newer version says so even when its checksum is made another way.
    (path / "manifest.json").write_text(json.dumps({"format": "wsm_wsv", "schema_version": 3}))
    with pytest.raises(ValueError, match="schema version 3"):
        Dataset(path)
    (path / "manifest.json").write_bytes(records.seal(manifest))
    assert len(Dataset(path)) == 5
    begin(tmp_path / "begun", TEXT)
    head = json.loads((tmp_path / "begun" / "build.json").read_bytes())
    (tmp_path / "begun" / "build.json").write_text(json.dumps({**head, "schema_version": 3}))
    with pytest.raises(ValueError, match="schema version 3"):
        begin(tmp_path / "begun", TEXT)


# A full disk.


def test_a_disk_that_fills_up_at_any_file_leaves_the_shard_missing(tmp_path, monkeypatch):
    writer = begin(tmp_path / "ds", JPEG)
    clips = [make_clip(JPEG, index) for index in range(2)]
    real = Folder.store.fget
    room = 0

    class Full:
        """A store on which only `room` more files fit."""

        def __init__(self, plain):
            self.plain = plain

        def __getattr__(self, name):
            return getattr(self.plain, name)

        def write(self, key, value, **kwargs):
            nonlocal room
            if value is None or (room := room - 1) >= 0:
                return self.plain.write(key, value, **kwargs)
            promise, future = ts.Promise.new()
            message = f"RESOURCE_EXHAUSTED: Failed writing: {key}: No space left on device [os_error_code='28']"
            promise.set_exception(ValueError(message))
            return future

    monkeypatch.setattr(Folder, "store", property(lambda self: Full(real(self))))
    before = contents(tmp_path / "ds")
    for fits in (0, 1, len(records.arrays(JPEG)) + 1, len(records.arrays(JPEG)) + 2):
        room = fits
        with pytest.raises(OSError, match=r"disk full: shard 0 needs \d+\.\d+ MiB, \d+") as caught:
            writer.write(0, clips)
        assert caught.value.errno == errno.ENOSPC
        assert str(tmp_path / "ds") in str(caught.value)
        assert changed(before, tmp_path / "ds") == []
        assert writer.missing() == [0, 1, 2]
    room = 10**6
    assert build(tmp_path / "ds", JPEG)
    assert verify(tmp_path / "ds", progress=False) == []


TINY = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_dataset as t
from data_pipelines.wsv.folder import Folder
path, plain = sys.argv[1], Folder.free
writer = t.begin(path + "/ds", t.JPEG)
before = t.contents(t.Path(path))
filler = open(path + "/filler", "wb")
filler.write(bytes(plain(Folder(path)) - 20000))
filler.close()
for free in (plain, lambda self: None):  # With the check in advance, and without it.
    Folder.free = free
    try:
        writer.write(0, [t.make_clip(t.JPEG, 0), t.make_clip(t.JPEG, 1)])
    except OSError as error:
        print(error)
        assert error.errno == t.errno.ENOSPC
    else:
        raise AssertionError("it fitted")
    assert t.changed(before, t.Path(path)) == ["filler"]
t.os.unlink(path + "/filler")
t.build(t.Path(path) / "ds", t.JPEG)
assert t.verify(path + "/ds", progress=False) == []
"""


def test_a_disk_that_is_really_full(tmp_path):
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a tiny disk in a namespace of its own is not permitted here")
    here = Path(__file__).resolve()
    code = TINY.format(tests=str(here.parent), root=str(here.parents[2]))
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1" "$2"', sys.executable, code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("disk full: shard 0 needs") == 2


def test_a_forked_process_is_told_not_to_read(built, monkeypatch):
    ds = Dataset(built["text"])
    ds.captions(0)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="spawn"):
        ds.captions(2)
    with pytest.raises(RuntimeError, match="spawn"):
        Dataset(built["text"])


def test_what_follows_from_the_camera_is_not_stored():
    with pytest.raises(ValueError, match="channel 'ground' follows from the camera"):
        dataclasses.replace(FULL, channels=("rgb", "ground"))
