"""WSV on disk: what is written is read; what is damaged is named and never read."""

import dataclasses
import io
import json
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.wsv import Dataset, dataset, verify
from data_pipelines.wsv import manifest as records
from tests.data_pipelines.datasets import FULL, fill
from tests.data_pipelines.wsv.random_clips import (
    JPEG,
    LAYOUTS,
    RGB,
    SMALL,
    TEXT,
    begin,
    build,
    changed,
    contents,
    equal,
    make_clip,
    read_all,
    same_arrays,
)
from wsm_jax.snapshot import FIELDS, WSV, store


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """One finished dataset a layout; tests must not change them."""
    root = tmp_path_factory.mktemp("wsv")
    return {name: build(root / name, layout) for name, layout in LAYOUTS.items()}


@pytest.fixture
def copy(built, tmp_path):
    """A function that gives a copy of a finished dataset, to be damaged."""
    return lambda name: Path(shutil.copytree(built[name], tmp_path / "copy", dirs_exist_ok=True))


# What is written is read.


def test_times_at_equal_intervals_are_told_without_being_read(tmp_path):
    layout = dataclasses.replace(FULL, clips=2, clips_per_shard=2, channels=("depth",))
    for start, even in ((0.0, True), (0.125, False)):
        path = tmp_path / f"{even}"
        clips = [make_clip(layout, 0), make_clip(layout, 1)]
        clips = [dataclasses.replace(c, frame_time=np.arange(layout.frames) / layout.frame_hz) for c in clips]
        clips = [dataclasses.replace(c, core_time=c.core_time + start) for c in clips]
        fill(begin(path, layout), clips.__getitem__)
        ds = Dataset(path)
        assert ds.even == even
        np.testing.assert_array_equal(ds.core(1)[1], ds.core_time(1))
        np.testing.assert_array_equal(ds.core(1, [3, 0, 1])[1], clips[1].core_time[[3, 0, 1]])
        ds = Dataset(path)
        for file in (path / "core_time").glob("c.*"):
            file.unlink()
        if even:
            np.testing.assert_array_equal(ds.core(0, slice(1, 3))[1], clips[0].core_time[1:3])
        else:
            with pytest.raises(ValueError, match="core_time"):
                ds.core(0)


def test_the_text_of_many_shards_is_read_once_and_little_of_it_is_kept(tmp_path, monkeypatch):
    layout = dataclasses.replace(TEXT, clips=90, clips_per_shard=1)
    path, read = build(tmp_path / "ds", layout), []
    checked = Dataset._checked
    monkeypatch.setattr(Dataset, "_checked", lambda ds, key: read.append(key) or checked(ds, key))
    wanted = [make_clip(layout, index).text for index in range(90)]
    monkeypatch.setattr(dataset, "_LINE_CACHE", 1)
    for limit, reads in ((dataset._TEXT_CACHE_BYTES, 1), (100, 3)):
        monkeypatch.setattr(dataset, "_TEXT_CACHE_BYTES", limit)
        read.clear()
        ds = Dataset(path)
        for _ in range(3):
            assert [ds.captions(index) for index in range(90)] == wanted
        assert len(read) == 90 * reads and ds._text_bytes == sum(len(b"\n".join(lines)) + 1 for lines in ds._lines.values())
    assert len(ds._lines) < 3


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


def test_what_a_dataset_does_not_have_is_refused(built):
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
