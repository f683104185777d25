"""What a clip may hold beside equally long videos: fewer frames, views, lenses, signals, pictures kept as they are."""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.wsv import Dataset, Layout, create, picture, verify
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import LINE, Clip, columns
from tests.data_pipelines.datasets import FULL, SOURCES, fill
from tests.data_pipelines.wsv.random_clips import SMALL, make_clip
from wsm_jax.snapshot import FIELDS, WSF, WSV, Camera, Signal, restore, store
from wsm_jax.snapshot.waves import empty

LAYOUT = dataclasses.replace(
    FULL,
    clips=3,
    frames=10,
    height=16,
    width=24,
    frame_hz=5.0,
    frames_per_chunk=4,
    ticks=0,
    waves=0,
    channels=("rgb", "depth"),
    lens=True,
    ragged=True,
    signals=(("action", 7, 12), ("state", 2, 40)),
    measures=("seconds", "sharpness"),
)


def smooth(frames: int, height: int, width: int) -> np.ndarray:
    """A ramp that moves, uint8 [T H W 3]."""
    t, v, u = np.meshgrid(np.arange(frames) / 20, np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return np.uint8(255 * np.clip(np.stack([u, v, 0.3 + 0.4 * u * v + t], -1) * 0.7, 0, 1))


def make(layout: Layout, index: int, frames: int) -> Clip:
    """A clip of so many frames; without the signal "state" where its index is odd."""
    rng = np.random.default_rng(index)
    size = (frames, layout.height, layout.width)
    camera = Camera(
        *(np.float32(rng.normal(size=(frames, n) if n else frames)) for n in (3, 4, 0, 2)),
        distortion=np.float32(rng.normal(size=(frames, 5))) if index else None,
    )
    signals = {"action": Signal(np.arange(3 + index) * 0.2, np.float32(rng.normal(size=(3 + index, 7))))}
    if index % 2 == 0:
        signals["state"] = Signal(np.arange(40) * 0.05, np.float32(rng.normal(size=(40, 2))))
    channels = {"rgb": smooth(*size), "depth": rng.integers(0, 65535, (*size, 1), np.uint16, endpoint=True)}
    channels = {name: values for name, values in channels.items() if name in layout.channels}
    measures = {"seconds": frames / 5, "sharpness": 10.0 * index} if layout.measures else {}
    origin = {"source": index, "start": 0.5 * index}
    time = np.arange(frames) / 5
    return Clip(channels, time, camera, text=("a robot",), signals=signals, measures=measures, origin=origin)


def build(path: Path, layout: Layout, clips: list) -> Dataset:
    fill(create(path, layout, name="test", sources=SOURCES, build={}), clips.__getitem__)
    assert verify(path, progress=False) == []
    return Dataset(path)


@pytest.mark.parametrize("codec", ["array", "jpeg", "h264"])
def test_a_clip_of_fewer_frames_has_only_these(tmp_path, codec):
    layout = dataclasses.replace(LAYOUT, rgb_codec=codec)
    clips = [make(layout, i, frames) for i, frames in enumerate((10, 1, 7))]
    dataset = build(tmp_path / "ds", layout, clips)
    assert dataset.layout == layout and dataset.manifest["counts"]["frames"] == 18
    for i, clip in enumerate(clips):
        assert dataset.frames(i) == clip.frames
        np.testing.assert_array_equal(dataset.frame_time(i), clip.frame_time)
        found = dataset.read(i, ("rgb", "depth"))
        np.testing.assert_array_equal(found["depth"], clip.channels["depth"])
        error = found["rgb"].astype(float) - clip.channels["rgb"]
        # a pixel of 2 x 2 has the colour of its neighbour, which the ramp makes 7 to 11 levels another
        assert np.sqrt(np.mean(error**2)) < {"array": 1e-9, "jpeg": 2.0, "h264": 5.5}[codec]
        camera = dataset.camera(i)
        for name in ("position", "rotation", "focal", "offset"):
            np.testing.assert_array_equal(getattr(camera, name), getattr(clip.camera, name))
        lens = np.zeros((clip.frames, 5)) if clip.camera.distortion is None else clip.camera.distortion
        np.testing.assert_array_equal(camera.distortion, lens)
        with pytest.raises(IndexError, match=rf"it has 0\.\.{clip.frames - 1}"):
            dataset.read(i, ("rgb",), [clip.frames])
        assert dataset.origin(i) == {"source": i, "start": 0.5 * i}
    for name, values in dataset.measures().items():
        np.testing.assert_allclose(values, [clip.measures[name] for clip in clips])
    # padding is not counted
    assert dataset.manifest["statistics"]["channels"]["depth"]["count"] == 18 * 16 * 24


def test_signals_come_back_with_their_times(tmp_path):
    clips = [make(LAYOUT, i, 5) for i in range(3)]
    dataset = build(tmp_path / "ds", LAYOUT, clips)
    for i, clip in enumerate(clips):
        found = dataset.signals(i)
        assert set(found) == set(clip.signals)
        for name, signal in clip.signals.items():
            np.testing.assert_array_equal(found[name].time, signal.time)
            np.testing.assert_array_equal(found[name].values, signal.values)
    assert set(dataset.clip(0).check().signals) == {"action", "state"}


def test_what_holds_at_a_time_is_the_last_that_was_given():
    signal = Signal(np.array([0.0, 0.2, 0.4]), np.float32([[1], [2], [3]]))
    np.testing.assert_array_equal(signal.at(np.array([-1, 0, 0.1, 0.2, 0.3999999, 9]))[:, 0], [1, 1, 1, 2, 3, 3])


TIMED = dataclasses.replace(FULL, clips=4, channels=("depth",))
"""Clips with captions that have times, with some that have, with none that has, and without captions."""


def timed(number: int) -> WSV:
    texts = [("a", "b"), ("a", "b", "c"), ("a",), ()][number]
    spans = [((0, 0.5), (0.25, 2.0)), (None, (0.1, 0.3), None), (None,), ()][number]
    depth = np.full((7, 6, 8, 1), 0.001 * number, np.float32)
    camera = Camera(*(np.zeros((7, n) if n else 7, np.float32) for n in (3, 4, 0, 2)))
    return WSV({"depth": depth}, np.arange(7) / 8, camera, empty(3, (9,)), np.arange(9) / 8, texts, spans=spans)


def test_captions_come_back_with_their_times_and_are_written_again_as_they_were(tmp_path):
    dataset = build(tmp_path / "ds", TIMED, [timed(number) for number in range(4)])
    assert [dataset.spans(number) for number in range(4)] == [((0.0, 0.5), (0.25, 2.0)), (None, (0.1, 0.3), None), (), ()]
    for number in range(4):
        found = dataset.clip(number).check()
        assert (found.text, found.spans) == (dataset.captions(number), dataset.spans(number))
        assert dataset.origin(number) == {}
    again = build(tmp_path / "again", TIMED, [dataset.clip(number) for number in range(4)])
    files = [path.relative_to(tmp_path / "ds") for path in (tmp_path / "ds").rglob("*") if path.is_file()]
    assert len(files) > 10 and dataset.manifest["counts"]["captions"] == 6
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "ds" / file).read_bytes(), file
    assert again.manifest == dataset.manifest


