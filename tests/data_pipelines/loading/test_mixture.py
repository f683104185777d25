"""What sources may be beside plain videos: collections, parts by measure, views, signals, other aspects, damaged clips."""

import dataclasses
import logging
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.loading.source import DatasetSource
from data_pipelines.wsv import Dataset, Layout, create
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.manifest import arrays
from tests.data_pipelines.datasets import FULL, fill, open_clips
from wsm_jax.snapshot import Camera, Signal, rays

VIDEO = dataclasses.replace(
    FULL,
    clips=12,
    frames=10,
    height=8,
    width=12,
    frame_hz=5.0,
    ticks=0,
    waves=0,
    channels=("rgb", "motion"),
    clips_per_shard=4,
    frames_per_chunk=4,
    captions=False,
    lens=True,
    ragged=True,
    signals=(("action", 2, 40),),
    measures=("sharpness",),
)
ASK = {"channels": ("rgb", "motion"), "frames": 3, "frame_hz": None, "height": 8, "width": 12, "ticks": 0, "waves": 1}
ASK |= {"rows": 4, "seed": 1}


def make(layout: Layout, number: int) -> Clip:
    """A clip whose red says which it is, green which frame, blue which column; of 4 to 10 frames."""
    frames = 4 + number % 7
    size = (frames, layout.height, layout.width)
    t, _, x = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    rgb = np.stack([np.full(size, number), t, x], -1).astype(np.uint8)
    motion = np.stack([np.full(size, 100), np.full(size, -40)], -1).astype(np.int16)
    rotation = np.tile(np.float32([1, 0, 0, 0]), (frames, 1))
    camera = Camera(
        np.float32(np.stack([np.full(frames, number), np.arange(frames), np.zeros(frames)], -1)),
        rotation,
        np.full(frames, 1.5, np.float32),
        np.tile(np.float32([0.05, -0.02]), (frames, 1)),
        np.tile(np.float32([0.1, 0, 0, 0.01, 0]), (frames, 1)),
    )
    channels = {name: values for name, values in {"rgb": rgb, "motion": motion}.items() if name in layout.channels}
    steps = np.arange(4 * frames)
    action = {"action": Signal(steps / 20, np.float32(np.stack([np.full(len(steps), number), steps], -1)))}
    measures = {"sharpness": float(number)} if layout.measures else {}
    time = np.arange(frames) / 5 if layout.over == "time" else np.arange(float(frames))
    return Clip(channels, time, camera, signals=action if layout.signals else {}, measures=measures)


def write(path: Path, layout: Layout = VIDEO) -> Path:
    fill(create(path, layout, name=path.name, sources=[], build={}), lambda number: make(layout, number))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "video")


def rows(batches, count):
    for batch in (next(batches) for _ in range(count)):
        for row in range(len(batch["clip"])):
            yield batch, row


def test_actions_are_those_that_hold_at_each_frame(video):
    batches = open_clips([DatasetSource(video)], **ASK, signals=(("action", 2), ("force", 3)))
    for batch, row in rows(batches, 5):
        frames = batch["channels"]["rgb"][row, :, 0, 0, 1].astype(int)
        wanted = np.stack([np.full(3, batch["clip"][row]), 4 * frames], -1)
        assert np.array_equal(batch["signals"]["action"][row], wanted)
        assert batch["known"]["action"][row] and not batch["known"]["force"][row] and not batch["signals"]["force"].any()
    with pytest.raises(ValueError, match="signal 'action' has 2 components; the loader asks for 5"):
        open_clips([DatasetSource(video)], **ASK, signals=(("action", 5),))


def test_short_clips_give_windows_within_their_frames(video):
    seen = set()
    for batch, row in rows(open_clips([DatasetSource(video)], **ASK), 30):
        number, frames = int(batch["clip"][row]), batch["channels"]["rgb"][row, :, 0, 0, 1].astype(int)
        assert np.array_equal(np.diff(frames), [1, 1]) and frames[-1] < 4 + number % 7
        seen.add((number, int(frames[0])))
    assert len(seen) > 40
    with pytest.raises(ValueError, match=r"4 frames at 5 Hz.*5 frames"):
        open_clips([DatasetSource(video)], **{**ASK, "frames": 5})


