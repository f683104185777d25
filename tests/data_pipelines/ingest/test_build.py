"""Ingest: the dataset holds the very frames of the video, says where they come from, and bad input leaves nothing behind."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.caption import Cue
from data_pipelines.ingest.plan import Filters
from data_pipelines.ingest.scan import ReaderOptions
from data_pipelines.recording.video import frames, sample, scan
from tests.data_pipelines.ingest.run_ingest import run_ingest
from wsm_jax.visualise.video import write_video

ARGUMENTS = {"name": "tiny", "licence": "CC0-1.0", "codec": "array", "progress": False}
TINY = Bucket(16, 16, 8, 0.5)


def ingest(inputs, out, bucket=TINY, fps=None, allow_truncated=False, **changes):
    """`run_ingest` of one bucket; no shots, for the films of these tests are wild."""
    given = {
        "buckets": [bucket],
        "reader": ReaderOptions(fps, allow_truncated),
        "filters": Filters(shots=False),
        "strict": True,
    }
    return run_ingest(inputs, out, **{**ARGUMENTS, **given, **changes}).manifest


def film(path: Path, count: int, seed: int = 0, fps: float = 24) -> Path:
    """A smooth moving pattern, other for every seed."""
    y, x = np.mgrid[:36, :64]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    pictures = [
        np.stack([np.sin(x / 9 + i / 4 + phase[0]), np.cos(y / 7 + phase[1] + i / 9), np.sin(phase[2] + (x + y) / 11)], -1)
        for i in range(count)
    ]
    write_video(path, np.rint(127.5 + 100 * np.asarray(pictures)).astype(np.uint8), fps)
    return path


def test_clips_are_the_frames_of_the_videos_in_order(tmp_path):
    paths = [film(tmp_path / "a.mp4", 45), film(tmp_path / "b.mp4", 30, 1)]
    stills = tmp_path / "stills"
    stills.mkdir()
    for i in range(9):
        Image.fromarray(np.full((20, 20, 3), 9 * i, np.uint8)).save(stills / f"{i}.{('png', 'webp')[i % 2]}", lossless=True)
    manifest = ingest([*paths, stills], tmp_path / "out", fps=10)
    dataset = wsv.Dataset(tmp_path / "out")
    assert dataset.manifest == manifest
    assert wsv.verify(tmp_path / "out", progress=False) == []
    assert dataset.layout.channels == ("rgb",)
    assert (dataset.layout.ticks, dataset.layout.camera, dataset.layout.captions) == (0, False, False)
    videos = [scan(paths[0]), scan(paths[1]), scan(stills, fps=10)]
    clips = []
    for video in videos:
        pictures = np.stack(list(frames(video, sample(video, 8), 16, 16)))
        clips += [pictures[i : i + 4] for i in range(0, len(pictures) - 3, 4)]
    assert len(dataset) == len(clips) == 3 + 2 + 2
    for index, clip in enumerate(clips):
        np.testing.assert_array_equal(dataset.read(index, ["rgb"])["rgb"], clip)
        np.testing.assert_allclose(dataset.frame_time(index), np.arange(4) / 8)


def test_provenance_is_exact_and_names_no_directory(tmp_path):
    path = film(tmp_path / "a.mp4", 45)
    manifest = ingest([path], tmp_path / "out")
    (source,) = manifest["sources"]
    assert source["name"] == "a.mp4"
    assert source["licence"] == "CC0-1.0"
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source["height"], source["width"], source["frames"], source["clips"]) == (36, 64, 45, 3)
    assert (source["fps"], source["seconds"], source["seconds_used"]) == pytest.approx((24, 45 / 24, 1.5))
    assert str(tmp_path) not in json.dumps(manifest)


@pytest.mark.parametrize("codec", ["array", "h264"])
def test_so_many_frames_are_kept_together_as_are_asked_for(tmp_path, codec):
    path = film(tmp_path / "a.mp4", 60)
    pictures = {}
    for asked, kept in ((None, 8), (1, 1), (5, 5), (12, 12), (99, 16)):
        ingest([path], tmp_path / f"{asked}", Bucket(16, 16, 16, 1.0), codec=codec, frames_per_chunk=asked)
        dataset = wsv.Dataset(tmp_path / f"{asked}")
        assert dataset.layout.frames_per_chunk == kept and wsv.verify(tmp_path / f"{asked}", progress=False) == []
        pictures[kept] = dataset.read(1, ["rgb"], slice(3, 14))["rgb"].astype(int)
    for found in pictures.values():
        assert np.abs(found - pictures[8]).mean() <= (0 if codec == "array" else 5)


def test_jpeg_stays_close(tmp_path):
    path = film(tmp_path / "a.mp4", 45)
    for codec in ("array", "jpeg"):
        ingest([path], tmp_path / codec, codec=codec)
    exact, lossy = (wsv.Dataset(tmp_path / codec).read(0, ["rgb"])["rgb"].astype(float) for codec in ("array", "jpeg"))
    assert 10 * np.log10(255**2 / np.mean((exact - lossy) ** 2)) > 35


def test_captions_go_with_their_video(tmp_path):
    paths = [film(tmp_path / "a.mp4", 15), film(tmp_path / "b.mp4", 30, 1)]
    ingest(paths, tmp_path / "out", captions={"b.mp4": ["waves", "colours that move"]})
    dataset = wsv.Dataset(tmp_path / "out")
    assert [dataset.captions(i) for i in range(len(dataset))] == [(), *[("waves", "colours that move")] * 2]


def test_a_killed_build_goes_on_and_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    paths = [film(tmp_path / "a.mp4", 45), film(tmp_path / "b.mp4", 45, 1)]
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 2 * 4 * 16 * 16 * 3)  # two clips a shard
    whole = ingest(paths, tmp_path / "whole")
    write = wsv.Writer.write

    def killed(self, shard, clips):
        if shard == 1:
            raise KeyboardInterrupt
        write(self, shard, clips)

    with monkeypatch.context() as patch:
        patch.setattr(wsv.Writer, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(paths, tmp_path / "out")
    with pytest.raises(ValueError, match="unfinished"):
        wsv.Dataset(tmp_path / "out")
    with pytest.raises(ValueError, match="another build is unfinished"):
        ingest(paths[:1], tmp_path / "out")
    assert ingest(paths, tmp_path / "out")["files"] == whole["files"]
    assert ingest(paths, tmp_path / "out") == wsv.Dataset(tmp_path / "out").manifest, "what is finished stays"
    with pytest.raises(ValueError, match="finished dataset is here"):
        ingest(paths[:1], tmp_path / "out")
    assert not list(tmp_path.glob("*.scan"))


def test_a_truncated_video_is_refused_or_kept_in_part(tmp_path):
    whole = film(tmp_path / "whole.mp4", 48)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"cut\.mp4: ends early: the container promises 48 frames, .* allow_truncated"):
        ingest([whole, tmp_path / "cut.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = ingest([tmp_path / "cut.mp4"], tmp_path / "out", allow_truncated=True)
    (source,) = manifest["sources"]
    assert "promises 48 frames" in source["notes"][0]
    assert 12 <= source["frames"] < 48
    ingest([whole], tmp_path / "reference")
    one, two = (wsv.Dataset(tmp_path / name).read(0, ["rgb"])["rgb"] for name in ("out", "reference"))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("error", "match", "inputs", "changes"),
    [
        (ValueError, "no inputs; needed at least one recording", [], {}),
        (FileNotFoundError, r"gone\.mp4: no such file", ["a.mp4", "gone.mp4"], {}),
        (ValueError, r"text\.mp4: is no video", ["a.mp4", "text.mp4"], {}),
        (ValueError, r"one\.mp4: has 1 frame; needed", ["a.mp4", "one.mp4"], {}),
        (
            ValueError,
            r"a\.mp4: lasts 0\.500 s, 4 frames at 8 Hz; needed 16 frames \(2 s\) for one clip",
            ["a.mp4"],
            {"bucket": Bucket(16, 16, 8, 2)},
        ),
        (ValueError, r"2/a\.mp4: is the same recording as 1/a\.mp4", ["a.mp4", "a.mp4"], {}),
        (
            ValueError,
            r"a\.mp4: has 24 frames a second; needed at least the 60",
            ["a.mp4"],
            {"bucket": Bucket(16, 16, 60, 0.1)},
        ),
        (ValueError, "are 2.4 frames; needed a whole number", ["a.mp4"], {"bucket": Bucket(16, 16, 8, 0.3)}),
        (ValueError, "licence is empty", ["a.mp4"], {"licence": " "}),
        (ValueError, "frames_per_chunk 0; needed 1 or more", ["a.mp4"], {"frames_per_chunk": 0}),
        (ValueError, "no input is one", ["a.mp4"], {"fps": 8}),
        (ValueError, "rgb_codec must be array, jpeg or h264", ["a.mp4"], {"codec": "gif"}),
        (KeyError, r"'b\.mp4' names 0 of the inputs, needed 1; is it 'a\.mp4'", ["a.mp4"], {"captions": {"b.mp4": ["x"]}}),
        (ValueError, r"a text of 'a\.mp4' has 0 bytes", ["a.mp4"], {"captions": {"a.mp4": [""]}}),
        (ValueError, r"a text of 'a\.mp4' has 600 bytes.*needed 1 to 512", ["a.mp4"], {"captions": {"a.mp4": ["é" * 300]}}),
        (ValueError, "needed a list of texts", ["a.mp4"], {"captions": {"a.mp4": "one text"}}),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, error, match, inputs, changes):
    film(tmp_path / "a.mp4", 12)
    film(tmp_path / "one.mp4", 1)
    (tmp_path / "text.mp4").write_text("this is no video\n" * 30)
    with pytest.raises(error, match=match):
        ingest([tmp_path / name for name in inputs], tmp_path / "out", **changes)
    assert not list(tmp_path.glob("out*"))


def test_real_video(tmp_path, real_data):
    path = real_data / "video" / "juggle.mp4"
    size = {"bucket": Bucket(24, 32, 2, 2.5), "codec": "jpeg"}
    manifest = ingest([path], tmp_path / "out", **size)
    assert manifest["sources"][0]["clips"] == 4
    dataset = wsv.Dataset(tmp_path / "out")
    pictures = np.stack([np.asarray(dataset.clip(i).channels["rgb"]) for i in range(4)])
    assert pictures.shape == (4, 5, 24, 32, 3)
    assert 0.1 < pictures.mean() < 0.9
    assert np.abs(np.diff(pictures, axis=1)).mean() > 1e-3  # something moves
    assert wsv.verify(tmp_path / "out", progress=False) == []


def test_text_beside_a_video_is_its_captions(tmp_path):
    for name in ("a", "b", "c"):
        film(tmp_path / f"{name}.mp4", 15, ord(name))
    (tmp_path / "a.txt").write_text("ein Ball 🎾\n\nbola merah\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("long " * 200 + "\nshort", encoding="utf-8")
    manifest = ingest([tmp_path], tmp_path / "out", captions={"c.mp4": ["كرة"]})
    dataset = wsv.Dataset(tmp_path / "out")
    assert [dataset.captions(i) for i in range(3)] == [("ein Ball 🎾", "bola merah"), ("short",), ("كرة",)]
    assert [source["notes"] for source in manifest["sources"]] == [[], ["1 captions of more than 512 bytes are left out"], []]
    (tmp_path / "a.txt").write_bytes(b"\xff")
    other = ingest([tmp_path / "a.mp4"], tmp_path / "other")
    note = "a.txt is left out: no text in UTF-8 or UTF-16 (invalid start byte at byte 0)"
    assert [source["notes"] for source in other["sources"]] == [[note]]


SRT = "\n\n".join(
    f"{number}\n00:00:0{start} --> 00:00:0{end}\n{text}"
    for number, (start, end, text) in enumerate(
        [("0,200", "0,700", "hello"), ("1,000", "9,000", "bye"), ("2,000", "3,000", "late")], 1
    )
)


@pytest.mark.parametrize("fps", [4, 8])
def test_a_caption_with_times_goes_to_the_clips_that_it_shares_time_with(tmp_path, fps):
    """PlannedClip to each, whatever the rate; what has no times goes to all, and what begins after the end is noted."""
    film(tmp_path / "a.mp4", 48)  # 2 s
    (tmp_path / "a.txt").write_text("colours")
    (tmp_path / "a.srt").write_text(SRT)
    manifest = ingest([tmp_path / "a.mp4"], tmp_path / "out", bucket=Bucket(16, 16, fps, 0.5))
    dataset = wsv.Dataset(tmp_path / "out")
    assert [(dataset.captions(i), dataset.spans(i)) for i in range(4)] == [
        (("colours", "hello"), (None, (0.2, 0.5))),
        (("colours", "hello"), (None, (0.0, 0.2))),
        *[(("colours", "bye"), (None, (0.0, 0.5)))] * 2,
    ]
    assert manifest["counts"]["captions"] == 8
    late = "1 captions begin at its end (2.000 s) or later and are left out, the first at 2 s (a.srt: line 10)"
    assert manifest["sources"][0]["notes"] == [late]
    assert wsv.verify(tmp_path / "out", progress=False) == []

    given = ["colours", Cue("hello", 0.2, 0.7), Cue("bye", 1, 9), Cue("late", 2, 3, "c.jsonl: line 4")]
    again = ingest([tmp_path / "a.mp4"], tmp_path / "again", bucket=Bucket(16, 16, fps, 0.5), captions={"a.mp4": given})
    key = "text/000000.jsonl"
    assert (tmp_path / "again" / key).read_bytes() == (tmp_path / "out" / key).read_bytes()
    assert again["sources"][0]["notes"] == [late, late.replace("a.srt: line 10", "c.jsonl: line 4")]


def test_without_times_the_text_has_no_spans(tmp_path):
    film(tmp_path / "a.mp4", 15)
    (tmp_path / "a.txt").write_text("x")
    ingest([tmp_path / "a.mp4"], tmp_path / "out")
    line = b'{"captions": ["x"], "events": [], "source": 0, "start": 0.0}\n'
    assert (tmp_path / "out" / "text" / "000000.jsonl").read_bytes() == line


def test_damaged_subtitles_reject_their_recording(tmp_path):
    for name in ("a", "b"):
        film(tmp_path / f"{name}.mp4", 15, ord(name))
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:00.500 --> 00:00.100\nx")
    ingest([tmp_path], tmp_path / "out", strict=False)
    (row,) = (json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_bytes().splitlines()[:1])
    assert (row["name"], row["start"]) == (f"{tmp_path.name}/a.mp4", None)
    assert row["reason"] == "a.vtt: line 3: 'x' from 0.5 to 0.1 s; needed seconds, 0 <= start < end; fix or remove it"


@pytest.mark.parametrize("kind", ["views", "video"])
def test_times_of_what_has_none_are_refused(tmp_path, monkeypatch, kind):
    """Photos of one instant, and several recordings that share their captions."""
    from data_pipelines.ingest import scan as scans
    from data_pipelines.recording.recording import Recording
    from wsm_jax.snapshot import orbit

    def read_candidate(_candidate, _options):
        def pictures(indices):
            yield from ({"rgb": np.full((16, 16, 3), i, np.uint8)} for i in indices)

        rest = (np.arange(8.0), 8.0, np.full((8, 2), 16), ("rgb",), pictures, (), orbit(8))
        yield from (Recording(name, kind, *rest) for name in ("r", "s")[: 1 if kind == "views" else 2])

    monkeypatch.setattr(scans, "read_candidate", read_candidate)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "transforms.json").touch()
    what = "x/r shows one instant" if kind == "views" else "x/r is one of 2 recordings that share these captions"
    with pytest.raises(ValueError, match=rf"c\.jsonl: line 3: 'y' has times, and {what}; leave out start and end"):
        ingest([tmp_path / "x"], tmp_path / "out", captions={"x": ["z", Cue("y", 0, 1, "c.jsonl: line 3")]})
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.scan").exists()
    if kind == "views":
        ingest([tmp_path / "x"], tmp_path / "out", captions={"x": ["z"]})
        assert wsv.Dataset(tmp_path / "out").captions(0) == ("z",)


def test_a_collection_is_not_laid_among_other_files(tmp_path):
    """Two shapes make a folder each, below a folder that holds nothing else; called again, both stay."""
    both = [Bucket(16, 16, 8, 0.5), Bucket(16, 28, 8, 0.5)]
    film(tmp_path / "wide.mp4", 24)
    write_video(tmp_path / "square.mp4", np.zeros((24, 32, 32, 3), np.uint8), 24)
    given = {"buckets": both, "filters": Filters(shots=False), **ARGUMENTS}
    inputs = [tmp_path / "wide.mp4", tmp_path / "square.mp4"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    ingest(inputs[:1], tmp_path / "one")
    for name, other in (("taken", "mine.txt"), ("one", "build.json|channels|manifest.json|rejected.jsonl")):
        with pytest.raises(ValueError, match=rf"{name}: the folder holds other files \(({other})"):
            run_ingest(inputs, tmp_path / name, **given)
    report = run_ingest(inputs, tmp_path / "both", **given)
    assert sorted(report.manifests) == ["16x16_8hz_0.5s", "16x28_8hz_0.5s"]
    assert json.loads((tmp_path / "both" / "collection.json").read_bytes())["datasets"] == [
        {"path": "16x16_8hz_0.5s", "clips": 2},
        {"path": "16x28_8hz_0.5s", "clips": 2},
    ]
    assert run_ingest(inputs, tmp_path / "both", **given).manifests == report.manifests
    assert not list(tmp_path.glob("*.scan"))
    with pytest.raises(ValueError, match="2 datasets were made"):
        print(report.manifest)


def test_a_burst_of_a_signal_fits(tmp_path, monkeypatch):
    """1000 steps in a tenth of a second, none in the rest: more than its mean rate gives any clip."""
    from data_pipelines.ingest import scan as scans
    from data_pipelines.recording.recording import Recording, Signal

    def read_candidate(_candidate, _options):
        burst = Signal(np.concatenate([[0.0], 4 + np.arange(1000) * 1e-4]), np.ones((1001, 3), np.float32))

        def pictures(indices):
            yield from ({"rgb": np.full((16, 16, 3), i, np.uint8)} for i in indices)

        size = np.full((80, 2), 16)
        yield Recording("r", "video", np.arange(80) / 8, 10.0, size, ("rgb",), pictures, (), signals={"imu": burst})

    monkeypatch.setattr(scans, "read_candidate", read_candidate)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "transforms.json").touch()
    ingest([tmp_path / "x"], tmp_path / "out")
    assert wsv.verify(tmp_path / "out", progress=False) == []
    found = wsv.Dataset(tmp_path / "out").clip(8).signals["imu"]
    np.testing.assert_allclose(found.time, np.arange(1000) * 1e-4, atol=1e-9)
    np.testing.assert_allclose(wsv.Dataset(tmp_path / "out").clip(7).signals["imu"].time, [-3.5], atol=1e-9)