def test_a_clip_without_times_of_captions_has_the_line_that_it_always_had(tmp_path):
    build(tmp_path / "ds", TIMED, [timed(number) for number in range(4)])
    lines = [line for file in sorted((tmp_path / "ds" / "text").iterdir()) for line in file.read_bytes().splitlines()]
    assert lines == [
        b'{"captions": ["a", "b"], "events": [], "spans": [[0.0, 0.5], [0.25, 2.0]]}',
        b'{"captions": ["a", "b", "c"], "events": [], "spans": [null, [0.1, 0.3], null]}',
        b'{"captions": ["a"], "events": []}',
        b'{"captions": [], "events": []}',
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spans": ((0.0, 1.0), None)}, "2 spans for 1 texts; needed one a text"),
        ({"spans": ((1.0, 0.5),)}, r"a text from 1\.0 to 0\.5 s; needed numbers, start < end"),
        ({"spans": ((0.0, np.nan),)}, r"a text from 0\.0 to nan s"),
        (
            {"spans": ((0.0, 1.0),), "over": "views"},
            r"captions with times \(\(0\.0, 1\.0\),\); the views of an instant have none",
        ),
        ({"origin": {"spans": []}}, "the keys captions, events, frames, signals, spans are taken"),
    ],
)
def test_times_of_captions_that_cannot_be_are_refused(tmp_path, change, message):
    layout = dataclasses.replace(LAYOUT, over=change.get("over", "time"), signals=())
    given = {key: value for key, value in change.items() if key != "over"}
    clip = dataclasses.replace(make(layout, 0, 3), signals={}, **given)
    writer = create(tmp_path / "ds", layout, name="test", sources=SOURCES, build={})
    with pytest.raises(ValueError, match=rf"ds: clip 0: .*{message}"):
        writer.write(0, [clip, make(layout, 1, 3)])