@pytest.mark.parametrize("frame_hz", [None, 2.5])
def test_frames_at_uneven_times_are_the_nearest_and_tell_their_times(tmp_path, frame_hz):
    layout = dataclasses.replace(VIDEO, ragged=False, camera=False, lens=False, signals=(), measures=())
    shift = np.random.default_rng(3).uniform(-0.04, 0.04, (layout.clips, layout.frames))  # s; a period is 0.2 s
    times = np.arange(layout.frames) / 5 + shift

    def one(number: int) -> Clip:
        whole = make(dataclasses.replace(layout, ragged=True), 6)  # of ten frames
        channels = {"rgb": whole.channels["rgb"].copy(), "motion": whole.channels["motion"]}
        channels["rgb"][..., 0] = number
        return Clip(channels, times[number])

    fill(create(tmp_path / "uneven", layout, name="uneven", sources=[], build={}), one)
    assert not Dataset(tmp_path / "uneven").even and Dataset(write(tmp_path / "even")).even
    asked = ASK | {"frame_hz": frame_hz}
    for batch, row in rows(open_clips([DatasetSource(tmp_path / "uneven")], **asked), 30):
        time, frames = times[int(batch["clip"][row])], batch["channels"]["rgb"][row, :, 0, 0, 1].astype(int)
        np.testing.assert_allclose(batch["frame_time"][row], time[frames] - time[frames[0]], atol=1e-6)
        wanted = time[frames[0]] + np.arange(3) / (frame_hz or 5.0)
        assert np.array_equal(frames, np.abs(time - wanted[:, None]).argmin(1))


@pytest.mark.parametrize("crop", ["middle", "random"])
def test_a_picture_of_another_aspect_is_cut_and_its_camera_with_it(video, crop):
    places = set()
    whole = make(VIDEO, 0).camera[0]
    sight = np.asarray(rays(whole, 8, 12)[1])
    for batch, row in rows(open_clips([DatasetSource(video)], **{**ASK, "width": 8}, crop=crop), 12):
        blue = batch["channels"]["rgb"][row, ..., 2].astype(int)
        left = int(blue[0, 0, 0])
        assert np.array_equal(blue, np.broadcast_to(left + np.arange(8), (3, 8, 8))), "the same place in all frames"
        places.add(left)
        fields = {name: np.asarray(values[row, 0]) for name, values in batch["camera"].items()}
        np.testing.assert_allclose(rays(Camera(**fields), 8, 8)[1], sight[:, left : left + 8], atol=1e-5)
        assert (batch["channels"]["motion"][row] == [100, -40]).all(), "no row is cut: heights are what they were"
    assert places == ({2} if crop == "middle" else {0, 1, 2, 3, 4})
    batch = next(open_clips([DatasetSource(video)], **{**ASK, "height": 4}, crop=crop))  # 8 x 12 cut to 4 x 12
    assert (batch["channels"]["motion"] == [200, -80]).all(), "heights of the picture are half as many metres now"


def test_views_are_drawn_without_repeats(tmp_path):
    layout = dataclasses.replace(VIDEO, over="views", signals=(), measures=(), channels=("rgb",))
    batches = open_clips([DatasetSource(write(tmp_path / "views", layout))], **{**ASK, "frames": 4})
    drawn = set()
    for batch, row in rows(batches, 12):
        views = batch["channels"]["rgb"][row, :, 0, 0, 1].astype(int)
        assert len(set(views.tolist())) == 4 and views.max() < 4 + int(batch["clip"][row]) % 7
        assert np.array_equal(batch["camera"]["position"][row, :, 1], views) and not batch["frame_time"][row].any()
        drawn.add(tuple(views))
    assert len(drawn) > 30


