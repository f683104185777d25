"""Media as they come: varying rates, turned phones, odd sizes, deep, grey and clear pictures, masks; through a whole build."""

import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.build import Report
from data_pipelines.ingest.find import Candidate, Rejection
from data_pipelines.ingest.plan import Filters
from data_pipelines.ingest.scan import ReaderOptions, digest, reopen, scan_candidate
from tests.data_pipelines.ingest.films import encoded, pattern
from tests.data_pipelines.ingest.run_ingest import run_ingest
from tests.data_pipelines.recording.label_film import label_film


def ingest(inputs, out, bucket="16x16@8x0.5", **changes) -> Report:
    given = {"buckets": [Bucket.parse(bucket)], "codec": "array", "filters": Filters(shots=False), "progress": False}
    return run_ingest(inputs, out, name="media", licence="CC0-1.0", **{**given, **changes})


def built(path: Path, out: Path, **changes) -> tuple[np.ndarray, list[str]]:
    """All pictures of the clips of one recording, and its notes."""
    (source,) = ingest([path], out, **changes).manifest["sources"]
    dataset = wsv.Dataset(out)
    return np.concatenate([dataset.read(i, ["rgb"])["rgb"] for i in range(len(dataset))]), source["notes"]


def flat(levels, size=(16, 16)) -> np.ndarray:
    """Grey pictures that tell their number."""
    return np.stack([np.full((*size, 3), level, np.uint8) for level in levels])


def test_varying_rates_are_shown_as_a_player_does(tmp_path):
    times = np.cumsum([0, 40, 40, 200, 40, 40, 40, 300, 20, 20, 100, 100, 60, 60, 90, 20, 20, 70])
    levels = 20 + 12 * np.arange(len(times))
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=1000, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, milliseconds in zip(flat(levels), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(milliseconds), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    pictures, _ = built(tmp_path / "a.mp4", tmp_path / "out")
    shown = [np.flatnonzero(times / 1000 <= k / 8 + 1e-3)[-1] for k in range(8)]
    assert np.rint((pictures.mean((1, 2, 3)) - 20) / 12).astype(int).tolist() == shown


def test_a_turned_phone_gives_upright_clips(tmp_path):
    film = np.zeros((12, 32, 48, 3), np.uint8)
    film[:, :16, :24] = 220  # the top left quarter
    path = encoded(tmp_path / "a.mp4", film, 8)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # clockwise
    path.write_bytes(data)
    pictures, _ = built(path, tmp_path / "out", bucket="24x16@8x0.5")
    assert pictures.shape[1:] == (24, 16, 3)
    np.testing.assert_allclose(pictures[0, [4, 4, 20, 20], [4, 12, 4, 12], 0], [0, 220, 0, 0], atol=12)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix", "size"),
    [
        ("libx264", "yuv444p", "mp4", (17, 33)),
        ("libx264", "yuv420p10le", "mp4", (18, 34)),
        ("libx264", "gray", "mp4", (18, 34)),
        ("libvpx-vp9", "yuv420p", "webm", (17, 33)),
        ("libvpx-vp9", "yuva420p", "webm", (18, 34)),
        ("ffv1", "yuv422p10le", "mkv", (17, 35)),
        ("mpeg4", "yuv420p", "mov", (19, 31)),
        ("prores_ks", "yuva444p10le", "mov", (18, 34)),
        ("qtrle", "argb", "mov", (18, 34)),
        ("ffv1", "gray16le", "mkv", (18, 34)),
    ],
)
def test_sizes_depths_and_kinds_of_pixels(tmp_path, codec, pixels, suffix, size):
    film = flat(30 + 20 * np.arange(10), size)
    path = encoded(tmp_path / f"a.{suffix}", film, 8, codec=codec, pixels=pixels)
    pictures, notes = built(path, tmp_path / "out")
    np.testing.assert_allclose(pictures.mean((1, 2, 3)), 30 + 20 * np.arange(8), atol=3)
    assert np.ptp(pictures.astype(int), axis=(1, 2, 3)).max() <= 6
    assert ("its transparency is left out" in notes) == ("a" in pixels.replace("gray", ""))


def test_transparent_and_deep_frames(tmp_path):
    for kind in ("clear", "deep", "grey"):
        (tmp_path / kind).mkdir()
        for i in range(8):
            if kind == "clear":
                picture = Image.fromarray(np.uint8([[[20 * i, 40, 60, 255], [200, 200, 200, 0]]]).repeat(8, 0).repeat(4, 1))
            elif kind == "deep":
                picture = Image.fromarray(np.full((8, 8), 257 * 20 * i, np.uint16))
            else:
                picture = Image.fromarray(np.full((8, 8), 20 * i, np.uint8))
            picture.save(tmp_path / kind / f"{i}.png")
    how = ReaderOptions(fps=8)
    for kind in ("clear", "deep", "grey"):
        pictures, notes = built(tmp_path / kind, tmp_path / f"{kind}_out", bucket="8x8@8x0.5", reader=how)
        np.testing.assert_array_equal(pictures[:, 0, 0, 0], 20 * np.arange(8))
        assert (notes == ["8 frames are transparent in parts, which are black"]) == (kind == "clear")
        if kind == "clear":
            assert not pictures[:, :, 4:].any()