@pytest.mark.parametrize("run", [1, 4, 10, 99])
def test_any_frames_of_a_run_are_those_of_the_whole(tmp_path, run):
    layout = dataclasses.replace(LAYOUT, rgb_codec="h264", frames_per_chunk=run, height=15, width=17)
    clips = [make(layout, i, frames) for i, frames in enumerate((10, 3, 9))]
    dataset = build(tmp_path / "ds", layout, clips)
    whole = dataset.read(2, ("rgb",))["rgb"]
    assert whole.shape == (9, 15, 17, 3) and np.abs(whole.astype(float) - clips[2].channels["rgb"]).mean() < 4.5
    for frames in (slice(2, 7), [8, 0, 0, 3], [], slice(None, None, 3)):
        index = np.asarray(frames, int) if isinstance(frames, list) else frames
        np.testing.assert_array_equal(dataset.read(2, ("rgb",), frames)["rgb"], whole[index])


def test_pictures_that_are_jpeg_already_are_kept_byte_for_byte(tmp_path):
    layout = dataclasses.replace(LAYOUT, rgb_codec="jpeg", channels=("rgb",))
    pictures = []
    for frame in smooth(10, 16, 24):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=31)
        pictures.append(buffer.getvalue())
    clips = [make(layout, i, 10) for i in range(3)]
    clips[1] = dataclasses.replace(clips[1], channels={}, pictures=pictures)
    dataset = build(tmp_path / "ds", layout, clips)
    assert b"".join(pictures) in (tmp_path / "ds" / records.bytes_file(layout, 0)).read_bytes()
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in pictures])
    np.testing.assert_array_equal(dataset.read(1, ("rgb",))["rgb"], wanted)