@pytest.mark.parametrize("threads", [0, 2])
def test_a_damaged_clip_ends_the_run_or_is_passed_over_and_named(tmp_path, caplog, threads):
    path = write(tmp_path / "ds")
    file = path / arrays(VIDEO)["channels/rgb"].file(1)
    data = bytearray(file.read_bytes())
    data[:-196] = bytes(len(data) - 196)  # chunks, not their index
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"channels/rgb/c\.1.*damaged"):
        list(open_clips([DatasetSource(path)], **ASK, epochs=1, threads=threads))
    with caplog.at_level(logging.WARNING):
        batches = open_clips([DatasetSource(path)], **ASK, epochs=1, threads=threads, damaged="skip")
        found = list(batches)
    clips = [int(clip) for batch in found for clip in batch["clip"]]
    assert len(clips) == 12 and not set(clips) & {4, 5, 6, 7} and set(clips) == {0, 1, 2, 3, 8, 9, 10, 11}
    assert len(batches.skipped) >= 4 and all("c.1" in line for line in batches.skipped) and "skipped" in caplog.text
    halves = [list(open_clips([DatasetSource(path)], **ASK, epochs=1, damaged="skip", host=h, hosts=2)) for h in (0, 1)]
    joined = [int(c) for pair in zip(*halves, strict=True) for half in pair for c in half["clip"]]
    assert joined == clips, "what stands in does not depend on hosts"


def test_where_every_clip_is_damaged_the_run_ends(tmp_path):
    layout = dataclasses.replace(VIDEO, clips=4)
    path = write(tmp_path / "ds", layout)
    (path / arrays(layout)["channels/rgb"].file(0)).write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        next(open_clips([DatasetSource(path)], **ASK, damaged="skip"))


def test_events_are_those_within_the_window(tmp_path):
    layout = dataclasses.replace(VIDEO, signals=(), measures=(), ragged=False, clips=4)
    writer = create(tmp_path / "ds", layout, name="ds", sources=[], build={})
    happened = [{"kind": kind, "time": 0.2 * k, "instances": [k, 9][: 1 + k % 2]} for k, kind in enumerate("abcabcabca")]
    clip = dataclasses.replace(make(dataclasses.replace(VIDEO, signals=(), measures=()), 6), events=tuple(happened))
    writer.write(0, [clip] * 4)
    writer.finish()
    for batch, row in rows(open_clips([DatasetSource(tmp_path / "ds")], **ASK, events=("c", "a")), 8):
        first = int(batch["channels"]["rgb"][row, 0, 0, 0, 1])
        wanted = [(k, happened[k]) for k in range(first, first + 3) if happened[k]["kind"] in "ac"]
        found = {name: values[row] for name, values in batch["events"].items()}
        assert found["kind"].tolist() == ["ca".index(e["kind"]) for _, e in wanted] + [-1] * (8 - len(wanted))
        np.testing.assert_allclose(found["time"][: len(wanted)], [0.2 * (k - first) for k, _ in wanted], atol=1e-6)
        assert [list(x) for x in found["instances"][: len(wanted)]] == [[k, 9 * (k % 2)] for k, _ in wanted]


@pytest.mark.parametrize("threads", [0, 2])
def test_what_is_held_is_a_bound(tmp_path, threads):
    """What NumPy has allocated, as Python's own count tells, while batches are made and dropped."""
    path = write(tmp_path / "large", dataclasses.replace(VIDEO, height=128, width=192, clips=4))
    asked = ASK | {"height": 128, "width": 192}
    next(open_clips([DatasetSource(path)], **asked))  # what is made once is not counted
    batches = open_clips([DatasetSource(path)], **asked, threads=threads)
    assert batches.held_bytes == 0
    tracemalloc.start()
    try:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(next(batches)))
        for _ in range(30):
            next(batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        batches.close()
    assert size < peak < batches.held_bytes + 2**20  # chunks are decoded one by one
    assert batches.held_bytes < 4 * (threads + 1) * size


def test_aligned_windows_begin_with_a_chunk(video):
    frames = [b["channels"]["rgb"][r, 0, 0, 0, 1] for b, r in rows(open_clips([DatasetSource(video)], **ASK, aligned=True), 12)]
    assert set(frames) == {0, 4}