def test_a_video_that_changes_its_size_is_left_out(tmp_path):
    one = encoded(tmp_path / "one.mkv", pattern(8, (32, 32)), 8, codec="libvpx")
    two = encoded(tmp_path / "two.mkv", pattern(8, (16, 48)), 8, codec="libvpx")
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream, at = None, 0
        for path in (one, two):
            with av.open(str(path)) as given:
                stream = stream or out.add_stream_from_template(given.streams.video[0])
                for packet in given.demux(video=0):
                    if packet.dts is not None:
                        packet.pts = packet.dts = packet.dts + at
                        packet.stream = stream
                        out.mux(packet)
            at += 1000
    found = scan_candidate(Candidate(tmp_path / "a.mkv", "video", "a.mkv"), ReaderOptions(), 0)
    assert isinstance(found, Rejection)
    assert "a.mkv: its pictures are 32 x 32 pixels, from 1.000 s on 16 x 48; needed one size" in found.reason


def test_frames_late_in_a_video_that_begins_in_the_middle(tmp_path):
    """PlannedClip without its first key frame, it shows nothing at first: what is sought by time is what was scanned."""
    film = flat(30 + np.arange(96) * 2)
    whole = encoded(tmp_path / "whole.mkv", film, 12, group=6)
    with av.open(str(whole)) as given, av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.dts is not None and number >= 1:
                packet.stream = stream
                out.mux(packet)
    candidate = Candidate(tmp_path / "a.mkv", "video", "a.mkv")
    result = scan_candidate(candidate, ReaderOptions(), 0)
    assert not isinstance(result, Rejection), result
    recording = reopen(candidate, ReaderOptions(), result[0])
    count = len(recording.time)
    every = [float(found["rgb"].mean()) for found in recording.pictures(range(count))]
    late = [float(found["rgb"].mean()) for found in recording.pictures(range(count - 20, count))]
    np.testing.assert_array_equal(late, every[-20:])


def test_a_damaged_picture_that_the_decoder_notices_ends_a_video(tmp_path):
    """It does not notice all: some bytes decode to other pictures. What it does is the same whenever it is read."""
    film = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    path = encoded(tmp_path / "a.mp4", film, 8, group=4)
    whole, candidate, noticed = path.read_bytes(), Candidate(path, "video", "a.mp4"), 0
    for place in np.linspace(0.3, 0.9, 20):
        at = int(place * len(whole))
        path.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
        found = scan_candidate(candidate, ReaderOptions(), 0)
        assert scan_candidate(candidate, ReaderOptions(), 0) == found
        if isinstance(found, Rejection) and "is damaged" in found.reason:
            noticed += 1
            assert "a.mp4: ends early" in found.reason
            kept = scan_candidate(candidate, ReaderOptions(allow_truncated=True), 0)
            if not isinstance(kept, Rejection):
                assert 2 <= len(kept[0].time) < 16
                assert "is damaged" in kept[0].notes[0]
    assert noticed