def test_a_field_is_a_clip_over_views(tmp_path):
    layout = dataclasses.replace(LAYOUT, over="views", ticks=1, waves=2, signals=(), measures=(), captions=False)
    fields = []
    for index, views in enumerate((4, 10, 1)):
        clip = make(layout, index, views)
        core = empty(2).replace(presence=np.float32([1, 0]), instance=np.int32([70000, 3]))
        channels = {name: restore(name, values) for name, values in clip.channels.items()}
        fields.append(WSF(channels, clip.camera, core))
    dataset = build(tmp_path / "ds", layout, fields)
    for index, field in enumerate(fields):
        found = dataset.field(index).check()
        np.testing.assert_array_equal(store("depth", found.channels["depth"]), store("depth", field.channels["depth"]))
        np.testing.assert_array_equal(found.camera.position, field.camera.position)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found.core, name), getattr(field.core, name))
            assert getattr(found.core, name).dtype == getattr(field.core, name).dtype
    video = build(tmp_path / "video", LAYOUT, [make(LAYOUT, i, 3) for i in range(3)])
    with pytest.raises(ValueError, match="over time; needed views"):
        video.field(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measures": {"seconds": 1.0}}, r"measures \['seconds'\]"),
        ({"signals": {"force": Signal(np.zeros(1), np.zeros((1, 1), np.float32))}}, r"signals \['force'\]"),
        ({"signals": {"state": Signal(np.arange(41.0), np.zeros((41, 2), np.float32))}}, "41 rows, the layout 40"),
        ({"signals": {"state": Signal(np.arange(3.0), np.zeros((3, 9), np.float32))}}, "layout needs"),
        ({"signals": {"state": Signal(np.arange(3.0), np.full((3, 2), np.nan, np.float32))}}, "not finite"),
        ({"frame_time": np.zeros(0), "channels": {}}, "channels"),
        ({"frame_time": np.arange(11.0)}, "11 frames, the layout has 10"),
        ({"pictures": [b"x"] * 5}, "JPEG pictures given"),
        ({"origin": {"x": object()}}, "cannot be stored as JSON"),
        *(({"origin": {key: []}}, "are taken") for key in LINE),
        ({"frame_time": np.float64([0, 1, 2, 2, 3])}, "times of frame_time must increase"),
        ({"frame_time": np.float64([4, 3, 2, 1, 0])}, "times of frame_time must increase"),
        ({"signals": {"state": Signal(np.zeros(3), np.zeros((3, 2), np.float32))}}, "times of signal state must increase"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, words):
    writer = create(tmp_path / "ds", LAYOUT, name="test", sources=SOURCES, build={})
    with pytest.raises(ValueError, match=words):
        writer.write(1, [dataclasses.replace(make(LAYOUT, 2, 5), **changes)])
    assert writer.missing() == [0, 1]


def test_pictures_that_are_kept_are_jpeg_of_the_size_of_the_layout(tmp_path):
    layout = dataclasses.replace(LAYOUT, rgb_codec="jpeg", channels=("rgb",), clips=1)
    writer = create(tmp_path / "ds", layout, name="test", sources=SOURCES, build={})
    good, small = (picture.encode("jpeg", smooth(1, *size)) for size in ((16, 24), (24, 16)))
    buffer, other = io.BytesIO(), io.BytesIO()
    Image.new("L", (24, 16)).save(buffer, "JPEG")
    Image.new("RGB", (24, 16)).save(other, "PNG")
    for bad, words in (
        (small, r"pixels \(H, W\)"),
        (buffer.getvalue(), "JPEG picture is L"),
        (other.getvalue(), "no JPEG"),
        (b"", "no"),
    ):
        clip = dataclasses.replace(make(layout, 0, 2), channels={}, pictures=[good, bad])
        with pytest.raises(ValueError, match=f"clip 0: .*{words}"):
            writer.write(0, [clip])
    assert writer.missing() == [0]


def test_a_label_that_float32_cannot_hold_is_refused():
    waves = empty(2)
    label = {1: np.int32([-(2**24), 2**24]), 0: np.int32([0, 2**24 + 1])}
    assert columns(waves.replace(instance=label[1]), FIELDS)[:, -1].tolist() == label[1].tolist()
    with pytest.raises(ValueError, match=r"field instance holds 0\.\.16777217"):
        columns(waves.replace(instance=label[0]), FIELDS)


def test_a_signal_must_not_have_the_name_of_the_times_of_another():
    with pytest.raises(ValueError, match="name of another's times"):
        dataclasses.replace(LAYOUT, signals=(("a", 1, 1), ("a_time", 1, 1)))


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("layout", {"sound": True}, r"manifest.json: layout keys \['sound'\] are unknown to this release"),
        ("channels", {"heat": {"components": 1, "unit": "K", "dtype": "uint16", "step": 1.0}}, "no channel 'heat'; update"),
    ],
)
def test_what_a_later_release_may_add_is_refused_by_its_name(tmp_path, key, change, words):
    dataset = build(tmp_path / "ds", LAYOUT, [make(LAYOUT, i, 3) for i in range(3)])
    changed = {**dataset.manifest, key: dataset.manifest[key] | change}
    (tmp_path / "ds" / "manifest.json").write_bytes(records.seal(changed))
    with pytest.raises(ValueError, match=words):
        Dataset(tmp_path / "ds")


def test_a_lens_needs_a_layout_with_lenses(tmp_path):
    plain = dataclasses.replace(LAYOUT, lens=False)
    writer = create(tmp_path / "ds", plain, name="test", sources=SOURCES, build={})
    with pytest.raises(ValueError, match="holds pinholes"):
        writer.write(1, [make(plain, 2, 5)])


def test_version_1_is_read_as_it_was_written(tmp_path):
    """version1.zip was written by release 0.1.0 from the clips that random_clips.py makes of this layout."""
    with zipfile.ZipFile(Path(__file__).parent / "version1.zip") as archive:
        archive.extractall(tmp_path / "ds")
    layout = dataclasses.replace(SMALL, frames=3, height=4, width=5, ticks=2, waves=2, frames_per_chunk=2)
    dataset = Dataset(tmp_path / "ds")
    assert dataset.manifest["schema_version"] == 1 and dataset.layout == layout
    assert verify(tmp_path / "ds", progress=False) == []
    for index in range(2):
        wanted, found = make_clip(layout, index), dataset.clip(index)
        assert isinstance(wanted, WSV) and (found.text, found.events) == (wanted.text, wanted.events)
        np.testing.assert_array_equal(found.channels["depth"], wanted.channels["depth"])
        for name in records.CAMERA_FIELDS:
            np.testing.assert_array_equal(getattr(found.camera, name), getattr(wanted.camera, name))
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found.core, name), getattr(wanted.core, name))
        assert dataset.read(index, ("rgb",), [2, 0])["rgb"].shape == (2, 4, 5, 3)