def test_times_that_repeat_are_noted(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for i, milliseconds in enumerate([0, 125, 125, 250, 200, 375, 500, 625, 750, 875]):
            for packet in stream.encode(av.VideoFrame.from_ndarray(flat([20 * i])[0], format="rgb24")):
                packet.pts, packet.dts, packet.time_base = milliseconds, i, Fraction(1, 1000)
                file.mux(packet)
    found = scan_candidate(Candidate(tmp_path / "a.mkv", "video", "a.mkv"), ReaderOptions(), 0)
    assert not isinstance(found, Rejection)
    assert len(found[0].time) == 8
    assert found[0].notes == ("2 frames that are shown no later than the one before are left out",)


@pytest.mark.parametrize("codec", ["jpeg", "h264", "array"])
def test_codecs(tmp_path, codec):
    film = pattern(24, (32, 32))
    report = ingest([encoded(tmp_path / "a.mp4", film, 8)], tmp_path / "out", bucket="32x32@8x1", codec=codec)
    assert wsv.verify(tmp_path / "out", progress=False) == []
    dataset = wsv.Dataset(tmp_path / "out")
    pictures = np.concatenate([dataset.read(i, ["rgb"])["rgb"] for i in range(3)]).astype(float)
    assert 10 * np.log10(255**2 / np.mean((pictures - film) ** 2)) > 30
    assert report.manifest["counts"]["frames"] == 24


def masked(folder: Path, count: int, size=(32, 32)) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        values = np.zeros(size, np.uint8)
        values[:, i : i + 8] = i + 1
        picture = Image.fromarray(values, "P")
        picture.putpalette(bytes(range(256)) * 3)
        picture.save(folder / f"{i:05d}.png")


def test_masks_are_a_channel(tmp_path):
    """A video and frames with masks, one without, one with too few: two datasets and a rejection by name."""
    root = tmp_path / "in"
    (root / "bear").mkdir(parents=True)
    for i, picture in enumerate(pattern(8, (32, 32), 3)):
        Image.fromarray(picture).save(root / "bear" / f"{i:05d}.jpg")
    for name in ("a", "b", "few"):
        encoded(root / f"{name}.mp4", pattern(8, (32, 32), len(name) + ord(name[0])), 8)
    for name, count in (("bear", 8), ("a", 8), ("few", 7), ("spare", 2)):
        masked(tmp_path / "masks" / name, count)
    report = ingest(
        [root],
        tmp_path / "out",
        bucket="32x32@8x1",
        masks=tmp_path / "masks",
        reader=ReaderOptions(fps=8),
        captions={"a.mp4": ["🐻"]},
    )
    assert sorted(report.manifests) == ["32x32_8hz_1s_rgb", "32x32_8hz_1s_rgb_instance"]
    assert {one.name: one.reason for one in report.rejected} == {
        "masks/spare": "masks of no recording",
        "in/few.mp4": "few: has 7 masks (png); needed 8, one for every frame of in/few.mp4",
    }
    for folder in report.manifests:
        assert wsv.verify(tmp_path / "out" / folder, progress=False) == []
    dataset = wsv.Dataset(tmp_path / "out" / "32x32_8hz_1s_rgb_instance")
    assert dataset.layout.channels == ("rgb", "instance")
    assert [source["name"] for source in dataset.manifest["sources"]] == ["in/a.mp4", "in/bear"]
    for clip in range(2):
        found = dataset.read(clip, ["instance"])["instance"][..., 0]
        for i in range(8):
            assert set(np.unique(found[i, :, i : i + 8])) == {i + 1}
            assert (found[i] > 0).sum() == 8 * 32
    assert [dataset.captions(i) for i in range(2)] == [("🐻",), ()]
    text = json.dumps([report.manifests, [one.reason for one in report.rejected]])
    assert str(tmp_path) not in text
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; needed masks"):
        ingest([root], tmp_path / "other", masks=tmp_path / "nowhere")


def packed(folder: Path, suffix: str) -> None:
    """The masks of a folder as one file instead."""
    values = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])
    shutil.rmtree(folder)
    if suffix == ".mkv":
        label_film(folder.with_suffix(suffix), values, "ffv1", "gray")
    else:
        (np.save if suffix == ".npy" else np.savez)(folder.with_suffix(suffix), values)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mkv"])
def test_masks_of_every_kind_make_the_same_instances(tmp_path, suffix):
    """And another source, for its sha256 is of all that it is read from."""
    encoded(tmp_path / "a.mp4", pattern(16, (32, 32)), 8)
    masked(tmp_path / "masks" / "a", 16)
    plain = ingest([tmp_path / "a.mp4"], tmp_path / "plain", bucket="32x32@8x1", masks=tmp_path / "masks").manifest
    packed(tmp_path / "masks" / "a", suffix)
    other = ingest([tmp_path / "a.mp4"], tmp_path / "other", bucket="32x32@8x1", masks=tmp_path / "masks").manifest
    keys = [key for key in plain["files"] if key.startswith("channels/")]
    assert {key: plain["files"][key] for key in keys} == {key: other["files"][key] for key in keys}
    assert len(keys) > 2 and plain["statistics"]["channels"]["instance"]["max"] == [16]
    sums = [source["sha256"] for manifest in (plain, other) for source in manifest["sources"]]
    assert sums[0] != sums[1] == digest((tmp_path / "a.mp4", tmp_path / "masks" / f"a{suffix}"))


def test_a_damaged_mask_is_named_before_anything_is_cut(tmp_path):
    encoded(tmp_path / "a.mp4", pattern(8, (32, 32)), 8)
    masked(tmp_path / "masks" / "a", 8)
    file = tmp_path / "masks" / "a" / "00003.png"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a/00003\.png: cannot be read as a picture"):
        ingest([tmp_path / "a.mp4"], tmp_path / "out", masks=tmp_path / "masks")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".npz", ".mkv"])
def test_a_damaged_file_of_masks_is_named_before_anything_is_cut(tmp_path, suffix):
    encoded(tmp_path / "a.mp4", pattern(16, (32, 32)), 8)
    masked(tmp_path / "masks" / "a", 16)
    packed(tmp_path / "masks" / "a", suffix)
    file = tmp_path / "masks" / f"a{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"a\.mp4: masks/a\{suffix}: (cannot be|has 4 masks)") as caught:
        ingest([tmp_path / "a.mp4"], tmp_path / "out", masks=tmp_path / "masks")
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "out").exists()
